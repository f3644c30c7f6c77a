"""One attempt at a stage: private folder, kernel, checks, and the commit that makes its result visible."""

from __future__ import annotations

import json
import posixpath
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nbtools.errors import DataError, NbtoolsError, OperationError
from nbtools.execution.events import (
    Artifact,
    CellFinished,
    CellStarted,
    Event,
    Failure,
    StageStarted,
)
from nbtools.execution.files import operation_error, unfit, write_atomically
from nbtools.execution.kept import KeptKernel, connection_file, end_of, keep, start_of
from nbtools.execution.kernel_watch import KernelWatch
from nbtools.execution.kernels.processes import RunningKernel
from nbtools.execution.kernels.session import Keeping
from nbtools.execution.notebook import Executed, Job, execute, plain
from nbtools.execution.outcome import Around, Failed, Success, gate_failure
from nbtools.execution.placing import executed_notebook, file_name, forget_failure, place, replace_printed
from nbtools.execution.stage_tracking import StageTracking
from nbtools.execution.surroundings import environment, lineage, seeds, variables
from nbtools.execution.warm_start import WarmStart
from nbtools.pipeline.dag import Output
from nbtools.pipeline.fingerprint import to_record
from nbtools.pipeline.plan import Completion, Step, verdicts

#: How MLflow's client begins to say that a server does not answer.
_NO_SERVER = "MlflowException: API request to"


def attempt(
    step: Step,
    number: int,
    upstream: Sequence[Completion],
    around: Around,
    emit: Callable[[Event], None],
) -> Success:
    """Run a stage's notebook once and commit what it made.

    Parameters
    ----------
    number
        Which attempt of this run it is, from 1.
    upstream
        Completions of all stages that this one depends on, transitively.
    emit
        Told of what happens meanwhile.

    Raises
    ------
    Failed
        If there is no result; the last good one stays where it is.
    """
    return Attempt(step, number, upstream, around, emit).run()


