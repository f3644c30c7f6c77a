"""The engine under plain papermill: truthful where papermill's own is not, and the same elsewhere."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import papermill
import pytest
import zmq
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError

from nbtools.execution.kernels.managed import ManagedClient
from nbtools.execution.kernels.session import Session
from nbtools.execution.kernels.warm.forker import ForkJob
from nbtools.execution.kernels.warm.nursery import Nursery
from tests.projects import environment, notebook

#: papermill asks for the language, too.
METADATA = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}


def write(path: Path, *cells: str, tags: dict[int, list[str]] | None = None, **options: Any) -> Path:
    """Write a notebook whose cells have ``tags``, by number."""
    content = notebook(*cells, metadata=METADATA, **options)
    for number, names in (tags or {}).items():
        content["cells"][number]["metadata"]["tags"] = names
    path.write_text(json.dumps(content))
    return path


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "papermill", "--engine", "nbtools", "in.ipynb", "out.ipynb", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def records(path: Path) -> list[tuple[str, Any]]:
    """Return what papermill's metadata say of each cell: its status, and whether it raised."""
    cells = [cell["metadata"] for cell in json.loads(path.read_text())["cells"]]
    own = [cell for cell in cells if "papermill-error-cell-tag" not in cell.get("tags", ())]
    return [(cell["papermill"]["status"], cell["papermill"].get("exception")) for cell in own]


def test_papermill_command_runs_a_notebook_with_the_engine(tmp_path: Path) -> None:
    write(tmp_path / "in.ipynb", "print('x is', x)", "x + 1", params="x = 1")
    done = command(tmp_path, "-p", "x", "41")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.ipynb").read_text())
    assert document["cells"][-1]["outputs"][0]["data"]["text/plain"] in ("42", ["42"])
    assert document["metadata"]["papermill"]["exception"] is None
    assert document["metadata"]["papermill"]["duration"] > 0
    assert set(records(tmp_path / "out.ipynb")) == {("completed", False)}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", []),
        ("import os\nos._exit(0)", []),
        ("import sys\nsys.exit(0)", []),
        ("quit()", []),
        ("import time\ntime.sleep(60)", ["--execution-timeout", "2"]),
        ("1 / 0", []),
    ],
    ids=["kernel killed", "os._exit", "sys.exit", "quit", "timeout", "error"],
)
def test_cells_after_the_guilty_one_are_not_said_to_be_completed(
    tmp_path: Path, cell: str, words: list[str]
) -> None:
    write(tmp_path / "in.ipynb", "x = 1", cell, "print('never')", "print('nor this')", params=None)

    done = command(tmp_path, *words)

    assert records(tmp_path / "out.ipynb") == [
        ("completed", False),
        ("failed", True),
        ("pending", None),
        ("pending", None),
    ]
    document = json.loads((tmp_path / "out.ipynb").read_text())
    assert document["metadata"]["papermill"]["exception"] is True
    assert "never" not in str([item.get("outputs") for item in document["cells"]])
    assert done.returncode != 0, "papermill calls it a success"


# The same outputs as papermill's own engine

SAME = {
    "streams": [
        "print('a')\nprint('b')",
        "import sys\nprint('out'); print('err', file=sys.stderr); print('out')",
    ],
    "rich": [
        "from IPython.display import HTML, JSON, Markdown, SVG, display\ndisplay(HTML('<b>x</b>'), JSON({'a': [1]}))",
        "display(Markdown('# t'), metadata={'k': 1})\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
        "from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n\\x1a\\n', format='png')",
        "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
    ],
    "display_id": [
        "from IPython.display import display\nhandle = display('first', display_id='one')\nprint('between')",
        "display('again', display_id='one')",
        "handle.update('updated from a later cell')",
        "from IPython.display import update_display\nupdate_display('last', display_id='one')",
    ],
    "clear_output": [
        "from IPython.display import clear_output, display\nprint('gone')\nclear_output()\nprint('kept')",
        "print('gone')\nclear_output(wait=True)\nprint('kept')",
        "print('kept')\nclear_output(wait=True)",
        "display('gone')\nprint('gone')\nclear_output(wait=True)\ndisplay('kept')\nprint('more')",
        "for n in range(5):\n    clear_output(wait=True)\n    print(n)",
    ],
    "errors": ["1 / 0", "print('goes on after a cell that may raise')"],
    "widgets": [
        "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    print('inside')\nprint('outside')",
        "out.append_stdout('appended')\nlen(out.outputs)",
    ],
    "carriage": ["for n in range(3):\n    print(f'\\r{n}', end='')\nprint()"],
    "unicode": ["print('☃ \\ud83d\\ude00'.encode('utf-16', 'surrogatepass').decode('utf-16'))\n'é'"],
    "tasks": [
        "import asyncio\nseen = []\nasync def later():\n    seen.append('began')\n    await asyncio.sleep(0)\n    seen.append('ended')",
        "task = asyncio.create_task(later())\nasyncio.get_running_loop().call_soon(seen.append, 'soon')\nNone",
        "import time\ntime.sleep(0.2)\nseen.sort()\nprint(seen, task.done())",
    ],
    "context": [
        "import contextvars, decimal\ndecimal.getcontext().prec = 5\nmark = contextvars.ContextVar('mark')\nmark.set(1);",
        "decimal.Decimal(1) / 3, mark.get()",
    ],
    "environment": [
        "import sklearn, os\nos.environ.get('KMP_INIT_AT_FORK'), os.environ.get('KMP_DUPLICATE_LIB_OK')",
    ],
    "nan": [
        "import warnings\nwarnings.simplefilter('ignore')\ndisplay({'application/json': {'a': float('nan')}, 'text/plain': 'nan'}, raw=True)"
    ],
    "breakpoint": ["breakpoint()\nprint('goes on')"],
    "magics": ["%%capture kept\nprint('caught')", "%%bash\necho shell", "!echo bang", "kept.stdout"],
}


