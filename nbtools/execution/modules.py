"""The project's own modules that code imports, found from the text of the imports, never by importing."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path

from nbtools.pipeline.notebook import DIGEST_VERSION, imports


class ModuleFinder:
    """Follows imports through the files of a project.

    Parameters
    ----------
    digest_of_file
        Digest of a file's bytes.
    facts, new_facts
        What is remembered of files by digest, and where to put what is found anew.
    """

    def __init__(
        self,
        root: Path,
        digest_of_file: Callable[[Path], str],
        facts: MutableMapping[str, str],
        new_facts: MutableMapping[str, str],
    ) -> None:
        self._root = root
        self._digest_of_file = digest_of_file
        self._facts = facts
        self._new_facts = new_facts
        self._listings: dict[str, frozenset[str]] = {}
        self._found: dict[tuple[str, tuple[str, ...]], tuple[tuple[str, str], ...]] = {}

    def closure(self, names: Iterable[str], folders: tuple[str, ...]) -> tuple[dict[str, str], set[str]]:
        """Return the project's files that are imported, by path with digest, and all other top-level names.

        Parameters
        ----------
        names
            Dotted module names.
        folders
            Where the importing code looks for modules, relative to the project; the first match wins.
        """
        files: dict[str, str] = {}
        foreign: set[str] = set()
        pending = list(names)
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if name in seen or name.startswith("."):
                continue
            seen.add(name)
            found = self._resolve(name, folders)
            if not found:
                foreign.add(name.partition(".")[0])
            for path, module in found:
                if path not in files:
                    files[path] = self._digest_of_file(self._root / path)
                    pending += self._imports(path, files[path], module)
        own = {name.partition(".")[0] for name in seen if self._resolve(name.partition(".")[0], folders)}
        return files, foreign - own

    def file(self, path: str, folders: tuple[str, ...]) -> dict[str, str]:
        """Return a file and the project's files that it imports, by path with digest."""
        digest = self._digest_of_file(self._root / path)
        files, _ = self.closure(self._imports(path, digest, ""), folders)
        return {path: digest, **files}

    def _resolve(self, name: str, folders: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Return the files that importing ``name`` executes, its packages' and its own, each with its module."""
        key = (name, folders)
        if key not in self._found:
            self._found[key] = next(filter(None, (self._resolve_in(name, folder) for folder in folders)), ())
        return self._found[key]

    def _resolve_in(self, name: str, folder: str) -> tuple[tuple[str, str], ...]:
        parts = name.split(".")
        listing = self._listing(folder)
        if parts[0] not in listing and f"{parts[0]}.py" not in listing:
            return ()
        found = []
        for depth in range(1, len(parts) + 1):
            base = posixpath.normpath(posixpath.join(folder, *parts[:depth]))
            for candidate in (f"{base}/__init__.py", f"{base}.py"):
                if (self._root / candidate).is_file():
                    found.append((candidate, ".".join(parts[:depth])))
                    break
        return tuple(found)

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(os.listdir(self._root / folder))
            except OSError:
                self._listings[folder] = frozenset()
        return self._listings[folder]

    def _imports(self, path: str, digest: str, name: str) -> list[str]:
        key = f"module {DIGEST_VERSION} {digest}"
        if key not in self._facts:
            text = (self._root / path).read_bytes().decode("utf-8-sig", "replace")
            self._facts[key] = self._new_facts[key] = json.dumps(sorted(imports(text)))
        return [_absolute(item, path, name) for item in json.loads(self._facts[key])]


def _absolute(item: str, path: str, name: str) -> str:
    """Return the dotted name that a relative import in the module ``name`` means."""
    level = len(item) - len(item.lstrip("."))
    if not level:
        return item
    package = name.split(".") if path.endswith("__init__.py") else name.split(".")[:-1]
    base = package[: len(package) - level + 1] if level > 1 else package
    return ".".join([*base, *filter(None, [item[level:]])])
