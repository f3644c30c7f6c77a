"""Which results are worth their bytes: a pure choice, made before anything is removed.

Rules of this file: no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nbtools.pipeline.plan import Completion


def worth_keeping(
    results: Mapping[int, Completion], in_use: Collection[int], last_used: Mapping[str, float], since: float
) -> set[int]:
    """Return the numbers of the results whose bytes are kept.

    Parameters
    ----------
    results
        Every result by its number; numbers grow with time.
    in_use
        Numbers of the stages' present results; they are always kept.
    last_used
        When a run last made or reused the result of a fingerprint, in seconds since the epoch.
    since
        What was made or reused before this moment, and is not in use, is not kept.
    """
    newest = {result.fingerprint: number for number, result in results.items()}
    kept = set(in_use) & set(results)
    for number, result in results.items():
        # Of results with one fingerprint only the newest is ever restored.
        if newest[result.fingerprint] != number:
            continue
        if max(result.finished_at, last_used.get(result.fingerprint, 0.0)) >= since:
            kept.add(number)
    return kept


def objects_of(results: Sequence[Completion]) -> set[str]:
    """Return the digests that results name: outputs, and notebooks before and after."""
    found = {digest for result in results for digest in (result.executed, result.source)}
    found.update(digest for result in results for digest in result.outputs.values())
    found.update(digest for result in results for digest in result.streams.values())
    return found - {""}
