"""What is installed in an interpreter is found as importlib.metadata finds it, in a fraction of the time."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import pytest

from nbtools.execution.kernels.probe import probe


def test_every_distribution_is_found_with_its_version() -> None:
    found = {(name, version) for name, version in probe()["packages"].values()}
    known = {(item.metadata["Name"], item.version) for item in metadata.distributions()}
    assert found <= known
    assert ("papermill", metadata.version("papermill")) in found
    assert probe()["python"] == f"CPython {platform.python_version()}"


def test_import_names_are_those_of_importlib() -> None:
    packages = probe()["packages"]
    theirs = metadata.packages_distributions()
    for name in ("yaml", "sklearn", "IPython", "mlflow", "attr", "six"):
        assert packages[name][0] in theirs[name]


@pytest.mark.parametrize("record", ["RECORD", "SOURCES.txt"])
def test_modules_of_one_file_and_compiled_ones_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    info = tmp_path / ("odd-1.5.dist-info" if record == "RECORD" else "odd-1.5.egg-info")
    info.mkdir()
    names = ["single.py", "compiled.cpython-311-x86_64-linux-gnu.so", "folder/__init__.py", "odd-name/x.py"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    end = ",sha256=x,3" if record == "RECORD" else ""
    (info / record).write_text("".join(f"{name}{end}\n" for name in names))
    described = "Metadata-Version: 2.1\nName: odd\nVersion: 1.5\n\nVersion: of the description\n"
    (info / ("METADATA" if record == "RECORD" else "PKG-INFO")).write_text(described)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {name for name, item in probe()["packages"].items() if item == ["odd", "1.5"]}
    assert found == {"single", "compiled", "folder"}
