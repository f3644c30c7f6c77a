"""Tell what an interpreter is and what is installed in it.

This file also runs as a script under interpreters that know nothing of nbtools: standard library only.
"""

from __future__ import annotations

import email
import json
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any


def probe() -> dict[str, Any]:
    """Return version, folders searched for packages, and distributions by import name."""
    versions: dict[str, str] = {}
    origins: dict[str, str] = {}
    packages: dict[str, list[str]] = {}
    for distribution in metadata.distributions():
        name, version = _name_and_version(distribution)
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


def _name_and_version(distribution: metadata.Distribution) -> tuple[str, str]:
    # `distribution.metadata` takes the whole description apart, which is most of the work.
    text = (
        distribution.read_text("METADATA")
        or distribution.read_text("PKG-INFO")
        or distribution.read_text("")
        or ""
    )
    headers = email.message_from_string(text.partition("\n\n")[0])
    return headers.get("Name", ""), headers.get("Version", "")


def _modules(distribution: metadata.Distribution) -> set[str]:
    listed = distribution.read_text("top_level.txt")
    names = {line.strip().split("/")[0] for line in (listed or "").splitlines()}
    for head, is_file in _heads(distribution):
        if is_file:
            if head.endswith(".py"):
                names.add(head[:-3])
            elif head.endswith((".so", ".pyd")):
                names.add(head.split(".", 1)[0])
        elif not head.endswith((".dist-info", ".egg-info", ".data")) and head not in ("..", "__pycache__"):
            names.add(head)
    return {name for name in names if name.isidentifier()}


def _heads(distribution: metadata.Distribution) -> Iterable[tuple[str, bool]]:
    """Return the first part of each installed path, and whether that is all of it."""
    if record := distribution.read_text("RECORD"):
        # A path for each of the ten thousands of lines would take ten times as long; none here has a comma in its head.
        paths = (line.split(",", 1)[0].strip('"') for line in record.splitlines())
        return {(head, not rest) for head, _, rest in (path.partition("/") for path in paths)}
    return {(file.parts[0], len(file.parts) == 1) for file in distribution.files or ()}


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)
