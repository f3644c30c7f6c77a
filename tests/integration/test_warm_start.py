"""What makes kernels come quickly: zygotes begun early, shells made ready, imports learnt from the first notebooks."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nbtools.execution.kernels.seeding import with_hash_seed
from nbtools.execution.kernels.warm import begun as early
from nbtools.execution.kernels.warm import wire
from nbtools.execution.kernels.warm.begun import begin_early, drop, taken
from nbtools.execution.kernels.warm.forked import ForkedKernel
from nbtools.execution.kernels.warm.forker import Cold, ForkJob
from nbtools.execution.kernels.warm.nursery import Nursery, Zygote
from tests.projects import SmallProject, one_stage, wait_until

BOTH = """
    data: {first: first.json, second: second.json}
    pipelines:
      work:
        stages:
          one: {notebook: one.ipynb, outputs: [first]}
          two: {notebook: two.ipynb, inputs: [first], outputs: [second]}
"""


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Zygote]:
    """Return a zygote that has imported a package and may import more of it."""
    package = tmp_path / "some-packages/gathered"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "calm.py").write_text("value = 1")
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()"
    (package / "threaded.py").write_text(thread)
    (package / "open_file.py").write_text("file = open(__file__)")
    (package / "folder.py").write_text("import tempfile\nfolder = tempfile.TemporaryDirectory()")
    (package / "draws.py").write_text("import random\ndrawn = random.random()")
    (package / "sets.py").write_text(
        "import os, sys\nos.environ['LEAKED'] = '1'\nsys.setrecursionlimit(5000)"
    )
    (package / "never.py").write_text("import sys, types\nsys.modules['numba'] = types.ModuleType('numba')")
    (package / "starts.py").write_text("import subprocess\nprogram = subprocess.Popen(['sleep', '60'])")
    (package / "exits.py").write_text("import sys\nsys.exit(3)")
    found = Zygote(sys.executable, ["gathered"], {**os.environ, "PYTHONPATH": str(package.parent)})
    yield found
    found.close()


def fork(zygote: Zygote, folder: Path) -> ForkedKernel:
    environment = {**os.environ, "PYTHONPATH": str(folder / "some-packages")}
    return zygote.fork(ForkJob(("gathered",), environment, str(folder), (str(folder / "some-packages"),)))


def asked(kernel: ForkedKernel, expression: str) -> str:
    """Return the value of an expression in a kernel as text, and end it."""
    kernel.send({"do": "execute", "id": "1", "code": expression})
    found = ""
    for frame in kernel.frames(time.monotonic() + 60):
        message = wire.unpacked_message(frame[1])[0] if frame and frame[0] == wire.MESSAGE else None
        if message and message["msg_type"] == "execute_result":
            found = message["content"]["data"]["text/plain"]
        if message and message["msg_type"] == "execute_reply":
            break
    kernel.stop(at_once=True)
    kernel.close()
    return found


def has(zygote: Zygote, folder: Path, module: str) -> bool:
    return asked(fork(zygote, folder), f"'{module}' in __import__('sys').modules") == "True"


def test_what_a_notebook_comes_to_import_is_there_for_the_next_ones(tmp_path: Path, zygote: Zygote) -> None:
    assert not has(zygote, tmp_path, "gathered.calm")
    zygote.also_import(["gathered.calm"])
    wait_until(lambda: has(zygote, tmp_path, "gathered.calm"))


@pytest.mark.parametrize("harmful", ["threaded", "open_file", "folder", "draws", "sets", "never", "starts"])
def test_what_would_make_forks_unsafe_is_not_imported_ahead(
    tmp_path: Path, zygote: Zygote, harmful: str
) -> None:
    zygote.also_import([f"gathered.{harmful}"])
    zygote.also_import(["gathered.exits", "gathered.missing", "gathered.calm"])
    wait_until(lambda: has(zygote, tmp_path, "gathered.calm"))
    assert not has(zygote, tmp_path, f"gathered.{harmful}")


def test_cells_tell_what_they_have_imported_of_packages_that_were_there(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec(BOTH)
    look = "import json, sys\nopen({0}, 'w').write(json.dumps('pyarrow.parquet' in sys.modules))"
    project.notebook(
        "one.ipynb",
        "import pandas as pd",
        look.format("first"),
        "pd.DataFrame({'a': [1]}).to_parquet('x.parquet')",
        "import time\ntime.sleep(3)  # the zygote imports meanwhile",
        params="first = 'first.json'",
    )
    project.notebook(
        "two.ipynb",
        "import pandas as pd",
        look.format("second"),
        params="first = 'first.json'\nsecond = 'second.json'",
    )
    assert project.run().status == "passed"
    assert [json.loads(project.text(f"{name}.json")) for name in ("first", "second")] == [False, True]


def test_odd_things_among_the_modules_are_no_failure_of_a_cell(tmp_path: Path) -> None:
    cell = """
        import sys
        class Odd:
            def __getattr__(self, name):
                raise RuntimeError(name)
        sys.modules["pandas.odd"] = Odd()
    """
    assert one_stage(tmp_path, "import pandas", cell).run().status == "passed"


def test_kernel_whose_shell_was_made_before_begins_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "ipython/profile_default/startup"
    profile.mkdir(parents=True)
    (profile / "00-mine.py").write_text("import os\nmine = os.getpid()")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "on-path"))
    project = SmallProject(tmp_path / "project")
    project.spec(BOTH)
    project.write("own.py", "value = 'of the folder'")
    (tmp_path / "on-path").mkdir()
    (tmp_path / "on-path/own.py").write_text("value = 'on the path'")
    look = """
        import json, os, sys, __main__
        import own
        found = [mine == os.getpid(), own.value, sys.path, str(_dh[0]) == os.getcwd(), len(In),
                 __main__.__dict__ is globals(), get_ipython().user_module is __main__]
        open({0}, "w").write(json.dumps(found))
    """
    project.notebook("one.ipynb", look.format("first"), params="first = 'first.json'")
    project.notebook(
        "two.ipynb", look.format("second"), params="first = 'first.json'\nsecond = 'second.json'"
    )
    assert project.run().status == "passed"
    made_in_it, made_before = (json.loads(project.text(f"{name}.json")) for name in ("first", "second"))
    assert made_before == made_in_it == [True, "of the folder", *made_in_it[2:3], True, 4, True, True]


def test_zygote_that_is_prepared_for_one_way_of_driving_refuses_the_other(
    tmp_path: Path, zygote: Zygote
) -> None:
    def refused() -> bool:
        arguments = ("-f", str(tmp_path / "kernel.json"))
        asked(fork(zygote, tmp_path), "1")
        job = ForkJob((), {**os.environ}, str(tmp_path), (), arguments=arguments)
        try:
            process = zygote.start(job, 1, 2)
        except Cold as reason:
            return "driven directly" in str(reason)
        os.kill(process.pid, 9)
        process.close()
        return False

    wait_until(refused)


# A zygote that is begun before the project has been read


@pytest.fixture
def project(tmp_path: Path) -> Iterator[SmallProject]:
    yield one_stage(tmp_path)
    drop()


def begun(folder: Path, options: Sequence[str] = ()) -> bool:
    with contextlib.chdir(folder):
        begin_early(options)
    return bool(early._early)


def test_zygote_is_begun_early_for_a_first_run_only(project: SmallProject) -> None:
    assert begun(project.root)
    drop()
    project.run()
    assert not begun(project.root)


@pytest.mark.parametrize("option", ["--cold", "-n", "--dry-run", "--help"])
def test_no_zygote_is_begun_early_for_what_needs_none(project: SmallProject, option: str) -> None:
    assert not begun(project.root, [option])


def test_no_zygote_is_begun_early_outside_a_project(tmp_path: Path) -> None:
    assert not begun(tmp_path)


def test_zygote_that_was_begun_early_has_the_environment_that_is_told_later(
    project: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "s3cret")
    monkeypatch.setenv("SETTING_OF_MINE", "read at import")
    assert begun(project.root)
    (process,) = early._early
    environ = Path(f"/proc/{process.guardian.pid}/environ").read_text().split("\0")
    assert not [item for item in environ if "OF_MINE" in item]
    environment = with_hash_seed({**os.environ})
    del environment["SECRET_OF_MINE"]
    nursery = Nursery()
    nursery.prepare(sys.executable, [], environment)
    assert not early._early
    kernel = nursery.fork(sys.executable, ForkJob((), environment, str(project.root), ()))
    names = "[__import__('os').environ.get(name) for name in ('SETTING_OF_MINE', 'SECRET_OF_MINE')]"
    assert asked(kernel, names) == "['read at import', None]"
    nursery.close()


def test_zygote_that_was_begun_early_is_passed_over_if_it_knows_too_much(project: SmallProject) -> None:
    assert begun(project.root)
    environment = {name: value for name, value in os.environ.items() if name != "PATH"}
    assert taken(sys.executable, environment) is None
    assert taken("/usr/bin/another-python", {**os.environ}) is None
    assert early._early


def test_first_run_on_the_command_line_leaves_no_process_behind(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    project.write("pipelines.yaml", project.text("pipelines.yaml") + "kernels: {warm: false}\n")
    assert project.command("run", "--no-tracking").returncode == 0
    broken = one_stage(tmp_path / "broken")
    broken.write("pipelines.yaml", "version: what\n")
    assert broken.command("run", "--no-tracking").returncode == 2

    def left() -> list[str]:
        told = (Path(f"/proc/{name}/environ") for name in os.listdir("/proc") if name.isdigit())
        return [str(path) for path in told if _mentions(path, str(tmp_path))]

    wait_until(lambda: not left(), 15)


def _mentions(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes() + (path.parent / "cwd").readlink().as_posix().encode()
    except OSError:
        return False
