"""The files that describe the environment agree, and hold nothing of the machine that they were made on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [
    Requirement(line)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in group
]
LOCK = (ROOT / "requirements.lock").read_text()
#: What nbtools is measured against; an environment of its own.
PEERS = (ROOT / "benchmarks/peers.lock").read_text()

#: Hosts of package registries, in two parts so that this file does not hold them.
REGISTRIES = ["pypi" + ".org", "pythonhosted" + ".org", "anaconda" + ".org", "npmjs" + ".org"]
MACHINE_PATH = re.compile(r"(?<![\w.:/~$}>-])/(?:work|root|home/\w+|Users/\w+)(?:/|\b)")


def locked(lock: str = LOCK) -> list[tuple[Requirement, list[str]]]:
    """Return the entries of a lock, each with its hashes."""
    lines = [
        line for line in lock.replace("\\\n", "").splitlines() if line and not line.lstrip().startswith("#")
    ]
    entries = [line.split("--hash=") for line in lines]
    return [(Requirement(head), [item.strip() for item in hashes]) for head, *hashes in entries]


def names_and_bounds(requirements: list[Requirement]) -> dict[str, str]:
    return {canonicalize_name(item.name): str(item.specifier) for item in requirements}


def test_environment_yml_equals_pyproject_in_names_and_bounds() -> None:
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *others, project = pip["pip"]
    stated = names_and_bounds([Requirement(line) for line in [*conda, *others]])
    assert project == "-e ."
    assert stated.pop("python") == PROJECT["requires-python"]
    assert stated == names_and_bounds(DECLARED)


@pytest.mark.parametrize("lock", [LOCK, PEERS], ids=["requirements", "peers"])
def test_lock_pins_and_hashes_every_entry(lock: str) -> None:
    assert len(locked(lock)) > len(DECLARED)
    for requirement, hashes in locked(lock):
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in hashes), requirement


@pytest.mark.parametrize("declared", DECLARED, ids=lambda item: item.name)
def test_lock_is_within_the_bounds_of_pyproject(declared: Requirement) -> None:
    name = canonicalize_name(declared.name)
    versions = [
        next(iter(entry.specifier)).version for entry, _ in locked() if canonicalize_name(entry.name) == name
    ]
    assert versions
    assert all(declared.specifier.contains(version) for version in versions)


def test_peers_have_the_versions_of_the_lock() -> None:
    versions = {entry.name: entry.specifier for entry, _ in locked()}
    shared = [entry for entry, _ in locked(PEERS) if entry.name in versions]
    assert {"ipykernel", "pandas", "papermill", "scikit-learn"} <= {entry.name for entry in shared}
    assert all(entry.specifier == versions[entry.name] for entry in shared)


@pytest.mark.parametrize("lock", [LOCK, PEERS], ids=["requirements", "peers"])
def test_lock_names_no_index_and_no_path(lock: str) -> None:
    known = lock.replace("nbtools (pyproject.toml)", "").replace("-r benchmarks/peers.in", "")
    known = known.replace("# via -c requirements.lock", "").replace("via -r benchmarks/peers.in", "")
    assert not re.search(r"://|^-|@|^\s*#.*[/\\]", known, re.MULTILINE)


def tracked_files() -> list[Path]:
    """Return what git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_names_a_registry_or_a_path_of_this_machine() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if any(host in line for host in REGISTRIES) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line[:120]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("ci", "reason", "failed"),
    [
        ("true", "no browser", 1),
        ("true", "not on this platform: needs Linux", 0),
        ("", "no browser", 0),
    ],
)
def test_a_skip_is_a_failure_in_ci_only(
    ci: str, reason: str, failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_skip.py").write_text(
        f"import pytest\n\ndef test_skips():\n    pytest.skip({reason!r})\n"
    )
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == failed, result.stdout
