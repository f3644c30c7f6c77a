"""Execute one notebook with papermill, and say what happened in words."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import NoSuchKernel
from papermill.exceptions import PapermillExecutionError
from papermill.translators import translate_parameters

from nbtools.execution.events import Failure
from nbtools.execution.kernels import engine as _engine  # noqa: F401 - registers the engine
from nbtools.execution.kernels.output import Spill
from nbtools.execution.kernels.session import Keeping, Session, Verdict
from nbtools.execution.masking import Masking
from nbtools.pipeline.notebook import INJECTED, code_cells

# Whether a param is unknown is known long before; papermill's warning would reach the terminal.
logging.getLogger("papermill").addHandler(logging.NullHandler())

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]")
_TRACEBACK_LINE = re.compile(r"Cell In\[(\d+)\], line (\d+)")
_CONTEXT_LINES = 3
#: What to do about errors whose own words do not say it.
_KNOWN = {
    "StdinNotImplementedError": "a stage runs unattended and cannot ask: make what it asks for a param",
    "active experiment ID does not match": "leave out mlflow.set_experiment(…): a stage logs into the experiment that "
    "tracking.experiment in pipelines.yaml names",
    "MlflowException: Run with id=": "leave out mlflow.set_tracking_uri(…): a stage logs into the store that "
    "tracking in pipelines.yaml, or MLFLOW_TRACKING_URI, names",
}
_LOG_TAIL = 2_000
_START_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Job:
    """A notebook and all that its execution needs.

    Parameters
    ----------
    text
        The notebook as it stands in the project.
    source
        Its path in the project.
    injected
        Values of the injected cell, by variable.
    final
        The same with the paths where outputs end up: what the executed notebook shows afterwards.
    printed, printed_as
        Folder for what cells print beyond what their notebook keeps, and what readers know it by.
    timeout_s, cell_timeout_s
        Budgets of the notebook and of each cell in seconds; None means no limit.
    fork
        Returns a forked kernel, or raises ``Cold``; None where only an ordinary kernel will do.
    start
        Starts the process of a forked kernel that is driven over Jupyter's protocol; None if there is to be none.
    branch
        Given the session and papermill's record, returns a client whose first cells have been run already.
    late
        Returns variables of the environment that a forked kernel asks for when it needs them.
    keep
        How the kernel of a failed cell is kept; None ends it.
    """

    text: str
    source: str
    injected: Mapping[str, Any]
    final: Mapping[str, Any]
    python: str
    kernel: str
    language: str
    cwd: Path
    environment: Mapping[str, str]
    save_to: Path
    log: Path
    printed: Path
    printed_as: str
    masking: Masking
    timeout_s: float | None = None
    cell_timeout_s: float | None = None
    fork: Callable[[], Any] | None = None
    start: Callable[..., Any] | None = None
    branch: Callable[[Session, Any], Any] | None = None
    late: Callable[[], Mapping[str, str]] = dict
    keep: Keeping | None = None


@dataclass(frozen=True, slots=True)
class Executed:
    """The executed notebook's text, and why it failed if it did."""

    text: str
    failure: Failure | None = None


