"""Looking into the kernel of a failed cell, and going on from there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtools.api.delivering import recorder_of, tracker_of
from nbtools.api.lab import LabCommand
from nbtools.api.opening import Opened, address_of, find, open_for, planned
from nbtools.errors import UsageError
from nbtools.execution.lock import exclusive
from nbtools.execution.revision import revision
from nbtools.execution.state import RunState
from nbtools.pipeline import dag as dags
from nbtools.pipeline.fingerprint import from_record
from nbtools.pipeline.params import Overrides
from nbtools.pipeline.plan import Action, Plan, Step
from nbtools.pipeline.resuming import why_not_resumed

if TYPE_CHECKING:
    from nbtools.api.running import Listener
    from nbtools.execution.cancellation import Cancellation
    from nbtools.execution.kept import KeptKernel


def debug(stage: str, *, project: Path | str | None = None) -> LabCommand | None:
    """Return the command that opens a console on the kept kernel of ``stage``; None if none is kept.

    Raises
    ------
    NbtoolsError
        If there is no such stage, or several variants of it are meant.
    """
    with open_for(project) as opened:
        kernel = _kept_of(opened, stage)
        if kernel is None:
            return None
        words = (sys.executable, "-m", "jupyter_console", "--existing", kernel.to_look_into()[1])
        return LabCommand(words, {}, opened.project.root)


def _kept_of(opened: Opened, stage: str) -> KeptKernel | None:
    """Return the kept kernel of a stage; None if there is none.

    Raises
    ------
    UsageError
        If there is no such stage, or several variants of it are kept.
    """
    from nbtools.execution.kept import kept_kernels

    keys = dags.select(opened.dag, (stage,))
    found = [kernel for kernel in kept_kernels(opened.project) if kernel.stage in keys]
    if len(found) > 1:
        names = ", ".join(kernel.stage for kernel in found)
        raise UsageError.of(f"{stage!r} could mean {names}", fix="name one of them")
    return found[0] if found else None


def resume(
    stage: str,
    *,
    track: bool = True,
    project: Path | str | None = None,
    listeners: Sequence[Listener] = (),
    note: Callable[[str], None] = lambda _: None,
    cancellation: Cancellation | None = None,
) -> RunState:
    """Go on with ``stage`` at its failed cell, in the kernel that was kept, and return how that ended.

    The failed cell and those after it run as the notebook has them now. The result is committed and marked as
    resumed: other stages may use it, but ``nbtools.package`` asks why.

    Parameters
    ----------
    track, listeners, note, cancellation
        As of ``run``.

    Raises
    ------
    NbtoolsError
        If no kernel of the stage is kept, or something that its variables depend on has changed since.
    """
    from nbtools.execution.cancellation import Cancellation
    from nbtools.execution.contracts import Contracts
    from nbtools.execution.outcome import Around
    from nbtools.execution.resuming import resume as attempt
    from nbtools.execution.run import Options, Run, new_run_id, read_secrets, remove_attempts
    from nbtools.tracking.lazy import untracked

    home = find(project)
    run_id = new_run_id(time.time())
    owner = {"run": run_id, "command": f"nbtools resume {stage}"}
    with exclusive(home.state / "run.lock", owner, note):
        with open_for(home.root) as opened:
            kernel = _the_kept_of(opened, stage)
        with open_for(home.root, [Overrides(dict(kernel.overrides), "-p")], writable=True) as opened:
            made, keys, world = planned(opened, (kernel.stage,), force=True)
            step = _resumable(made, kernel, opened)
            stop = cancellation or Cancellation()
            stages = [opened.dag.variants[key].stage for key in keys]
            masking, state = read_secrets(opened.workspace, stages, os.environ), revision(home.root)
            recorder = recorder_of(opened, keys, [step.variant.stage], run_id, state, masking, note)
            tracker = tracker_of(opened, run_id, note, stop, recorder) if track else None
            around = Around(
                run=run_id,
                workspace=opened.workspace,
                tracking=tracker.tracking() if tracker else untracked(home.attempts / kernel.run),
                contracts=Contracts(home.root),
                cancellation=stop,
                masking=masking,
                revision=state,
                note=note,
            )
            server = address_of(opened).server if track else ""
            options = Options(
                1, forced=(step.key,), targets=(step.key,), tracked=track, server=server, retry=False
            )
            trackers = [tracker] if tracker else []
            everyone: list[Any] = [opened.database.append, recorder, *trackers, *listeners]
            outcome = Run(
                made, opened.dag, world, around, options, partial(attempt, kernel), everyone
            ).carry_out()
            opened.workspace.remember()
            if tracker:
                tracker.close(stop.asked_again())
            recorder.finish()
            remove_attempts(home)
            return outcome


def _the_kept_of(opened: Opened, stage: str) -> KeptKernel:
    kernel = _kept_of(opened, stage)
    if kernel is None:
        fix = f"nbtools run --debug {stage} keeps the kernel if a cell fails"
        raise UsageError.of(f"no kernel of {stage!r} is kept", fix=fix)
    return kernel


def _resumable(made: Plan, kernel: KeptKernel, opened: Opened) -> Step:
    """Return the step of a kept kernel's stage.

    Raises
    ------
    UsageError
        If it cannot go on where it failed.
    """
    step = made.step(kernel.stage)
    again = f"nbtools run {kernel.stage} runs all of it"
    waiting = [other.key for other in made.steps if other is not step and other.action is not Action.NOTHING]
    if waiting or step.ingredients is None:
        message = (
            f"{kernel.stage} cannot be resumed: {', '.join(waiting) or 'a stage before it'} is not up to date"
        )
        raise UsageError.of(message, fix=again)
    digests = opened.workspace.notebooks[step.variant.stage.key].digests
    if not kernel.cell:
        raise UsageError.of(f"{kernel.stage} cannot be resumed: no cell of its notebook failed", fix=again)
    if kernel.is_spoilt:
        message = f"{kernel.stage} cannot be resumed: the process with the state from before cell {kernel.first} has ended"
        raise UsageError.of(
            message, fix=f"nbtools run {kernel.stage} --debug runs all of it, and keeps its kernel again"
        )
    then = from_record(dict(kernel.ingredients))
    if changed := why_not_resumed(then, step.ingredients, kernel.cells_before, digests):
        message = f"{kernel.stage} cannot be resumed at cell {kernel.first}: {'; '.join(changed)}"
        raise UsageError.of(message, fix=again)
    return step
