"""The store is checked, mended and freed without ever losing what is in use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nbtools.api
from nbtools.execution.lock import exclusive
from tests.projects import SmallProject, one_stage, two_stages, wait_until


@pytest.fixture
def ran(tmp_path: Path) -> SmallProject:
    """Return a project that holds two results of each stage; those of factor 2 are in use."""
    project = two_stages(tmp_path)
    assert project.run(params={"factor": 3}).status == "passed"
    assert project.run().status == "passed"
    return project


def _object(project: SmallProject, content: bytes) -> Path:
    return next(
        path
        for path in (project.root / ".nbtools/store").rglob("*")
        if path.is_file() and path.read_bytes() == content
    )


def _damage(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"rubbish")


def test_a_sound_store_is_called_sound(ran: SmallProject) -> None:
    found = ran.command("fsck")
    assert found.returncode == 0
    assert "all sound" in found.stdout


def test_damage_is_mended_from_the_workspace_where_that_has_the_same_bytes(ran: SmallProject) -> None:
    _damage(_object(ran, b"2\n4\n6"))

    found = ran.command("fsck")

    assert found.returncode == 0
    assert "data.double: doubled" in found.stdout
    assert "mended: data/doubled.txt holds the same bytes" in found.stdout
    assert _object(ran, b"2\n4\n6").is_file()
    assert nbtools.api.fsck(project=ran.root).findings == ()


def test_damage_that_cannot_be_mended_names_the_stage_that_makes_it_again(ran: SmallProject) -> None:
    _damage(_object(ran, b"3\n6\n9"))

    found = ran.command("fsck")

    assert found.returncode == 1
    assert "damaged" in found.stdout
    assert "data.double makes it again" in found.stdout
    assert list((ran.root / ".nbtools/store/damaged").iterdir())
    assert ran.run(params={"factor": 3}).status == "passed"
    assert ran.text("data/total.txt") == "18"
    assert ran.command("fsck").returncode == 0


def test_what_is_in_use_and_gone_is_found_missing_and_made_again(ran: SmallProject) -> None:
    _object(ran, b"12").unlink()
    (ran.root / "data/total.txt").unlink()

    report = nbtools.api.fsck(project=ran.root)

    assert [(item.state, item.needed_by, item.rebuilt_by) for item in report.findings] == [
        ("missing", ("data.total: total",), ("data.total",))
    ]
    assert ran.run().status == "passed"
    assert ran.text("data/total.txt") == "12"


def test_a_damaged_file_within_a_stored_folder_is_mended_from_the_folder_in_the_workspace(
    tmp_path: Path,
) -> None:
    project = one_stage(
        tmp_path, "from pathlib import Path\nPath(result).mkdir()\nPath(result, 'x').write_text('deep')"
    )
    project.notebook(
        "only.ipynb",
        "from pathlib import Path\nPath(result).mkdir()\nPath(result, 'x').write_text('deep')",
        params="result = 'result.txt'",
    )
    assert project.run().status == "passed"
    _damage(_object(project, b"deep"))
    (finding,) = nbtools.api.fsck(project=tmp_path).findings
    assert finding.mended == "result.txt"
    assert _object(project, b"deep").is_file()


def test_only_what_is_not_in_use_is_freed_and_runs_again_when_it_is_wanted(ran: SmallProject) -> None:
    would = json.loads(ran.command("gc", "--keep-days", "0", "--dry-run", "--json").stdout)
    assert would["objects"] > 0
    assert ran.run(params={"factor": 3}).stages["data.double"].status == "restored"
    assert ran.run().stages["data.double"].status == "restored"

    assert "freed" in ran.command("gc", "--keep-days", "0").stdout

    (ran.root / "data/doubled.txt").unlink()
    assert ran.run().stages["data.double"].status == "restored"
    assert ran.run(params={"factor": 3}).stages["data.double"].status == "finished"


def test_recent_results_are_kept_by_default(ran: SmallProject) -> None:
    freed = nbtools.api.gc(project=ran.root)
    assert (freed.objects, freed.size_bytes) == (0, 0)


def test_what_a_killed_process_has_left_half_written_is_removed(ran: SmallProject) -> None:
    half = ran.write(".nbtools/store/ab/.half.tmp", b"...")
    nbtools.api.gc(project=ran.root)
    assert not half.exists()


def test_nothing_is_freed_while_a_run_is_under_way(ran: SmallProject) -> None:
    with exclusive(ran.root / ".nbtools/run.lock", {"run": "x"}, print):
        process = ran.start("gc")
        with process:
            assert process.stderr is not None
            assert "waiting for run x" in process.stderr.readline()
            process.kill()


@pytest.mark.parametrize("days", ["-1", "nan"])
def test_no_length_of_time_is_wrong_use(ran: SmallProject, days: str) -> None:
    assert ran.command("gc", "--keep-days", days).returncode == 2


def test_a_project_that_never_ran_has_nothing_to_check_or_free(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    assert project.command("fsck").returncode == 0
    assert project.command("gc").returncode == 0
    assert not (tmp_path / ".nbtools").exists()


def test_result_of_an_input_that_changed_meanwhile_is_kept_but_made_anew_the_next_time(
    tmp_path: Path,
) -> None:
    project = two_stages(tmp_path)
    project.notebook(
        "notebooks/double.ipynb",
        """
        import time
        from pathlib import Path
        values = [int(line) * factor for line in Path(numbers).read_text().split()]
        Path("read").write_text("")
        while not Path("changed").exists():
            time.sleep(0.02)
        Path(doubled).write_text("\\n".join(map(str, values)))
        """,
        params='factor = 1\nnumbers = "../data/numbers.txt"\ndoubled = "../data/doubled.txt"',
    )
    with project.start("run", "--no-tracking") as process:
        wait_until((tmp_path / "read").exists)
        project.write("data/numbers.txt", "10\n")
        project.write("changed", "")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
    assert "'numbers' (data/numbers.txt) changed while it ran" in said
    assert project.text("data/total.txt") == "12"

    project.write("data/numbers.txt", "1\n2\n3\n")
    (found,) = nbtools.api.why("double", project=tmp_path)
    assert found.reasons == ("numbers changed while it was made",)
    events = project.run()
    assert project.statuses(events) == {"data.double": "finished", "data.total": "unchanged inputs"}
    assert set(project.actions().values()) == {"up to date"}
