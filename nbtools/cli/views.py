"""What commands print: values to text and to JSON-ready records."""

from __future__ import annotations

import csv
import dataclasses
import io
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbtools.api import Explanation, HistoryRow, ProjectStatus, RunState
from nbtools.cli import text
from nbtools.execution.events import Artifact
from nbtools.pipeline.plan import Plan

if TYPE_CHECKING:
    from nbtools.execution.upkeep import Freed, StoreReport

#: How many metrics of a stage a table shows.
_FEW = 3
_HISTORY = ("status", "run", "commit", "branch", "message", "duration", "completed")


def plan_text(plan: Plan, width: int | None) -> str:
    """Return a plan as a table: what would happen to each stage, and why."""
    rows = [[step.action.value, step.key, step.reason] for step in plan.steps]
    return f"{text.table(['action', 'stage', 'why'], rows, width=width)}\n{_plan_end(plan)}"


def _plan_end(plan: Plan) -> str:
    actions = [step.action.value for step in plan.steps]
    refused = next((step.key for step in plan.steps if step.action.value == "gate failed"), "")
    if refused:
        return f"{actions.count('run')} of {len(actions)} stages would run; the result of {refused} is refused by its gate"
    if "run" in actions:
        return f"{actions.count('run')} of {len(actions)} stages would run"
    if "restore" in actions:
        return "no stage would run; some results would be restored"
    return _nothing_to_do(actions)


def _nothing_to_do(actions: Sequence[str]) -> str:
    others = {action: actions.count(action) for action in dict.fromkeys(actions) if action != "up to date"}
    if not others:
        return f"all {len(actions)} stages are up to date"
    told = [f"{count} {action}" for action, count in others.items()]
    return ", ".join([f"{actions.count('up to date')} of {len(actions)} stages are up to date", *told])


def plan_record(plan: Plan) -> list[dict[str, Any]]:
    """Return a plan for machines."""
    return [
        {
            "stage": step.key,
            "action": step.action.value,
            "reasons": list(step.reasons),
            "notebook": step.variant.stage.notebook,
            "fingerprint": step.fingerprint,
        }
        for step in plan.steps
    ]


def status_text(status: ProjectStatus, width: int | None) -> str:
    """Return where a project stands, as a table."""
    now = time.time()
    rows = [
        [
            stage.action,
            stage.stage,
            text.age(stage.finished_at, now) if stage.finished_at else "never",
            text.duration(stage.duration_s) if stage.duration_s is not None else "",
            stage.failure or ("" if stage.action == "up to date" else stage.reason),
        ]
        for stage in status.stages
    ]
    lines = [text.table(["state", "stage", "made", "took", "why"], rows, width=width)]
    lines += [f"data: {problem.message}" for problem in status.missing]
    lines += [
        f"kept: {kernel.stage}, failed in cell {kernel.cell} at {text.moment(kernel.since)}, "
        f"{text.size(kernel.size_bytes)} until {text.moment(kernel.until)}: nbtools debug {kernel.stage}"
        for kernel in status.kept
    ]
    if status.running:
        lines.append(f"run {status.running} is under way: nbtools show {status.running}")
    return "\n".join(lines)


def overview_text(status: ProjectStatus) -> str:
    """Return what ``nbtools`` alone prints: what the project holds, and the next sensible command."""
    counts: dict[str, int] = {}
    for stage in status.stages:
        counts[stage.action] = counts.get(stage.action, 0) + 1
    held = ", ".join(f"{count} {action}" for action, count in counts.items())
    pipelines = list(dict.fromkeys(stage.stage.split(".", 1)[0] for stage in status.stages))
    failed = next((stage for stage in status.stages if stage.action in ("failed", "gate failed")), None)
    if status.running:
        command, purpose = f"nbtools show {status.running}", "see the run that is under way"
    elif failed:
        command, purpose = f"nbtools why {failed.stage}", "see what failed; nbtools run goes on from there"
    elif set(counts) - {"up to date", "skipped"}:
        command, purpose = "nbtools run", "bring everything up to date"
    else:
        command, purpose = "nbtools history", "see what has been run"
    return (
        f"{status.project}: pipelines {', '.join(pipelines)}; stages: {held}\n\n"
        f"next:  {command:<24} {purpose}\nor:    {'nbtools --help':<24} all commands"
    )


def why_text(explanations: Iterable[Explanation]) -> str:
    """Return the detailed reasons for some variants."""
    return "\n\n".join(_why(item) for item in explanations)


def _why(item: Explanation) -> str:
    lines = [f"{item.stage}: {item.action}"]
    lines += [f"  because {reason}" for reason in item.reasons]
    if item.compared_with:
        lines.append(f"  compared with run {item.compared_with} ({text.moment(item.compared_at)})")
    for change in item.differences:
        if str(change) not in item.reasons:
            lines.append(f"  and {change}")
        if change.kind in ("input", "module") and change.old and change.new:
            lines.append(f"      {change.name}: {change.old[:12]} → {change.new[:12]}")
    for cell in item.cells:
        lines.append(f"\n  code cell {cell.number} {cell.kind}:")
        lines += [f"    {text.plain(line)}" for line in cell.diff.splitlines()[2:]]
    return "\n".join(lines)


def history_text(rows: list[HistoryRow], width: int | None) -> str:
    """Return past runs as a table, newest first."""
    if not rows:
        return "no runs"
    return text.table(list(_HISTORY), [_history_cells(row) for row in rows], width=width)