def execute(
    job: Job,
    cancelled: threading.Event,
    on_kernel: Callable[[Any], None],
    off_kernel: Callable[[Any], None],
    on_cell: Callable[[int, float | None], None],
) -> Executed:
    """Run a notebook from the first cell to the last.

    Parameters
    ----------
    on_kernel, off_kernel
        Called with a kernel as soon as it runs, and when it is driven no longer.
    on_cell
        Called with a cell's number in the source notebook (0 for the injected one), and None when it
        starts or its seconds when it is done.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "wb") as log:
        session = Session(
            python=job.python if job.language == "python" else "",
            source=job.source,
            cwd=str(job.cwd),
            environment=job.environment,
            save_to=job.save_to,
            masking=job.masking,
            deadline=None if job.timeout_s is None else time.monotonic() + job.timeout_s,
            timeout_s=job.timeout_s,
            cell_timeout_s=job.cell_timeout_s,
            cancelled=cancelled,
            log=log,
            fork=job.fork,
            start=job.start,
            late=job.late,
            spill=lambda number: _spill(job, f"cell-{number}.txt.gz"),
            keep=job.keep,
            on_kernel=on_kernel,
            off_kernel=off_kernel,
            on_cell=on_cell,
            on_complete=lambda notebook: _put_final_values(notebook, job),
        )
        if (branch := job.branch) is not None:
            session.branch = lambda progress: branch(session, progress)
        failure = _run(job, session)
    return Executed(session.text, failure)


def _spill(job: Job, name: str) -> Spill:
    return Spill(job.printed / name, f"{job.printed_as}/{name}", job.masking)


def _run(job: Job, session: Session) -> Failure | None:
    source = job.save_to.with_name("source.ipynb")
    source.write_bytes(job.text.encode())
    try:
        papermill.execute_notebook(
            # A path, because papermill would make a text of a notebook to read it again; with braces it is a template.
            str(source).replace("{", "{{").replace("}", "}}"),
            None,
            parameters=dict(job.injected),
            engine_name="nbtools",
            kernel_name=job.kernel or "python3",
            language=job.language,
            progress_bar=False,
            start_timeout=_START_TIMEOUT_S,
            session=session,
        )
    except PapermillExecutionError:
        pass  # papermill judges by the outputs; what counts is what the engine saw
    except NoSuchKernel as error:
        return Failure("system", f"there is no kernel {error.name!r} on this machine")
    except RuntimeError as error:
        if not session.cancelled.is_set():
            detail = _tail(job.log, job.masking)
            return Failure("system", f"the kernel did not start: {error}", traceback=detail)
        session.verdict.kind, session.verdict.message = "cancelled", "the run was cancelled"
    if session.verdict.complete and not session.verdict.kind:
        return None
    return _failure(job, session.verdict)


def _failure(job: Job, verdict: Verdict) -> Failure:
    mask = job.masking.text
    traceback = mask(plain("\n".join(verdict.traceback)))
    line = _failing_line(traceback, verdict.execution_count)
    source = next((cell.source for cell in code_cells(job.text) if cell.number == verdict.cell), "")
    if verdict.kind == "kernel died" and (said := _tail(job.log, job.masking)):
        traceback = f"the kernel's last words:\n{said}"
    fix = next((fix for words, fix in _KNOWN.items() if words in verdict.message), "")
    return Failure(
        fix=fix,
        kind=verdict.kind or "system",
        message=mask(plain(verdict.message or "the notebook did not run to its end")),
        cell=verdict.cell,
        line=line,
        excerpt=mask(excerpt(source, line)),
        traceback=traceback,
    )


def plain(text: str) -> str:
    """Return ``text`` without ANSI codes and control characters other than line ends and tabs."""
    text = _ANSI.sub("", text)
    return "".join(
        char for char in text if char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160)
    )


def excerpt(source: str, line: int) -> str:
    """Return the lines of ``source`` around ``line``, numbered, with a mark at ``line``; the first if it is 0."""
    lines = source.splitlines()
    first = max(1, line - _CONTEXT_LINES)
    last = min(len(lines), max(line, 1) + _CONTEXT_LINES)
    width = len(str(last))
    return "\n".join(
        f"{'→' if number == line else ' '} {number:>{width}} │ {lines[number - 1]}".rstrip()
        for number in range(first, last + 1)
    )


def _failing_line(traceback: str, execution_count: int | None) -> int:
    found = [int(line) for count, line in _TRACEBACK_LINE.findall(traceback) if count == str(execution_count)]
    return found[0] if found else 0


def _tail(path: Path, masking: Masking) -> str:
    try:
        whole = path.read_bytes()
    except OSError:
        return ""
    # The character that was cut is left out: what follows may be the end of a secret.
    text = plain(whole[-_LOG_TAIL:].decode("utf-8", "replace").lstrip("\ufffd"))
    return masking.text(text, begins_cut=len(whole) > _LOG_TAIL).strip()


def _put_final_values(notebook: Any, job: Job) -> None:
    """Have the executed notebook look as if its outputs had been written to where they will be.

    Whoever opens it can run it again: the private paths of the run are gone by then.
    """
    for cell in notebook.cells:
        if INJECTED in cell.metadata.get("tags", ()):
            cell.source = translate_parameters(
                job.kernel or "python3", job.language, dict(job.final), "Parameters"
            )
    notebook.metadata.papermill["parameters"] = job.masking.value(dict(job.final))
