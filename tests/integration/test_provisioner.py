"""Warm kernels for whatever starts kernels with jupyter_client, JupyterLab's server among them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from jupyter_client.manager import KernelManager
from traitlets.config import Config

import nbtools.api
from nbtools.execution.kernels.warm.provisioner import Child, SharedZygotes, shared_zygotes
from tests.projects import environment, notebook, one_stage, wait_until

WARM = {"JUPYTER_DEFAULT_PROVISIONER_NAME": "nbtools-warm"}
PARENT = "import os\nprint(open(f'/proc/{os.getppid()}/cmdline').read())"


class Kernel:
    """A kernel and its client, as any program would have them."""

    def __init__(self, modules: tuple[str, ...] = (), **options: Any) -> None:
        config = Config()
        config.KernelProvisionerFactory.default_provisioner_name = "nbtools-warm"
        config.WarmProvisioner.modules = list(modules)
        self.manager = KernelManager(config=config)
        spec = self.manager.kernel_spec
        assert spec is not None
        spec.metadata["kernel_provisioner"] = {"provisioner_name": "nbtools-warm"}
        self.manager.start_kernel(**options)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def is_warm(self) -> bool:
        """Whether it was forked."""
        assert self.manager.provisioner is not None
        return isinstance(getattr(self.manager.provisioner, "process", None), Child)

    def printed(self, code: str) -> str:
        """Return what ``code`` prints, and raises."""
        said: list[str] = []

        def hear(message: Any) -> None:
            content = message["content"]
            said.append(content.get("text") or content.get("evalue") or "")

        self.client.execute_interactive(code, timeout=60, output_hook=hear)
        return "".join(said)

    def end(self) -> None:
        """End it as programs do."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel(("pandas",))
    yield kernel
    kernel.end()


def test_kernel_is_forked_and_does_what_an_ordinary_one_does(kernel: Kernel) -> None:
    assert kernel.is_warm
    assert "zygote.py" in kernel.printed(PARENT)
    assert "6" in kernel.printed("import pandas as pd\nprint(pd.Series([1, 2, 3]).sum())")
    assert "ZeroDivisionError" in kernel.printed(
        "try:\n    1 / 0\nexcept Exception as e:\n    print(repr(e))"
    )
    assert "echoed" in kernel.printed("!echo echoed")


def test_what_was_imported_ahead_is_there(kernel: Kernel) -> None:
    def is_there() -> bool:
        later = Kernel(("pandas",))
        there = "True" in later.printed("import sys\nprint('pandas' in sys.modules)")
        later.end()
        return there

    wait_until(is_there)


def test_it_is_interrupted_restarted_and_killed_as_ever(kernel: Kernel) -> None:
    kernel.client.execute("import time\ntime.sleep(60)")
    time.sleep(0.5)
    kernel.manager.interrupt_kernel()
    assert kernel.client.get_shell_msg(timeout=30)["content"]["ename"] == "KeyboardInterrupt"
    kernel.printed("kept = 1")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.is_warm
    assert "'kept' is not defined" in kernel.printed("kept")
    pid = int(kernel.printed("import os\nprint(os.getpid())"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not kernel.manager.is_alive(), within_s=3)


def test_what_it_started_ends_with_it(kernel: Kernel) -> None:
    pid = int(kernel.printed("import subprocess\nprint(subprocess.Popen(['sleep', '300']).pid)"))
    kernel.manager.shutdown_kernel(now=True)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), within_s=5)


def test_the_debugger_is_there(kernel: Kernel) -> None:
    asked = kernel.client.session.msg(
        "debug_request", {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}}
    )
    kernel.client.control_channel.send(asked)
    answer = kernel.client.get_control_msg(timeout=30)["content"]
    assert answer["success"]
    assert "debugger" in kernel.client.kernel_info(reply=True)["content"]["supported_features"]


@pytest.mark.parametrize("how", ["independent", "piped", "shadowed", "other program"])
def test_what_cannot_be_forked_is_started_as_an_ordinary_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    options: dict[str, Any] = {"cwd": str(tmp_path)}
    if how == "independent":
        options["independent"] = True
    elif how == "piped":
        options["stdout"] = subprocess.PIPE
    elif how == "shadowed":
        (tmp_path / "pandas.py").write_text("mine = True")
    else:
        monkeypatch.setattr("nbtools.execution.kernels.warm.provisioner._PROGRAMS", ())
    kernel = Kernel(("pandas",), **options)
    try:
        assert not kernel.is_warm
        assert "True" in kernel.printed(
            "import pandas\nprint(hasattr(pandas, 'mine') == " + f"{how == 'shadowed'})"
        )
    finally:
        kernel.end()


# What a zygote depends on


@pytest.fixture
def shared() -> Iterator[SharedZygotes]:
    shared = SharedZygotes()
    yield shared
    shared.close()