def history_csv(rows: Iterable[HistoryRow]) -> str:
    """Return past runs as CSV, with times in UTC."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_HISTORY, "started", "dirty", "targets", "user"])
    for row in rows:
        record = history_record(row)
        writer.writerow([record[name] for name in (*_HISTORY, "started", "dirty", "targets", "user")])
    return stream.getvalue()


def history_record(row: HistoryRow) -> dict[str, Any]:
    """Return one run for machines; times in ISO 8601, UTC."""
    return {
        "status": row.status,
        "run": row.run,
        "commit": row.commit,
        "branch": row.branch,
        "message": row.message,
        "duration": None if row.duration_s is None else round(row.duration_s, 3),
        "completed": _iso(row.completed_at),
        "started": _iso(row.started_at),
        "dirty": row.dirty,
        "targets": " ".join(row.targets),
        "user": row.user,
    }


def _history_cells(row: HistoryRow) -> list[str]:
    return [
        row.status,
        row.run,
        (row.commit[:8] + ("*" if row.dirty else "")) or "-",
        row.branch or "-",
        row.message,
        text.duration(row.duration_s) if row.duration_s is not None else "",
        text.moment(row.completed_at) if row.completed_at is not None else "",
    ]


def run_text(run: RunState, width: int | None, *, color: bool) -> str:
    """Return one run: its stages with durations, metrics and what failed."""
    revision = run.revision
    commit = (
        f"{revision.commit[:8]}{' with uncommitted changes' if revision.dirty else ''}"
        if revision.commit
        else ""
    )
    facts = [
        ("run", run.run),
        ("status", run.status),
        ("started", text.moment(run.started_at)),
        ("took", text.duration(run.duration_s) if run.finished_at else ""),
        ("targets", " ".join(run.targets) or "everything"),
        ("params", ", ".join(f"{name}={value}" for name, value in run.overrides.items())),
        ("commit", " ".join(filter(None, [commit, revision.branch, revision.message]))),
        ("user", revision.user),
    ]
    lines = [f"{name:<9}{value}" for name, value in facts if value]
    rows = [
        [
            "resumed" if stage.resumed else stage.status,
            stage.stage,
            text.duration(stage.duration_s) if stage.duration_s else "",
            _few(stage.metrics),
            f"cell {stage.failure.cell}" if stage.failure and stage.failure.cell else stage.reason,
        ]
        for stage in run.stages.values()
    ]
    lines += ["", text.table(["state", "stage", "took", "metrics", "why"], rows, width=width)]
    lines += _all_metrics(run)
    gates = [f"  ✓ {stage.stage}: {gate}" for stage in run.stages.values() for gate in stage.gates]
    lines += ["", "gates", *gates] if gates else []
    for stage in run.stages.values():
        if stage.failure and stage.status != "cancelled":
            lines += ["", text.failure(stage.stage, stage.notebook, stage.failure, color=color)]
    return "\n".join(lines)


def _few(metrics: Mapping[str, float]) -> str:
    shown = [f"{name}={value:.4g}" for name, value in list(metrics.items())[:_FEW]]
    return ", ".join(shown) + (f" and {len(metrics) - _FEW} more" if len(metrics) > _FEW else "")


def _all_metrics(run: RunState) -> list[str]:
    """Return the metrics of the stages that have more than fit into a table."""
    lines: list[str] = []
    for stage in run.stages.values():
        if len(stage.metrics) > _FEW:
            shown = ", ".join(f"{text.plain(name)}={value:.4g}" for name, value in stage.metrics.items())
            wrapped = textwrap.wrap(shown, 100, initial_indent="  ", subsequent_indent="  ")
            lines += ["", f"metrics of {stage.stage}", *wrapped]
    return lines


def store_text(report: StoreReport) -> str:
    """Return what a check of the store found."""
    lines = []
    for finding in report.findings:
        what = "; ".join(finding.needed_by[:3]) + (" …" if len(finding.needed_by) > 3 else "")
        name = f"{finding.digest[:12]}  " if finding.digest else ""
        lines.append(f"{finding.state}  {name}{what or 'belongs to no result'}")
        if finding.mended:
            lines.append(f"  mended: {finding.mended} holds the same bytes")
        elif finding.rebuilt_by:
            lines.append(
                f"  {', '.join(finding.rebuilt_by[:3])} makes it again when it is wanted: nbtools run"
            )
        elif finding.needed_by:
            lines.append("  no stage of pipelines.yaml makes it any more")
    state = "all sound" if not report.findings else f"{len(report.findings)} not sound"
    mended = sum(1 for finding in report.findings if finding.mended)
    state += f", {mended} of them mended" if mended else ""
    lines.append(f"{report.objects:,} objects, {text.size(report.size_bytes)}: {state}")
    return "\n".join(lines)


def freed_text(freed: Freed, *, dry_run: bool) -> str:
    """Return what was freed."""
    verb = "would free" if dry_run else "freed"
    return (
        f"{verb} {text.size(freed.size_bytes)} in {freed.objects:,} objects of {freed.results:,} earlier results; "
        f"{text.size(freed.kept_bytes)} in {freed.kept_objects:,} objects are kept"
    )


def record(value: Any) -> Any:
    """Return dataclasses, and what they hold, as JSON-ready values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: record(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): record(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [record(item) for item in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    return str(value)


def artifact_text(artifact: Artifact) -> str:
    """Return a dataset's path, digest and size."""
    return f"{artifact.path} {artifact.digest[:12]} {text.size(artifact.size_bytes)}"


def _iso(moment: float | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
