from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from nbtools.execution.digest import file_digest
from nbtools.execution.modules import ModuleFinder
from nbtools.pipeline.notebook import imports


def _write(root: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def _finder(root: Path) -> ModuleFinder:
    return ModuleFinder(root, file_digest, {}, {})


def _found(
    root: Path, code: str, files: Mapping[str, str], folders: Iterable[str] = (".",)
) -> tuple[set[str], set[str]]:
    """Return the project's files that ``code`` imports, and the foreign names."""
    _write(root, files)
    own, foreign = _finder(root).closure(sorted(imports(code)), tuple(folders))
    return set(own), foreign


@pytest.mark.parametrize(
    ("code", "files", "found"),
    [
        ("import a", {"a.py": "", "b.py": ""}, {"a.py"}),
        ("import a", {"a.py": "import b", "b.py": "from c import x", "c.py": ""}, {"a.py", "b.py", "c.py"}),
        ("import a", {"a.py": "import b", "b.py": "import a"}, {"a.py", "b.py"}),
        ("import a", {"a.py": "import a"}, {"a.py"}),
        ("import p", {"p/__init__.py": "", "p/m.py": ""}, {"p/__init__.py"}),
        ("import p.m", {"p/__init__.py": "", "p/m.py": ""}, {"p/__init__.py", "p/m.py"}),
        ("from p import m", {"p/__init__.py": "", "p/m.py": ""}, {"p/__init__.py", "p/m.py"}),
        ("from p import name", {"p/__init__.py": "name = 1", "p/m.py": ""}, {"p/__init__.py"}),
        ("from p.m import name", {"p/__init__.py": "", "p/m.py": ""}, {"p/__init__.py", "p/m.py"}),
        ("import importlib\nimportlib.import_module('a')", {"a.py": ""}, {"a.py"}),
        ("def late():\n    import a", {"a.py": ""}, {"a.py"}),
        ("import a", {"a.py": "not python (", "b.py": ""}, {"a.py"}),
        ("import a", {"a.py": "\ufeffimport b", "b.py": ""}, {"a.py", "b.py"}),
    ],
)
def test_imports_are_followed_through_the_project(
    tmp_path: Path, code: str, files: dict[str, str], found: set[str]
) -> None:
    assert _found(tmp_path, code, files)[0] == found


PACKAGE = {
    "p/__init__.py": "from .sub import name\nfrom . import other",
    "p/sub.py": "name = 1",
    "p/other.py": "from .deep.leaf import x",
    "p/deep/__init__.py": "",
    "p/deep/leaf.py": "from ..top import y\nfrom ... import far",
    "p/top.py": "",
    "p/unused.py": "",
}


@pytest.mark.parametrize(
    "code", ["import p", "from p import name", "import p.top", "from p.deep import leaf"]
)
def test_relative_imports_count_from_the_module_that_holds_them(tmp_path: Path, code: str) -> None:
    assert _found(tmp_path, code, PACKAGE)[0] == set(PACKAGE) - {"p/unused.py"}


def test_a_folder_without_init_is_a_namespace(tmp_path: Path) -> None:
    files = {"space/m.py": "from . import n", "space/n.py": "", "space/other.py": ""}
    assert _found(tmp_path, "from space import m", files)[0] == {"space/m.py", "space/n.py"}


def test_what_is_not_of_the_project_is_foreign(tmp_path: Path) -> None:
    files = {"a.py": "import numpy.linalg, os", "data/x.csv": "", "pandas/readme.txt": ""}
    found, foreign = _found(tmp_path, "import a, sklearn.linear_model, pandas as pd", files)
    assert found == {"a.py"}
    assert foreign == {"numpy", "os", "sklearn", "pandas"}


def test_a_module_of_the_project_hides_an_installed_one(tmp_path: Path) -> None:
    found, foreign = _found(tmp_path, "import yaml", {"yaml.py": ""})
    assert (found, foreign) == ({"yaml.py"}, set())


def test_the_first_folder_wins(tmp_path: Path) -> None:
    files = {"nb/a.py": "", "src/a.py": "", "src/b.py": ""}
    assert _found(tmp_path, "import a, b", files, ("nb", "src"))[0] == {"nb/a.py", "src/b.py"}
    assert _found(tmp_path, "import a, b", {}, ("src", "nb"))[0] == {"src/a.py", "src/b.py"}


def test_a_package_hides_the_module_beside_it(tmp_path: Path) -> None:
    assert _found(tmp_path, "import a", {"a/__init__.py": "", "a.py": ""})[0] == {"a/__init__.py"}


def test_a_folder_of_data_hides_no_module_of_its_name(tmp_path: Path) -> None:
    files = {"data/x.csv": "", "nb/data.py": ""}
    assert _found(tmp_path, "import data", files, (".", "nb"))[0] == {"nb/data.py"}


def test_the_digest_of_a_module_is_that_of_its_bytes(tmp_path: Path) -> None:
    _write(tmp_path, {"a.py": "x = 1"})
    assert _finder(tmp_path).closure(["a"], (".",))[0] == {"a.py": file_digest(tmp_path / "a.py")}


def test_a_file_brings_what_it_imports(tmp_path: Path) -> None:
    _write(
        tmp_path, {"checks/schemas.py": "import limits", "checks/limits.py": "import shared", "shared.py": ""}
    )
    found = _finder(tmp_path).file("checks/schemas.py", ("checks", "."))
    assert set(found) == {"checks/schemas.py", "checks/limits.py", "shared.py"}


def test_what_a_module_imports_is_remembered_by_its_digest(tmp_path: Path) -> None:
    _write(tmp_path, {"a.py": "import b", "b.py": ""})
    facts: dict[str, str] = {}
    new: dict[str, str] = {}
    ModuleFinder(tmp_path, file_digest, facts, new).closure(["a"], (".",))
    assert set(new) == set(facts)
    again: dict[str, str] = {}
    found, _ = ModuleFinder(tmp_path, file_digest, facts, again).closure(["a"], (".",))
    assert (set(found), again) == ({"a.py", "b.py"}, {})