def outputs(document: Any) -> list[list[dict[str, Any]]]:
    """Return what the cells put out, without what differs from run to run; a stream is one text."""
    found = []
    for cell in document["cells"]:
        items: list[dict[str, Any]] = []
        for output in cell.get("outputs", ()):
            item = dict(output)
            if item["output_type"] == "error":
                item["traceback"] = len(item["traceback"])
            items.append(json.loads(json.dumps(item)))
        found.append(items)
    return found


def by_stream(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return outputs with each stream's text joined where the stream begins."""
    found: dict[object, dict[str, Any]] = {}
    for number, item in enumerate(items):
        key = item["name"] if item["output_type"] == "stream" else number
        known = found.setdefault(key, {**item, "text": []} if isinstance(key, str) else item)
        if isinstance(key, str):
            known["text"] = known["text"] + list(item["text"])
    return list(found.values())


@pytest.fixture(scope="module")
def nurseries() -> Iterator[dict[str, Nursery]]:
    """Return where kernels are forked that are driven in a way; a run has one way."""
    found = {driven: Nursery() for driven in ("directly", "over the protocol")}
    for nursery in found.values():
        nursery.prepare(sys.executable, ["pandas", "ipywidgets", "sklearn"], {**os.environ})
    yield found
    for nursery in found.values():
        nursery.close()


def test_reply_that_wakes_nobody_does_not_hold_the_notebook_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in = ManagedClient.process_message

    def look_past_the_event_loop(self: ManagedClient, message: Any, *place: Any) -> Any:
        if message["msg_type"] == "execute_input":
            # As jupyter_client does to send something while the reply arrives.
            arrived = zmq.Socket.shadow(self.kc.shell_channel.socket.underlying).poll(10_000)
            assert (
                arrived or "shell.execute_reply" in place[0].metadata.execution
            )  # it has been taken in before
        return take_in(self, message, *place)

    monkeypatch.setattr(ManagedClient, "process_message", look_past_the_event_loop)
    source = write(tmp_path / "in.ipynb", "print('a')", "print('b')", params=None)
    document = executed(source, tmp_path / "out.ipynb", "nbtools")
    assert [cell["outputs"][0]["text"] for cell in document["cells"]] == [["a\n"], ["b\n"]]


def forked(nurseries: dict[str, Nursery], folder: Path, driven: str) -> Session:
    """Return a session on a kernel that is forked."""
    nursery = nurseries[driven]
    job = ForkJob(("pandas", "ipywidgets", "sklearn"), {**os.environ}, str(folder), ())
    if driven == "over the protocol":
        start = functools.partial(nursery.start, sys.executable)
        return Session(python=sys.executable, cwd=str(folder), start=start)
    return Session(fork=lambda: nursery.fork(sys.executable, job))


@pytest.fixture
def no_ordinary_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("an ordinary kernel was started")

    monkeypatch.setattr(LocalProvisioner, "launch_kernel", refuse)


def executed(source: Path, target: Path, engine: str, *, fails: bool = False, **options: Any) -> Any:
    """Return what papermill makes of a notebook with an engine."""
    # papermill goes on after a cell that may raise, and complains at the end.
    with pytest.raises(PapermillExecutionError) if fails else nullcontext():
        papermill.execute_notebook(
            str(source), str(target), engine_name=engine, progress_bar=False, **options
        )
    return json.loads(target.read_text())


def papermills_own(source: Path, target: Path, *, fails: bool) -> Any:
    """Return what papermill makes of a notebook by itself.

    Now and then it waits for a reply that has come without waking it, for ever.
    """
    for _ in range(5):
        with suppress(CellTimeoutError):
            return executed(source, target, "nbclient", fails=fails, execution_timeout=30)
    pytest.fail("papermill's own engine hangs again and again")


@pytest.mark.parametrize("kernel", ["ordinary", "directly", "over the protocol"])
@pytest.mark.parametrize("name", SAME)
def test_outputs_are_the_same_as_with_papermills_own_engine(
    tmp_path: Path, nurseries: dict[str, Nursery], name: str, kernel: str
) -> None:
    more = {"session": forked(nurseries, tmp_path, kernel)} if kernel != "ordinary" else {}
    tags = {0: ["raises-exception"]} if name == "errors" else {}
    source = write(tmp_path / "in.ipynb", *SAME[name], tags=tags, params=None)
    documents = {
        "nbclient": papermills_own(source, tmp_path / "nbclient.ipynb", fails=name == "errors"),
        "nbtools": executed(source, tmp_path / "nbtools.ipynb", "nbtools", fails=name == "errors", **more),
    }
    shown = {engine: outputs(document) for engine, document in documents.items()}
    if kernel == "directly":
        # An ordinary kernel sends stdout and stderr each in its own time; here they keep their order.
        shown = {engine: [by_stream(cell) for cell in cells] for engine, cells in shown.items()}
    assert shown["nbtools"] == shown["nbclient"]
    assert any(outputs(documents["nbtools"]))
    assert [cell.get("execution_count") for cell in documents["nbtools"]["cells"]] == [
        cell.get("execution_count") for cell in documents["nbclient"]["cells"]
    ]
    sources = ["".join(cell["source"]) for cell in documents["nbtools"]["cells"]]
    assert [source for source in sources if "papermill-error-cell" not in source] == SAME[name]


@pytest.mark.parametrize(
    ("cell", "kind", "message"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "kernel died", "SIGKILL"),
        ("import ctypes\nctypes.string_at(0)", "kernel died", "SIGSEGV"),
        ("import os\nos._exit(3)", "kernel died", "exit code 3"),
        ("import sys\nsys.exit(0)", "exit", "SystemExit: 0"),
        ("quit()", "exit", "ended the kernel"),
        ("import time\ntime.sleep(60)", "timeout", "longer than its 1 s"),
        ("1 / 0", "error", "ZeroDivisionError: division by zero"),
        ("input()", "error", "StdinNotImplementedError"),
        ("import getpass\ngetpass.getpass()", "error", "StdinNotImplementedError"),
        ("def broken(:", "error", "SyntaxError"),
        ("await __import__('asyncio').sleep(60)", "timeout", "longer than its 1 s"),
    ],
)
@pytest.mark.parametrize("driven", ["directly", "over the protocol"])
@pytest.mark.usefixtures("no_ordinary_kernel")
def test_forked_kernel_is_judged_by_what_was_seen(
    tmp_path: Path, nurseries: dict[str, Nursery], cell: str, kind: str, message: str, driven: str
) -> None:
    source = write(tmp_path / "in.ipynb", "x = 1", cell, "print('never')", params=None)
    session = forked(nurseries, tmp_path, driven)
    if kind == "timeout":
        session.timeout_s, session.deadline = 1, time.monotonic() + 1
    with suppress(PapermillExecutionError):  # papermill's own verdict; this is about ours
        papermill.execute_notebook(
            str(source),
            str(tmp_path / "out.ipynb"),
            engine_name="nbtools",
            progress_bar=False,
            session=session,
        )
    assert (session.verdict.kind, session.verdict.cell, session.verdict.complete) == (kind, 2, False)
    assert message in session.verdict.message
    assert records(tmp_path / "out.ipynb") == [("completed", False), ("failed", True), ("pending", None)]


def test_error_is_raised_as_papermill_raises_it(tmp_path: Path) -> None:
    source = write(tmp_path / "in.ipynb", "x = 1", "{}['missing']", params=None)
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(
            str(source), str(tmp_path / "out.ipynb"), engine_name="nbtools", progress_bar=False
        )
    assert (caught.value.ename, caught.value.evalue) == ("KeyError", "'missing'")
    assert caught.value.cell_index == 1


def test_working_directory_of_the_process_stays_as_it_is(tmp_path: Path) -> None:
    source = write(tmp_path / "in.ipynb", "import os\nos.getcwd()", params=None)
    before = os.getcwd()
    papermill.execute_notebook(str(source), None, engine_name="nbtools", progress_bar=False)
    assert os.getcwd() == before


def test_notebook_without_code_runs(tmp_path: Path) -> None:
    content = notebook(params=None, metadata=METADATA)
    content["cells"] = [{"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Only words"}]
    (tmp_path / "in.ipynb").write_text(json.dumps(content))
    done = command(tmp_path)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "out.ipynb") == [("completed", None)]
