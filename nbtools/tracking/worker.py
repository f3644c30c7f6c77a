"""MLflow's side of a run. Imported only by the process that ``tracker`` starts, never by nbtools itself."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
from mlflow.exceptions import MlflowException

from nbtools.execution import slow_extras, tables

#: What MLflow would cut without a word (mlflow/utils/validation.py).
_LONGEST_PARAM = 6_000
_LONGEST_TAG = 8_000
_PARAMS_AT_ONCE = 100
_TAGS_AT_ONCE = 100
_METRICS_AT_ONCE = 1_000

logging.getLogger("mlflow").setLevel(logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)
warnings.simplefilter("ignore")

_clients: dict[str, MlflowClient] = {}
#: MLflow's ids of what was begun: experiment and run, by attempt ("train.fit 1"); the parent run's is empty.
_begun: dict[str, tuple[str, str]] = {}
#: Rows and columns of datasets, by digest.
_known: dict[str, dict[str, Any]] = {}
_PARENT = ""
MANIFEST = "manifest.json"
PATCH = "uncommitted.patch"


def begin(
    uri: str,
    experiment: str,
    artifacts: str,
    name: str,
    tags: Mapping[str, str],
    at: float,
    resuming: bool,
) -> None:
    """Start the parent run, or find it if MLflow may have it already."""
    _begun.clear()
    experiment_id = _experiment(_client(uri), experiment, artifacts)
    known = (
        {"nbtools.run": tags["nbtools.run"], "nbtools.targets": tags["nbtools.targets"]} if resuming else {}
    )
    _begun[_PARENT] = experiment_id, _run(uri, experiment_id, name, tags, at, known)


def begin_stage(
    uri: str, attempt: str, name: str, tags: Mapping[str, str], at: float, resuming: bool
) -> tuple[str, str]:
    """Start a nested run, or find it, and return the ids of its experiment and of itself."""
    experiment_id, parent = _ids(_PARENT)
    nested = {**tags, "mlflow.parentRunId": parent}
    names = ("nbtools.run", "nbtools.stage", "nbtools.attempt")
    known = {name: tags[name] for name in names} if resuming else {}
    _begun[attempt] = experiment_id, _run(uri, experiment_id, name, nested, at, known)
    return _begun[attempt]


def _run(
    uri: str, experiment_id: str, name: str, tags: Mapping[str, str], at: float, known: Mapping[str, str]
) -> str:
    """Return the id of the run that has the tags ``known``, or of a new one."""
    client = _client(uri)
    if known:
        clauses = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in known.items())
        if found := client.search_runs([experiment_id], clauses, max_results=1):
            return str(found[0].info.run_id)
    return str(client.create_run(experiment_id, int(at * 1000), _short(tags), name).info.run_id)


def _ids(attempt: str) -> tuple[str, str]:
    if attempt not in _begun:
        raise LookupError("the run could not be begun there")  # why was said then
    return _begun[attempt]


def ready(uri: str) -> None:
    """Get ready for the store: whoever asks starts the process."""
    with slow_extras.left_out():
        _client(uri)


def describe(uri: str, attempt: str, tags: Mapping[str, str], inputs: Sequence[Mapping[str, Any]]) -> None:
    """Log tags and input datasets of a run."""
    client, run_id = _client(uri), _ids(attempt)[1]
    _tag(client, run_id, tags)
    if inputs:
        client.log_inputs(run_id, [_dataset(item, "input") for item in inputs])


def log_params(uri: str, attempt: str, params: Mapping[str, Any]) -> None:
    """Log params; where the notebook logged another value, that one stays and ours becomes a tag."""
    client, run_id = _client(uri), _ids(attempt)[1]
    logged = client.get_run(run_id).data.params
    texts = {name: _text(value) for name, value in params.items()}
    entries = [Param(name, _cut(text, _LONGEST_PARAM)) for name, text in texts.items() if name not in logged]
    for start in range(0, len(entries), _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=entries[start : start + _PARAMS_AT_ONCE])
    if any(len(text) > _LONGEST_PARAM for text in texts.values()):
        client.log_dict(run_id, dict(params), "params.json")
    others = {
        name: text for name, text in texts.items() if name in logged and logged[name] != text[:_LONGEST_PARAM]
    }
    _tag(client, run_id, {f"nbtools.param.{name}": text for name, text in others.items()})


def finish(uri: str, attempt: str, status: str, tags: Mapping[str, str], at: float) -> None:
    """End a run: tags, status and end time."""
    client, run_id = _client(uri), _ids(attempt)[1]
    try:
        _tag(client, run_id, tags)
    finally:
        client.set_terminated(run_id, status, int(at * 1000))


def attach_file(uri: str, attempt: str, path: str, folder: str) -> None:
    """Log a file of this machine as an artifact under ``folder``."""
    _client(uri).log_artifact(_ids(attempt)[1], path, folder)


def attach_plan(uri: str, summary: Mapping[str, Any], attempts: Mapping[str, str]) -> None:
    """Log what became of each stage as a file of the parent run; ``attempts`` are the stages' last ones."""
    stages = {
        stage: {
            **outcome,
            **({"tracking_run": _begun[attempts[stage]][1]} if attempts.get(stage) in _begun else {}),
        }
        for stage, outcome in summary["stages"].items()
    }
    _client(uri).log_dict(_ids(_PARENT)[1], {**summary, "stages": stages}, "plan.json")