def test_zygote_is_shared_until_a_variable_that_imports_may_read_changes(shared: SharedZygotes) -> None:
    first = shared.zygote(sys.executable, ["pandas"], {**os.environ, "JPY_SESSION_NAME": "one"})
    assert shared.zygote(sys.executable, ["pandas"], {**os.environ, "JPY_SESSION_NAME": "two"}) is first
    assert shared.zygote(sys.executable, ["pandas"], {**os.environ, "PANDAS_COPY_ON_WRITE": "1"}) is not first
    wait_until(lambda: first.lost, within_s=10)  # nobody needs it any more


def test_zygote_is_made_anew_when_a_package_is_installed(tmp_path: Path, shared: SharedZygotes) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    (packages,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    ours = next(folder for folder in sys.path if folder.endswith("site-packages"))
    (packages / "ours.pth").write_text(f"{ours}\n")
    first = shared.zygote(str(python), ["newcomer"], {**os.environ})
    assert first.modules == ()
    (packages / "newcomer.py").write_text("value = 1")
    (packages / "newcomer-1.dist-info").mkdir()
    (packages / "newcomer-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: newcomer\nVersion: 1\n"
    )
    (packages / "newcomer-1.dist-info/RECORD").write_text("newcomer.py,,\n")
    assert shared.zygote(str(python), ["newcomer"], {**os.environ}).modules == ("newcomer",)


def test_packages_that_do_not_survive_a_fork_are_not_imported_ahead(shared: SharedZygotes) -> None:
    assert shared.zygote(sys.executable, ["torch", "pandas", "no_such"], {**os.environ}).modules == (
        "pandas",
    )


def test_zygote_that_was_killed_is_replaced(kernel: Kernel) -> None:
    (pid,) = {int(kernel.printed("import os\nprint(os.getppid())"))}
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not kernel.manager.is_alive(), within_s=5)
    other = Kernel(("pandas",))
    assert other.is_warm
    other.end()
    assert shared_zygotes() is shared_zygotes()


# Programs that know nothing of nbtools


@pytest.mark.parametrize("program", ["nbconvert", "papermill"])
def test_other_programs_get_warm_kernels_by_a_variable(tmp_path: Path, program: str) -> None:
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    (tmp_path / "in.ipynb").write_text(json.dumps(notebook(PARENT, params=None, metadata=metadata)))
    words = {
        "nbconvert": ["nbconvert", "--to", "notebook", "--execute", "in.ipynb", "--output", "out.ipynb"],
        "papermill": ["papermill", "in.ipynb", "out.ipynb"],
    }[program]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=tmp_path,
        env=environment(WARM),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    assert "zygote.py" in "".join(cell["outputs"][0]["text"])


class Server:
    """JupyterLab's server as ``nbtools lab`` starts it, without a browser."""

    def __init__(self, project: Path) -> None:
        command = nbtools.api.lab(project=project)
        self.token = uuid.uuid4().hex
        more = [
            "--no-browser",
            "--allow-root",
            "--ServerApp.port=0",
            f"--IdentityProvider.token={self.token}",
        ]
        runtime = project / "runtime"
        self.process = subprocess.Popen(
            [*command.words, *more],
            cwd=command.folder,
            env=environment({**command.environment, "JUPYTER_RUNTIME_DIR": str(runtime)}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: list(runtime.glob("jpserver-*.json")))
        wait_until(lambda: self._info(runtime))
        self.url = self._info(runtime)["url"]
        wait_until(self._answers)

    def _info(self, runtime: Path) -> Any:
        try:
            return json.loads(next(runtime.glob("jpserver-*.json")).read_text())
        except ValueError:
            return None

    def _answers(self) -> bool:
        try:
            self.ask("GET", "api/status")
        except OSError:
            return False
        return True

    def ask(self, method: str, path: str) -> Any:
        """Return the answer of the server's API."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def printed(self, code: str) -> str:
        """Return what a cell prints in a kernel of its own."""
        kernel = self.ask("POST", "api/kernels")["id"]
        address = self.url.replace("http", "ws", 1) + f"api/kernels/{kernel}/channels?token={self.token}"
        channel = websocket.create_connection(address, timeout=60)
        header = {
            "msg_id": "ask",
            "msg_type": "execute_request",
            "username": "",
            "session": "s",
            "version": "5.3",
        }
        message = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell"}
        channel.send(
            json.dumps({**message, "content": {"code": code, "silent": False, "store_history": False}})
        )
        for _ in itertools.count():
            heard = json.loads(channel.recv())
            if heard["msg_type"] in ("stream", "error"):
                break
        channel.close()
        self.ask("DELETE", f"api/kernels/{kernel}")
        return str(heard["content"].get("text") or heard["content"])


def test_jupyterlab_forks_its_kernels_with_what_the_project_imports(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "import pandas")
    server = Server(tmp_path)
    try:
        assert "zygote.py" in server.printed(PARENT)
        wait_until(lambda: "True" in server.printed("import sys\nprint('pandas' in sys.modules)"))
    finally:
        server.process.terminate()
        server.process.wait(30)
    project.write("pipelines.yaml", project.text("pipelines.yaml") + "kernels: {warm: false}\n")
    assert "JUPYTER_DEFAULT_PROVISIONER_NAME" not in nbtools.api.lab(project=tmp_path).environment
