"""What a model needs to be loaded elsewhere: packages, by exact version, and the project's own modules."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nbtools.pipeline.notebook import imports

#: What any packaged model is loaded with, whether its own modules name them or not.
_ALWAYS = ("mlflow", "pandas", "numpy", "cloudpickle")


def requirements(model: Any) -> list[str]:
    """Return ``name==version`` of what the model needs to be loaded: what is imported now, nothing guessed.

    The model's own modules are found by walking its parts; each package brings along those of its
    requirements that this process has imported.
    """
    owners = _owners()
    pending = [owners[top][0] for top in _tops(model) if top in owners]
    pending += [name for name in _ALWAYS if _version(name)]
    imported = {_normal(owner) for top in sys.modules if "." not in top for owner in owners.get(top, ())}
    found: dict[str, str] = {}
    while pending:
        name = _normal(pending.pop())
        if name in found or not (version := _version(name)):
            continue
        found[name] = version
        if name != "mlflow":  # the server and the client bring their own
            pending += [item for item in map(_normal, _dependencies(name)) if item in imported]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _owners() -> Mapping[str, list[str]]:
    """Return the distributions of each import name, which takes long: once for MLflow, which asks too, and for us."""
    from mlflow.utils import requirements_utils

    theirs: Any = requirements_utils
    try:
        theirs._init_modules_to_packages_map()
        found: Mapping[str, list[str]] = theirs._MODULES_TO_PACKAGES
    except AttributeError:  # of another MLflow
        return metadata.packages_distributions()
    return found


def own_code(model: Any, root: Path | None) -> list[Path]:
    """Return the project's modules and packages that the model is made of, with those that they import.

    A model is pickled with the names of its functions' modules, not with their code: without these files
    only this project could load it. What the notebook itself defines is pickled whole.
    """
    if root is None:
        return []
    pending = _tops(model)
    found: dict[str, Path] = {}
    while pending:
        top = pending.pop()
        place = _place(top, root)
        if place is None or top in found:
            continue
        found[top] = place
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            names = imports(file.read_text(encoding="utf-8-sig", errors="replace"))
            pending |= {name.partition(".")[0] for name in names if not name.startswith(".")}
    return [found[top] for top in sorted(found)]


def _place(top: str, root: Path) -> Path | None:
    """Return the file or folder of a module of the project; None for any other."""
    module = sys.modules.get(top)
    if module is None or top == "__main__" or _version(top):
        return None
    folders = list(getattr(module, "__path__", ()))
    written = folders[0] if folders else getattr(module, "__file__", None)
    if not written:
        return None
    place = Path(written).resolve()
    inside = place.is_relative_to(root.resolve()) and "site-packages" not in place.parts
    return place if inside else None


def _tops(model: Any) -> set[str]:
    return {_top(part) for part in _parts(model)}


def _parts(model: Any) -> Iterator[Any]:
    """Yield the model and what it is made of: estimators inside it, and what a notebook's functions use."""
    seen: set[int] = set()
    pending = [model]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, list | tuple):
            pending += part
        elif isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, types.FunctionType):
            pending += _used(part)
        elif isinstance(part, type):
            pending += vars(part).values() if part.__module__ == "__main__" else ()
        elif type(part).__module__ == "__main__" or hasattr(part, "get_params"):
            pending += [type(part), *getattr(part, "__dict__", {}).values()]


def _used(function: types.FunctionType) -> list[Any]:
    """Return what a function of the notebook uses: globals, what it encloses, and what it wraps."""
    if function.__module__ != "__main__":
        return []
    found = [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    wrapped = getattr(function, "__wrapped__", None)
    return [*found, wrapped] if wrapped is not None else found


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _top(part: Any) -> str:
    if isinstance(part, types.ModuleType):
        return part.__name__.partition(".")[0]
    module = getattr(part, "__module__", None) or type(part).__module__
    return str(module).partition(".")[0]


def _dependencies(name: str) -> list[str]:
    parsed = [Requirement(text) for text in metadata.requires(name) or ()]
    return [item.name for item in parsed if item.marker is None or item.marker.evaluate({"extra": ""})]


def _normal(name: str) -> str:
    return str(canonicalize_name(name))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