def attach_stage_manifest(
    uri: str, attempt: str, manifest: Mapping[str, Any], places: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Log the manifest of a stage's run, with what its datasets hold; return that, by digest.

    Parameters
    ----------
    places
        Where the bytes of datasets lie, and what they are called, by digest.
    """
    experiment_id, run_id = _ids(attempt)
    described = {
        digest: tables.describe(Path(path), name).record() for digest, (path, name) in places.items()
    }
    tracking = {"run_id": run_id, "experiment_id": experiment_id}
    whole = {**manifest, **_described(manifest, {**_known, **described}), "tracking": tracking}
    _client(uri).log_dict(run_id, whole, MANIFEST)
    _known.update(described)
    return described


def attach_run_manifest(
    uri: str, manifest: Mapping[str, Any], attempts: Mapping[str, str], patch: str
) -> None:
    """Log the manifest of the parent run, and as a file what differed from the commit, if anything."""
    experiment_id, run_id = _ids(_PARENT)
    stages = {
        key: {**stage, **_described(stage, _known), **_tracked(attempts.get(key, ""))}
        for key, stage in manifest["stages"].items()
    }
    tracking = {"run_id": run_id, "experiment_id": experiment_id}
    client = _client(uri)
    client.log_dict(run_id, {**manifest, "stages": stages, "tracking": tracking}, MANIFEST)
    if patch:
        client.log_text(run_id, Path(patch).read_bytes().decode("utf-8", "replace"), PATCH)


def _tracked(attempt: str) -> dict[str, Any]:
    if attempt not in _begun:
        return {}
    experiment_id, run_id = _begun[attempt]
    return {"tracking": {"run_id": run_id, "experiment_id": experiment_id}}


def _described(stage: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the datasets of a stage with what is known of them."""
    return {
        kind: {name: {**item, **known.get(item["digest"], {})} for name, item in stage[kind].items()}
        for kind in ("inputs", "outputs")
    }


def metrics(uri: str, attempt: str) -> dict[str, float]:
    """Return the latest value of each metric of a run."""
    return dict(_client(uri).get_run(_ids(attempt)[1]).data.metrics)


def history(uri: str, attempt: str, metric: str) -> list[tuple[int, float]]:
    """Return step and value of all that a run has logged of a metric, oldest first."""
    found = _client(uri).get_metric_history(_ids(attempt)[1], metric)
    return [(int(item.step), float(item.value)) for item in sorted(found, key=lambda item: item.timestamp)]


def take_over(uri: str, attempt: str, spool: str) -> None:
    """Log what an attempt's notebook has logged elsewhere: metrics with their steps, params, tags and artifacts."""
    source, client, run_id = _client(spool), _client(uri), _ids(attempt)[1]
    experiment = source.get_experiment_by_name(attempt)
    if experiment is None:
        return
    for run in source.search_runs([experiment.experiment_id]):
        if "mlflow.parentRunId" in run.data.tags:
            continue
        found = [
            item for name in run.data.metrics for item in source.get_metric_history(run.info.run_id, name)
        ]
        for start in range(0, len(found), _METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=found[start : start + _METRICS_AT_ONCE])
        log_params(uri, attempt, run.data.params)
        _tag(
            client,
            run_id,
            {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
        )
        if source.list_artifacts(run.info.run_id):
            with tempfile.TemporaryDirectory() as folder:
                client.log_artifacts(run_id, source.download_artifacts(run.info.run_id, "", folder))


def _client(uri: str) -> MlflowClient:
    if uri not in _clients:
        _clients[uri] = MlflowClient(tracking_uri=uri, registry_uri=uri)
    return _clients[uri]


def _experiment(client: MlflowClient, name: str, artifacts: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts or None))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # somebody else was quicker
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _tag(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    entries = [RunTag(name, value) for name, value in _short(tags).items()]
    for start in range(0, len(entries), _TAGS_AT_ONCE):
        client.log_batch(run_id, tags=entries[start : start + _TAGS_AT_ONCE])


def _short(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: _cut(value, _LONGEST_TAG) for name, value in tags.items()}


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _text(value: Any) -> str:
    # As MLflow writes the same value, so that `mlflow.log_param("x", x)` in the notebook agrees with us.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else str(value)


def _dataset(item: Mapping[str, Any], context: str) -> DatasetInput:
    source = json.dumps({"uri": item["path"]})
    # MLflow allows 36 characters for a digest; the whole one stands in the tag nbtools.input.<name>.
    dataset = Dataset(str(item["dataset"]), str(item["digest"])[:36], "local", source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
