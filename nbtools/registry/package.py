"""``nbtools.package``: a fitted model becomes a registered MLflow model version. Runs in a notebook's kernel."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import inspect
import io
import json
import logging
import os
import platform
import re
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

from nbtools.errors import OperationError, UsageError
from nbtools.pipeline.load import load
from nbtools.project import FILE_NAME, find_root
from nbtools.registry.needs import own_code, requirements
from nbtools.tracking.address import StoreAddress, resolve, without_credentials
from nbtools.tracking.lineage import manifest
from nbtools.tracking.template import ensure_store

_LINEAGE = "lineage.json"
_LONGEST_TAG = 5_000
_EXTRA = "extra_files"
#: What MLflow allows in the name of a registered model but not in that of the model logged for it.
_NOT_IN_LOGGED_NAME = re.compile(r"[.%\"']")


@dataclass(frozen=True, slots=True)
class PackagedVersion:
    """A version of a registered model.

    Parameters
    ----------
    uri
        What any MLflow client loads: ``models:/name/version``.
    run_id
        The MLflow run that the model belongs to.
    missing
        What is not known of its origin, in words; empty for a clean pipeline run.
    """

    name: str
    version: int
    uri: str
    run_id: str
    missing: tuple[str, ...] = ()


def package(  # noqa: PLR0913 - what a model comes with
    model: Any,
    name: str,
    *,
    example: Any = None,
    metrics: Mapping[str, float] | None = None,
    description: str = "",
    pyfunc_predict_fn: str = "predict",
    tags: Mapping[str, str] | None = None,
    extra_files: Sequence[Path | str] = (),
    allow_resumed: str = "",
) -> PackagedVersion:
    """Register a fitted model with signature, example, exact requirements, metrics and lineage.

    In a pipeline run, the version belongs to the stage's MLflow run and its manifest names commit, notebooks,
    params, input digests and environment. Elsewhere it works too, in the project's store, and says what is missing.

    Parameters
    ----------
    model
        A fitted scikit-learn estimator, an ``mlflow.pyfunc.PythonModel``, or a function of a model input.
    name
        Of the registered model; its first version makes it.
    example
        A few rows of input, as a DataFrame or array; the signature comes from it and the predictions for it.
    metrics
        Logged to the run and to the model.
    pyfunc_predict_fn
        Method that ``mlflow.pyfunc`` calls, such as ``predict_proba``; scikit-learn only.
    extra_files
        Files or folders to keep with the model, in its folder ``extra_files``.
    allow_resumed
        Why the model may be registered although it is made from a result that was resumed at a failed cell;
        the reason is kept with the version.

    Returns
    -------
    PackagedVersion
        The new version.

    Raises
    ------
    UsageError
        If the name, the model or the example cannot be used, or the model is made from a resumed result and
        nobody said why that may be.
    SpecError
        If the project's pipelines.yaml, which says where its models go, has mistakes.
    OperationError
        If MLflow's store does not take it.
    """
    _check_name(name)
    log = _flavor(model)
    files = _existing(extra_files)
    context = _context()
    if context and not context.get("tracking_run"):
        # The version would vanish with the run's throw-away store, while the stage counts as done.
        raise UsageError.of("a run without tracking cannot register a model", fix="leave out --no-tracking")
    resumed = _resumed(context, allow_resumed)
    home = _home(context)
    with _quiet():
        signature = None if example is None else _signature(model, pyfunc_predict_fn, example)
        try:
            with _run(home, name) as run_id:
                packaging = _Packaging(model, name, run_id, context, dict(metrics or {}))
                logged = packaging.log(log, signature, example, pyfunc_predict_fn, files)
                found = packaging.register(logged, description, {**(tags or {}), **resumed})
        except MlflowException as error:
            said = without_credentials(str(error))
            raise OperationError.of(f"MLflow did not take the model {name!r}: {said}") from error
    if found.missing:
        print(f"{found.uri} registered; its lineage is incomplete: {'; '.join(found.missing)}")  # noqa: T201
    return found


def _resumed(context: Mapping[str, Any], why: str) -> dict[str, str]:
    """Return the tag of a version that is made from resumed results."""
    found = [str(item["stage"]) for item in context.get("upstream", ()) if item.get("resumed")]
    found += [str(context["stage"])] if context.get("resumed") else []
    if not found:
        return {}
    if not why.strip():
        message = f"{', '.join(found)} was resumed at a failed cell: nobody could make this model again"
        fix = f"nbtools run {found[0]} --force; or say why it may be: nbtools.package(…, allow_resumed='…')"
        raise UsageError.of(message, fix=fix)
    return {"nbtools.resumed": f"{', '.join(found)}: {why.strip()}"}


class _Packaging:
    """One model on its way into the registry."""

    def __init__(
        self, model: Any, name: str, run_id: str, context: Mapping[str, Any], metrics: dict[str, float]
    ) -> None:
        self.model = model
        self.name = name
        self.run_id = run_id
        self.context = context
        self.requirements = requirements(model)
        self.metrics = metrics
        self.manifest = manifest(
            context,
            requirements=self.requirements,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            platform=platform.platform(),
            metrics=metrics,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        self.lineage = json.dumps(self.manifest, indent=2, sort_keys=True).encode()

    def log(
        self,
        log: Callable[..., Any],
        signature: Any,
        example: Any,
        predict: str,
        extra_files: Sequence[Path],
    ) -> Any:
        """Log the model with everything that belongs to it to the run."""
        logged = log(
            self.model,
            name=_NOT_IN_LOGGED_NAME.sub("-", self.name),
            signature=signature,
            input_example=example,
            pip_requirements=self.requirements,
            code_paths=[str(path) for path in own_code(self.model, _root())] or None,
            predict=predict,
        )
        client = MlflowClient()
        with tempfile.TemporaryDirectory() as folder:
            lineage = Path(folder) / _LINEAGE
            lineage.write_bytes(self.lineage)
            client.log_model_artifact(logged.model_id, str(lineage))
        for path in extra_files:
            if path.is_dir():
                client.log_model_artifacts(logged.model_id, str(path), f"{_EXTRA}/{path.name}")
            else:
                client.log_model_artifact(logged.model_id, str(path), _EXTRA)
        if self.metrics:
            mlflow.log_metrics(self.metrics, model_id=logged.model_id, run_id=self.run_id)
        return logged

    def register(self, logged: Any, description: str, tags: Mapping[str, str]) -> PackagedVersion:
        """Make the logged model a version of the registered one, with tags that lead to its origin."""
        missing = tuple(self.manifest["missing"])
        revision = self.context.get("revision", {})
        known = {
            "nbtools.run": self.context.get("run", ""),
            "nbtools.stage": self.context.get("stage", ""),
            "nbtools.fingerprint": self.context.get("fingerprint", ""),
            "nbtools.commit": revision.get("commit", ""),
            "nbtools.dirty": str(revision.get("dirty", "")).lower(),
            "nbtools.lineage": _LINEAGE,
            "nbtools.lineage_digest": hashlib.sha256(self.lineage).hexdigest(),
            "nbtools.missing": "; ".join(missing),
            **tags,
        }
        texts = {key: str(value)[:_LONGEST_TAG] for key, value in known.items() if value != ""}
        version = mlflow.register_model(logged.model_uri, self.name, await_registration_for=60, tags=texts)
        number = int(version.version)
        if description:
            MlflowClient().update_model_version(self.name, str(number), description)
        return PackagedVersion(self.name, number, f"models:/{self.name}/{number}", self.run_id, missing)


def _check_name(name: str) -> None:
    if not name or not name.strip():
        raise UsageError.of("a registered model needs a name")
    if any(char in name for char in "/:") or name.startswith(".."):
        fix = "leave out slashes and colons, and dots at the beginning"
        raise UsageError.of(f"{name!r} cannot be the name of a model", fix=fix)


def _existing(files: Sequence[Path | str]) -> list[Path]:
    found = [Path(file).resolve() for file in files]
    for path in found:
        if not path.exists():
            raise UsageError.of("the extra file does not exist", where=str(path))
    return found


def _flavor(model: Any) -> Callable[..., Any]:
    if hasattr(model, "fit") and hasattr(model, "get_params"):
        return _log_sklearn
    if isinstance(model, mlflow.pyfunc.PythonModel | types.FunctionType):
        return _log_pyfunc
    kind = f"{type(model).__module__}.{type(model).__name__}"
    fix = "pass a scikit-learn estimator, an mlflow.pyfunc.PythonModel or a function"
    raise UsageError.of(f"a {kind} cannot be packaged", fix=fix)


def _log_sklearn(model: Any, *, predict: str, **options: Any) -> Any:
    # Pickled with cloudpickle, as MLflow's clients load it without being told which types to trust: skops
    # refuses HistGradientBoosting among others. Whoever loads a model trusts its store.
    return mlflow.sklearn.log_model(
        model,
        pyfunc_predict_fn=predict,
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        **options,
    )


def _log_pyfunc(model: Any, *, predict: str, **options: Any) -> Any:
    if predict != "predict":
        raise UsageError.of(f"{predict!r}: only scikit-learn models have other methods than predict")
    return mlflow.pyfunc.log_model(python_model=model, **options)


def _signature(model: Any, predict: str, example: Any) -> Any:
    return infer_signature(example, _predicted(model, predict, example))


def _predicted(model: Any, predict: str, example: Any) -> Any:
    if isinstance(model, types.FunctionType):
        return model(example)
    if isinstance(model, mlflow.pyfunc.PythonModel):
        # MLflow 3 takes both predict(self, context, model_input) and predict(self, model_input).
        with_context = "context" in inspect.signature(model.predict).parameters
        return model.predict(None, example) if with_context else model.predict(example)
    if not hasattr(model, predict):
        raise UsageError.of(f"the model has no method {predict!r}")
    return getattr(model, predict)(example)


def _context() -> dict[str, Any]:
    path = os.environ.get("NBTOOLS_CONTEXT", "")
    if not path:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(found)


def _root() -> Path | None:
    """Return the project's folder: the run's, or the one that the notebook lies in."""
    told = os.environ.get("NBTOOLS_PROJECT", "")
    return Path(told) if told else find_root(Path.cwd())


def _home(context: Mapping[str, Any]) -> StoreAddress | None:
    """Outside a run, use the project's own store unless somebody chose another; None if it is not used."""
    if context or mlflow.active_run() is not None or os.environ.get("MLFLOW_RUN_ID"):
        return None
    root = _root()
    if root is None:
        return None
    spec = load(root / FILE_NAME)
    address = resolve(root, spec.tracking, spec.project, os.environ)
    if not mlflow.is_tracking_uri_set():
        if address.database is not None:
            ensure_store(address.database, lambda _: None)
        mlflow.set_tracking_uri(address.uri)
    return address if mlflow.get_tracking_uri() == address.uri else None


@contextlib.contextmanager
def _run(home: StoreAddress | None, name: str) -> Iterator[str]:
    """Use the run that is active, or the stage's; else one that ends with the block."""
    active = mlflow.active_run()
    if active is not None:
        yield active.info.run_id
        return
    own = "MLFLOW_RUN_ID" not in os.environ
    # Whoever called mlflow.set_experiment has set the variable too.
    chosen = {"MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"} & set(os.environ)
    experiment = _experiment(home) if own and home is not None and not chosen else None
    run = mlflow.start_run(experiment_id=experiment, run_name=f"package {name}" if own else None)
    try:
        yield run.info.run_id
    except BaseException:
        if own:
            mlflow.end_run("FAILED")
        raise
    if own:
        mlflow.end_run()


def _experiment(home: StoreAddress) -> str:
    client = MlflowClient()
    if client.get_experiment_by_name(home.experiment) is None:
        with contextlib.suppress(MlflowException):  # somebody else was quicker
            client.create_experiment(home.experiment, artifact_location=home.artifacts or None)
    found = client.get_experiment_by_name(home.experiment)
    assert found is not None
    return str(found.experiment_id)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's notices out of the notebook: they are about things that nbtools has settled."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
