"""Runs straight from MLflow's database: the ids by MLflow's own query, their columns read together.

MLflow's ``search_runs`` asks for distinct rows. SQLite then joins each run with every value of each metric, param or tag
that is ordered by: quadratic in the number of runs. No filter and no order but one on datasets can give a run twice,
so we do without, and ask for datasets by a sub-query. MLflow also makes an object of every metric, param, tag and input of
every run; we read those that are shown.

The clauses are made by two functions that MLflow does not publish; tests compare the result with ``search_runs``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mlflow.store.tracking import sqlalchemy_store as mlflow_store
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.utils.search_utils import SearchUtils
from sqlalchemy import select

from nbtools.tracking.experiments import TAGS, Columns, TrackedRun, made

#: Functions of MLflow that it does not publish.
_NEEDED = ("_get_orderby_clauses", "_get_sqlalchemy_filter_clauses")


def possible() -> bool:
    """Return whether the installed MLflow has what we need of it; its client does without."""
    return all(hasattr(mlflow_store, name) for name in _NEEDED)


def run_ids(
    store: Any,
    experiment_ids: Sequence[str],
    filter_string: str,
    sort: Sequence[str],
    limit: int | None,
    *,
    deleted: bool = False,
) -> list[str]:
    """Return the ids of the runs that MLflow's ``search_runs`` would return, in its order."""
    parsed = SearchUtils.parse_search_filter(filter_string)
    with store.ManagedSessionMaker() as session:
        cases, orders, sorted_by = mlflow_store._get_orderby_clauses(list(sort), session)
        attributes, filtered_by, datasets = mlflow_store._get_sqlalchemy_filter_clauses(
            parsed, session, store._get_dialect()
        )
        query = select(SqlRun.run_uuid, *cases)
        for values in filtered_by:
            query = query.join(values)
        for values in sorted_by:  # a run without the value stays, at the end
            query = query.outerjoin(values)
        for values in datasets:
            query = query.where(SqlRun.run_uuid.in_(select(values.c.destination_id)))
        query = query.where(
            SqlRun.experiment_id.in_([int(item) for item in experiment_ids]),
            SqlRun.lifecycle_stage == ("deleted" if deleted else "active"),
            *attributes,
        )
        return list(session.execute(query.order_by(*orders).limit(limit)).scalars())


def read(
    store: Any, run_ids: Sequence[str], experiments: Mapping[str, str], columns: Columns
) -> list[TrackedRun]:
    """Return the runs of some ids, in their order; one that was removed meanwhile is left out.

    Parameters
    ----------
    run_ids
        No more than a page.
    experiments
        Names of experiments by their ids.
    """
    with store.ManagedSessionMaker() as session:
        query: Any = select(
            SqlRun.run_uuid,
            SqlRun.experiment_id,
            SqlRun.name,
            SqlRun.status,
            SqlRun.start_time,
            SqlRun.end_time,
            SqlRun.user_id,
        ).where(SqlRun.run_uuid.in_(run_ids))
        infos = {row[0]: row[1:] for row in session.execute(query)}
        params = _values(session, SqlParam, run_ids, columns.params)
        tags = _values(session, SqlTag, run_ids, None if columns.every_tag else TAGS)
        metrics = _values(session, SqlLatestMetric, run_ids, columns.metrics)
    return [
        made(
            run_id,
            experiments.get(str(infos[run_id][0]), ""),
            tuple(infos[run_id][1:]),
            params.get(run_id, {}),
            metrics.get(run_id, {}),
            tags.get(run_id, {}),
        )
        for run_id in run_ids
        if run_id in infos
    ]


def _values(
    session: Any, table: Any, run_ids: Sequence[str], keys: Collection[str] | None
) -> dict[str, dict[str, Any]]:
    """Return values by run and key; a NaN is kept as 0 with a mark beside it."""
    if keys is not None and not keys:
        return {}
    is_nan = [table.is_nan] if table is SqlLatestMetric else []
    query = select(table.run_uuid, table.key, table.value, *is_nan).where(table.run_uuid.in_(run_ids))
    if keys is not None:
        query = query.where(table.key.in_(list(keys)))
    found: dict[str, dict[str, Any]] = {}
    for run_id, key, value, *nan in session.execute(query):
        found.setdefault(run_id, {})[key] = math.nan if nan and nan[0] else value
    return found
