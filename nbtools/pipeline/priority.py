"""Which of the steps that are ready goes first: the one with the longest chain of work behind it.

Rules of this file: no I/O. List scheduling by critical path: with more ready steps than jobs, a run ends
soonest if the longest remaining chain is never kept waiting (Graham, "Bounds on multiprocessing timing
anomalies", 1969).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nbtools.pipeline.plan import Action, Step


def by_longest_chain(steps: Sequence[Step], durations: Mapping[str, float]) -> list[Step]:
    """Return the steps, those with the longest remaining chain first; what a step needs stays before it.

    Parameters
    ----------
    steps
        In running order.
    durations
        Seconds that stages took the last time; one that is not known is taken for an average one.
    """
    known = [durations[step.key] for step in steps if step.key in durations]
    average = sum(known) / len(known) if known else 1.0
    behind: dict[str, float] = {}
    chains: dict[str, float] = {}
    for step in reversed(steps):
        own = max(0.0, durations.get(step.key, average)) if step.action is Action.RUN else 0.0
        chains[step.key] = own + behind.get(step.key, 0.0)
        for before in step.variant.upstream:
            behind[before] = max(behind.get(before, 0.0), chains[step.key])
    return sorted(steps, key=lambda step: -chains[step.key])
