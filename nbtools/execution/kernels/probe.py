"""Tell what an interpreter is and what is installed in it.

This file also runs as a script under interpreters that know nothing of nbtools: standard library only.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from typing import Any


def probe() -> dict[str, Any]:
    """Return version, folders searched for packages, and distributions by import name."""
    versions: dict[str, str] = {}
    origins: dict[str, str] = {}
    packages: dict[str, list[str]] = {}
    for distribution in metadata.distributions():
        described = distribution.metadata  # parsed anew at each access
        name, version = described["Name"], described["Version"]
        if not name or name in versions:
            continue  # the first one found is the one that is imported
        versions[name] = version
        if found := distribution.read_text("direct_url.json"):
            origins[name] = found
        for module in _modules(distribution):
            packages.setdefault(module, [name, version])
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "folders": [folder for folder in sys.path if folder.endswith("-packages")],
        "packages": packages,
        "distributions": versions,
        "origins": {name: _origin(text) for name, text in origins.items()},
        "standard": sorted(sys.stdlib_module_names),
    }


def _origin(text: str) -> str:
    """Return where a distribution that is from no index was installed from, without user and password."""
    try:
        url = str(json.loads(text)["url"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else "unknown"


def _modules(distribution: metadata.Distribution) -> set[str]:
    listed = distribution.read_text("top_level.txt")
    names = {line.strip().split("/")[0] for line in (listed or "").splitlines()}
    for file in distribution.files or ():
        head = file.parts[0]
        if len(file.parts) == 1:
            if head.endswith(".py"):
                names.add(head[:-3])
            elif head.endswith((".so", ".pyd")):
                names.add(head.split(".", 1)[0])
        elif not head.endswith((".dist-info", ".egg-info", ".data")) and head not in ("..", "__pycache__"):
            names.add(head)
    return {name for name in names if name.isidentifier()}


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)
