"""Times nbtools against its alternatives in one interleaved run and prints ratios."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import cells, kernels, pipeline, plans, search, single, starts, sweep, tracking
from benchmarks.harness import Settings, described, machine, make_empty_store, progress, table
from benchmarks.peers import PROGRAMS, versions

_BENCHMARKS = {
    "pipeline": pipeline.benchmark,
    "kernels": kernels.benchmark,
    "cells": cells.benchmark,
    "single": single.benchmark,
    "sweep": sweep.benchmark,
    "tracking": tracking.benchmark,
    "search": search.benchmark,
    "plan": plans.benchmark,
    "start": starts.benchmark,
}
_LARGE = 10_000


def main() -> None:
    options = _options()
    found = machine()
    if options.peers:
        found["packages"] |= versions(PROGRAMS)
    print(described(found))
    with tempfile.TemporaryDirectory(prefix="nbtools-bench-") as folder:
        sizes = (*options.sizes, _LARGE) if options.large else tuple(options.sizes)
        settings = Settings(
            Path(folder).resolve(),
            options.repeat,
            sizes,
            tracked=not options.untracked,
            variants=options.variants,
            small=options.small,
            peers=PROGRAMS if options.peers else None,
        )
        progress("preparing")
        if not settings.small:
            make_empty_store(settings)
        results: dict[str, list[dict[str, Any]]] = {}
        for name in options.only or _BENCHMARKS:
            results[name] = []
            for result in _BENCHMARKS[name](settings):
                results[name].append(result)
                print(f"\n{table(result)}", flush=True)
    if options.json:
        record = {"machine": found, "tracked": settings.tracked, "benchmarks": results}
        options.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    names = list(_BENCHMARKS)
    parser.add_argument(
        "--only", action="append", choices=names, help="only this benchmark (may be repeated)"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds; default: 3 to 11, by what one takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE too")
    parser.add_argument("--large", action="store_true", help=f"plan {_LARGE:,} stages too")
    parser.add_argument("--untracked", action="store_true", help="leave MLflow out of nbtools' runs")
    parser.add_argument(
        "--peers",
        action=argparse.BooleanOptionalAction,
        default=PROGRAMS.exists(),
        help="time DVC, Snakemake and ploomber-engine too; default: if `make peers` has installed them",
    )
    parser.add_argument(
        "--variants", type=int, default=50, metavar="N", help="how many to sweep; default: 50"
    )
    parser.add_argument(
        "--small", action="store_true", help="everything once in its smallest size, to see that it works"
    )
    sizes = parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="N", help="numbers of stages to plan; default: 10 100 1000"
    )
    sizes.default = [10, 100, 1_000]
    return parser.parse_args()


if __name__ == "__main__":
    main()