class Attempt:
    """One attempt; see ``attempt``."""

    def __init__(
        self,
        step: Step,
        number: int,
        upstream: Sequence[Completion],
        around: Around,
        emit: Callable[[Event], None],
    ) -> None:
        assert step.ingredients is not None
        self.step = step
        self.stage = step.variant.stage
        self.ingredients = step.ingredients
        self.number = number
        self.upstream = upstream
        self.around = around
        self.emit = emit
        self.workspace = around.workspace
        self.project = around.workspace.project
        self.folder = self.project.attempts / around.run / f"{file_name(step.key)}.{number}"
        self.started_at = time.time()
        self.tracking = StageTracking(step, number, around, emit)
        self.warm = WarmStart(step, around, self._cwd)
        self.stop = around.cancellation.part(step.key)
        self.kept = False
        self.cell = 0
        self.resumed = False
        self.earlier_metrics: Mapping[str, float] = {}
        self.inputs: tuple[Artifact, ...] = ()

    def run(self) -> Success:
        """Run the notebook and commit; see ``attempt``."""
        try:
            return self._run()
        except Failed as failed:
            raise Failed(self._keep_notebook(self._pruned(failed.failure))) from failed
        except OSError as error:
            raise Failed(_system_failure(operation_error(f"stage {self.step.key}", error))) from error
        except NbtoolsError as error:
            raise Failed(_system_failure(error)) from error
        finally:
            self.around.cancellation.end(self.step.key)
            if not self.kept:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self) -> Success:
        self.inputs = self._inputs()
        self._make_folder()
        self.tracking.begin()
        text = self.workspace.notebook_text(self.stage.notebook)
        self._announce()
        self.tracking.announce()
        executed = self._execute(text)
        if executed.failure:
            raise Failed(self._server_lost(executed.failure))
        self._check_outputs()
        return self._commit(executed, text, self._changed_inputs())

    # Before

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True)

    def _announce(self) -> None:
        facts = self.workspace.notebooks[self.stage.key]
        python = facts.language == "python"
        self.emit(
            StageStarted(
                run=self.around.run,
                at=self.started_at,
                stage=self.step.key,
                notebook=self.stage.notebook,
                notebook_digest=self.workspace.digests[self.stage.notebook],
                cells=len(facts.digests),
                fingerprint=self.step.fingerprint,
                attempt=self.number,
                params=self.ingredients.params,
                inputs=self.inputs,
                python=self.ingredients.python,
                interpreter=self.workspace.interpreter(self.stage).path if python else "",
                seeds=seeds(self.step.variant, self.workspace),
            )
        )

    def _inputs(self) -> tuple[Artifact, ...]:
        found = []
        for item in self.step.variant.inputs:
            for path in item.paths:
                measured = self.workspace.measure(path)
                if measured is not None:
                    found.append(Artifact(item.dataset, path, measured.digest, measured.size_bytes))
        return tuple(found)

    # The notebook

    def _job(self, text: str) -> Job:
        facts = self.workspace.notebooks[self.stage.key]
        # A kernel that is driven directly asks for the rest when a cell comes to need it.
        asks = self.warm.is_possible and self.warm.is_direct
        later = asks and not self.tracking.is_named
        tracking = self.tracking.address() if later else self.tracking.variables()
        variant = self.step.variant
        context = {
            "NBTOOLS_CONTEXT": str(self._write_context(tracking)),
            "NBTOOLS_PROJECT": str(self.project.root),
        }
        complete = environment(variant, self.workspace, {**tracking, **context})
        return Job(
            text=text,
            source=self.stage.notebook,
            injected=variables(variant, self.workspace, self._staged),
            final=variables(variant, self.workspace, lambda output: self.project.root / output.path),
            python=self.workspace.interpreter(self.stage).path if facts.language == "python" else "",
            kernel=facts.kernel,
            language=facts.language,
            cwd=self._cwd(),
            environment=complete,
            save_to=self.folder / "notebook.ipynb",
            log=self.folder / "kernel.log",
            printed=self.folder / "printed",
            printed_as=f"{file_name(self.step.key)}.printed",
            masking=self.around.masking,
            timeout_s=self.stage.timeout_s,
            cell_timeout_s=self.stage.cell_timeout_s,
            fork=self.warm.direct(complete),
            start=self.warm.over_protocol(),
            branch=self.warm.branch(text, complete),
            late=self._late,
            keep=self._keeping(),
        )

    def _late(self) -> Mapping[str, str]:
        """Return what the kernel comes to need, and let the notebook know of its MLflow run."""
        tracking = self.tracking.variables()
        self._write_context(tracking)
        return tracking

    def _execute(self, text: str) -> Executed:
        watches: dict[RunningKernel, KernelWatch] = {}
        exceeded_bytes = [0]

        def on_kernel(kernel: RunningKernel) -> None:
            self.stop.watch(kernel)
            watches[kernel] = KernelWatch(kernel, self.stage.resources.memory_bytes, self._unresponsive)

        def off_kernel(kernel: RunningKernel) -> None:
            watches[kernel].end()
            exceeded_bytes.append(watches.pop(kernel).exceeded_bytes)
            self.stop.forget(kernel)

        job = self._job(text)
        try:
            executed = execute(job, self.stop.flag, on_kernel, off_kernel, self._on_cell)
        finally:
            for kernel in tuple(watches):
                off_kernel(kernel)
        exceeded = max(exceeded_bytes)
        if exceeded and executed.failure:
            return self._out_of_memory(executed, exceeded)
        return self.warm.blamed(executed)

    def _keeping(self) -> Keeping | None:
        if self.around.keeping is None:
            return None
        end_of(self.project, self.step.key)
        return Keeping(connection_file, self._keep)

    def _keep(self, pid: int, path: Path, before: int) -> None:
        """Note that the kernel of a failed cell outlives the run."""
        assert self.around.nursery is not None
        assert self.around.keeping is not None
        python, seconds = self.workspace.interpreter(self.stage).path, self.around.keeping.seconds
        for process in filter(None, (pid, before)):
            self.around.nursery.keep(python, process, seconds)
        self.kept = True
        now = time.time()
        facts = self.workspace.notebooks[self.stage.key]
        kernel = KeptKernel(
            stage=self.step.key,
            run=self.around.run,
            pid=pid,
            started_at=start_of(pid),
            connection_file=str(path),
            before_pid=before,
            before_started_at=start_of(before) if before else 0.0,
            folder=self.project.relative(self.folder),
            notebook=self.stage.notebook,
            cell=self.cell,
            cells_before=facts.digests[: max(0, self.cell - 1)],
            ingredients=to_record(self.ingredients),
            since=now,
            until=now + self.around.keeping.seconds,
            tracking_run=self.tracking.run_id,
            metrics=self.tracking.metrics() or {},
            overrides={
                name: value for layer in self.workspace.overrides for name, value in layer.values.items()
            },
        )
        with self.around.making:  # several stages may fail at once
            keep(self.project, kernel, self.around.keeping.most)
        self.around.note(f"{self.step.key}: its kernel is kept; look into it: nbtools debug {self.step.key}")

    def _unresponsive(self, pid: int) -> None:
        budget = (
            "its budget ends it" if self.stage.timeout_s or self.stage.cell_timeout_s else "it has no timeout"
        )
        self.around.note(
            f"{self.step.key}: its kernel is unresponsive: process {pid} is stopped; "
            f"kill -CONT {pid} wakes it, {budget}"
        )

    def _out_of_memory(self, executed: Executed, held_bytes: int) -> Executed:
        assert executed.failure is not None
        held, booked = held_bytes / 2**20, self.stage.resources.memory_bytes / 2**20
        message = (
            f"the kernel was stopped: it held {held:,.0f} MiB, and the stage has booked {booked:,.0f} MiB"
        )
        fix = "raise resources.memory of the stage, or have the notebook hold less at a time"
        return replace(executed, failure=replace(executed.failure, kind="memory", message=message, fix=fix))

    def _on_cell(self, number: int, seconds: float | None) -> None:
        if not number:
            return
        self.cell = number
        key, run = self.step.key, self.around.run
        if seconds is None:
            self.emit(CellStarted(run, time.time(), key, number))
        else:
            self.emit(CellFinished(run, time.time(), key, number, seconds))

    def _cwd(self) -> Path:
        folder = self.project.root / self.stage.cwd
        if not folder.is_dir():
            fix = "create the folder, or change cwd"
            raise OperationError.of(f"the working directory {self.stage.cwd!r} does not exist", fix=fix)
        return folder

    def _staged(self, output: Output) -> Path:
        folder = self.folder / output.variable
        folder.mkdir(parents=True, exist_ok=True)
        return folder / posixpath.basename(output.path)

    def _write_context(self, tracking: Mapping[str, str]) -> Path:
        path = self.folder / "context.json"
        write_atomically(path, json.dumps(self._context(tracking)).encode(), durable=False)
        return path

    def _context(self, tracking: Mapping[str, str]) -> dict[str, Any]:
        """Return what a notebook may ask about its own run; ``nbtools.package`` writes it down."""
        ingredients = to_record(self.ingredients)
        return {
            "schema": "nbtools/context/1",
            "project": self.workspace.spec.project,
            "run": self.around.run,
            "stage": self.step.key,
            "attempt": self.number,
            "fingerprint": self.step.fingerprint,
            "notebook": self.stage.notebook,
            "notebook_digest": self.workspace.digests[self.stage.notebook],
            "params": ingredients["params"],
            "inputs": [asdict(item) for item in self.inputs],
            "python": self.ingredients.python,
            "packages": ingredients["packages"],
            "modules": ingredients["modules"],
            "revision": asdict(self.around.revision),
            "tracking_run": tracking.get("MLFLOW_RUN_ID", ""),
            "resumed": self.resumed,
            "upstream": lineage(self.upstream),
        }

    # After

    def _check_outputs(self) -> None:
        for output in self.step.variant.outputs:
            staged = self._staged(output)
            if not staged.exists():
                message = f"the notebook ran to its end but did not write the dataset {output.dataset!r}"
                fix = f"write it to the path in the variable {output.variable!r}, not to a path written in the code"
                raise Failed(Failure("output missing", message, fix=fix))
            if what := unfit(staged):
                message = f"the dataset {output.dataset!r} is, or holds, {what}"
                fix = "write the data themselves; links may only lead, by relative paths, to what is in the same folder"
                raise Failed(Failure("output", message, fix=fix))
            schema = self.workspace.spec.datasets[output.dataset].schema
            if schema is not None and (found := self.around.contracts.violations(staged, schema)):
                raise Failed(_contract_failure(output.dataset, output.path, str(schema), found))

    def _changed_inputs(self) -> tuple[str, ...]:
        """Return the inputs that are no longer what the fingerprint names: work is kept, but not taken for theirs."""
        changed: list[str] = []
        for item in self.step.variant.inputs:
            wanted = self.ingredients.inputs[item.variable]
            digests = wanted if isinstance(wanted, list) else [wanted]
            for path, digest in zip(item.paths, digests, strict=True):
                self.workspace.forget(path)
                if self.workspace.digest_of(path) != digest:
                    changed.append(item.dataset)
                    self.around.note(
                        f"{self.step.key}: the input {item.dataset!r} ({path}) changed while it ran; "
                        "its result is kept, and the next run makes it anew"
                    )
        return tuple(dict.fromkeys(changed))

    def _metrics(self) -> tuple[Mapping[str, float], Mapping[str, float] | None]:
        """Return what the notebook logged, and what the result in use had logged."""
        found = self.tracking.metrics()
        metrics = {**self.earlier_metrics, **(found or {})}
        if found is None and self.tracking.may_spool:
            raise Failed(Failure("tracking lost", "MLflow's server went before it could say what was logged"))
        if not self.stage.gates:
            return metrics, None
        if found is None:
            message = (
                "what the notebook logged cannot be read back from MLflow, so its gates cannot be judged"
            )
            raise Failed(Failure("system", message, fix="run again once MLflow's store answers"))
        champion = self.workspace.database.in_use(self.step.key)
        return metrics, champion.metrics if champion else None

    def _commit(self, executed: Executed, text: str, changed_inputs: Sequence[str]) -> Success:
        """Put everything into the store, then write the record, then show it in the workspace."""
        metrics, champion = self._metrics()
        store = self.workspace.store
        outputs: dict[str, str] = {}
        artifacts: list[Artifact] = []
        for output in self.step.variant.outputs:
            measured = store.add(self._staged(output))
            outputs[output.variable] = measured.digest
            artifacts.append(Artifact(output.dataset, output.path, measured.digest, measured.size_bytes))
        finished_at = time.time()
        completion = Completion(
            stage=self.step.key,
            fingerprint=self.step.fingerprint,
            ingredients=self.ingredients,
            outputs=outputs,
            sizes={
                output.variable: item.size_bytes
                for output, item in zip(self.step.variant.outputs, artifacts, strict=True)
            },
            executed=store.add_bytes(executed.text.encode("utf-8", "backslashreplace")),
            source=store.add_bytes(text.encode("utf-8", "surrogatepass")),
            run=self.around.run,
            tracking_run=self.tracking.run_id,
            finished_at=finished_at,
            duration_s=finished_at - self.started_at,
            metrics=metrics,
            champion=champion,
            changed_inputs=changed_inputs,
            resumed=self.resumed,
            streams={path.name: store.add(path).digest for path in self._printed()},
            extra={"notebook": self.stage.notebook, "inputs": [asdict(item) for item in self.inputs]},
        )
        judged = verdicts(replace(self.step, completion=completion))
        refused = [verdict for verdict in judged if not verdict.holds]
        attempt = f"{self.around.run}/{self.step.key}/{self.number}"
        self.workspace.database.commit(completion, attempt, in_use=not refused)
        if refused:
            raise Failed(gate_failure(self.stage, judged))
        return Success(completion, tuple(artifacts), self._show(executed), tuple(map(str, judged)))

    def _show(self, executed: Executed) -> str:
        for output in self.step.variant.outputs:
            place(self._staged(output), output.path, self.workspace, self.around.run, self.around.note)
        path = executed_notebook(self.step, self.workspace)
        write_atomically(path, executed.text.encode("utf-8", "backslashreplace"), durable=False)
        replace_printed(self._printed(), path)
        forget_failure(self.step, self.workspace)
        return self.project.relative(path)

    def _server_lost(self, failure: Failure) -> Failure:
        """Tell a notebook that failed because its server went away from one that failed by itself."""
        lost = failure.kind == "error" and _NO_SERVER in failure.message and self.tracking.may_spool
        return replace(failure, kind="tracking lost") if lost else failure

    def _pruned(self, failure: Failure) -> Failure:
        """Tell a variant that was stopped because others do better from one that ended with its run."""
        if failure.kind != "cancelled" or not self.stop.is_alone:
            return failure
        return replace(failure, kind="pruned", message=self.stop.why)

    def _printed(self) -> list[Path]:
        return sorted((self.folder / "printed").glob("*.gz"))

    def _keep_notebook(self, failure: Failure) -> Failure:
        """Keep the partially executed notebook; that of the last success stays where it is."""
        partial = self.folder / "notebook.ipynb"
        if not partial.exists():
            return failure
        path = self.project.failed / f"{file_name(self.step.key)}.ipynb"
        try:
            write_atomically(path, partial.read_bytes(), durable=False)
            replace_printed(self._printed(), path)
        except OSError:
            return failure  # a full disk: the failure itself matters more
        return replace(failure, notebook=self.project.relative(path))


def _contract_failure(dataset: str, path: str, schema: str, found: str) -> Failure:
    message = f"the dataset {dataset!r} ({path}) breaks its schema {schema}"
    return Failure("contract", message, traceback=plain(found), fix="mend the data or the schema")


def _system_failure(error: NbtoolsError) -> Failure:
    problem = error.problems[0]
    where = f"{problem.where}: " if problem.where else ""
    kind = "contract" if isinstance(error, DataError) else "system"
    return Failure(kind, f"{where}{problem.message}", fix=problem.fix)
