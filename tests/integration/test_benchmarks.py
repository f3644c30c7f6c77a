from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*options: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_prints_ratios_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"

    shown = bench(
        "--no-peers", "--small", "--only", "plan", "--sizes", "10", "--repeat", "1", "--json", str(file)
    )

    record = json.loads(file.read_text(encoding="utf-8"))
    (result,) = record["benchmarks"]["plan"]
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["python -c pass"]["ratio"]["median"] == 1
    planned = rows["nbtools plan --json"]
    assert planned["ratio"]["min"] == planned["ratio"]["max"] > 0
    assert planned["peak_mib"] > 0
    assert result["rounds"] == 1
    assert record["machine"]["cores"] >= 1
    assert "10 stages, all up to date (1 round)" in shown
    assert f"{planned['ratio']['median']:.2f}" in shown


def test_every_benchmark_runs_in_its_smallest_size(tmp_path: Path) -> None:
    """Two at a time, for they mostly wait for processes to start; what they print, not how long it took."""
    groups = [["pipeline", "start", "single"], ["kernels", "cells", "sweep", "tracking", "search"]]
    files = [tmp_path / f"{number}.json" for number in range(len(groups))]

    def small(names: list[str], file: Path) -> str:
        only = [word for name in names for word in ("--only", name)]
        return bench("--small", "--no-peers", "--untracked", "--variants", "2", "--json", str(file), *only)

    with ThreadPoolExecutor(len(groups)) as pool:
        shown = "".join(pool.map(small, groups, files))

    tables = [
        table
        for file in files
        for results in json.loads(file.read_text(encoding="utf-8"))["benchmarks"].values()
        for table in results
    ]
    rows = {row["name"]: row for table in tables for row in table["rows"]}
    assert all(table["title"] in shown and name in shown for table in tables for name in rows)
    assert all(table["unit"] in row for table in tables for row in table["rows"])
    assert rows["nbtools, cold"]["note"] == "4 of 4 stages ran"
    assert rows["nbtools, nothing changed"]["note"] == "0 of 4 stages ran"
    assert rows["nbtools, one param changed"]["note"] == "1 of 4 stages ran"
    assert rows["nbtools run"]["note"].endswith("ms a cell")
    assert rows["tracked"]["note"].endswith("ms more a stage")
    assert {
        "papermill loop, 2 at a time",
        "warm kernel",
        "warm kernels",
        "nbtools.package",
        "nbtools runs search",
    } <= rows.keys()
    if sys.platform == "linux":
        assert rows["nbtools, the beginning shared"]["note"] == "the beginning ran once"
    assert rows["nbtools, share_prefix: false"]["note"] == "the beginning ran 2 times"


def test_a_completed_project_is_as_after_a_run(tmp_path: Path) -> None:
    """What the benchmark of plans starts from is what nbtools itself takes for a finished run."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.harness import Settings; "
        "from benchmarks.plans import up_to_date; print(up_to_date(Settings(Path(sys.argv[1])), 12))"
    )
    folder = subprocess.check_output([sys.executable, "-c", code, tmp_path], cwd=ROOT, text=True).strip()

    command = [sys.executable, "-m", "nbtools", "-C", folder]
    (row,) = json.loads(subprocess.check_output([*command, "history", "--json"]))
    again = subprocess.check_output([*command, "run", "--no-tracking"], text=True)

    assert row["status"] == "passed"
    assert "12 stages up to date" in again
