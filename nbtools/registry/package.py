"""``nbtools.package``: a fitted model becomes a registered MLflow model version. Runs in a notebook's kernel."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import os
import platform
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nbtools.errors import OperationError, UsageError
from nbtools.project import find_root
from nbtools.tracking.lineage import manifest
from nbtools.tracking.template import ensure_store

_LINEAGE = "lineage.json"
_LONGEST_TAG = 5_000
#: What any packaged model is loaded with, whether its own modules name them or not.
_ALWAYS = ("mlflow", "pandas", "numpy", "cloudpickle")


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
        Files or folders to keep with the model.

    Returns
    -------
    PackagedVersion
        The new version.

    Raises
    ------
    UsageError
        If the name, the model or the example cannot be used.
    OperationError
        If MLflow's store does not take it.
    """
    _check_name(name)
    log = _flavor(model)
    context = _context()
    _choose_store(context)
    with _quiet():
        try:
            with _run() as run_id:
                found = _Packaging(model, name, run_id, context, dict(metrics or {})).register(
                    log, example, pyfunc_predict_fn, [Path(item) for item in extra_files]
                )
                _describe(found, description, context, dict(tags or {}))
        except MlflowException as error:
            raise OperationError.of(f"MLflow did not take the model {name!r}: {error}") from error
    if found.missing:
        print(f"{found.uri} registered; its lineage is incomplete: {'; '.join(found.missing)}")  # noqa: T201
    return found


class _Packaging:
    """One model on its way into the registry."""

    def __init__(
        self, model: Any, name: str, run_id: str, context: Mapping[str, Any], metrics: dict[str, float]
    ) -> None:
        self.model = model
        self.name = name
        self.run_id = run_id
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

    def register(
        self, log: Callable[..., Any], example: Any, predict: str, extra_files: Sequence[Path]
    ) -> PackagedVersion:
        signature = None
        if example is not None:
            signature = infer_signature(example, _predicted(self.model, predict, example))
        with tempfile.TemporaryDirectory() as folder:
            lineage = Path(folder) / _LINEAGE
            lineage.write_text(json.dumps(self.manifest, indent=2, sort_keys=True), encoding="utf-8")
            logged = log(
                self.model,
                name=self.name,
                signature=signature,
                input_example=example,
                pip_requirements=self.requirements,
                predict=predict,
                extra_files=[str(path) for path in (lineage, *extra_files)],
            )
        if self.metrics:
            mlflow.log_metrics(self.metrics, model_id=logged.model_id, run_id=self.run_id)
        version = mlflow.register_model(logged.model_uri, self.name, await_registration_for=60)
        number = int(version.version)
        missing = tuple(self.manifest["missing"])
        return PackagedVersion(self.name, number, f"models:/{self.name}/{number}", self.run_id, missing)


def requirements(model: Any) -> list[str]:
    """Return ``name==version`` of what the model needs to be loaded: what is imported now, nothing guessed.

    The model's own modules are found by walking its parts; each package brings along those of its
    requirements that this process has imported.
    """
    owners = metadata.packages_distributions()
    pending = [owners[top][0] for top in {_top(part) for part in _parts(model)} if top in owners]
    pending += [name for name in _ALWAYS if _version(name)]
    imported = {_normal(owner) for top in sys.modules if "." not in top for owner in owners.get(top, ())}
    found: dict[str, str] = {}
    while pending:
        name = _normal(pending.pop())
        if name in found or not (version := _version(name)):
            continue
        found[name] = version
        if name != "mlflow":  # the server and the client bring their own
            pending += [item for item in map(_normal, _needs(name)) if item in imported]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _parts(model: Any) -> Iterator[Any]:
    """Yield the model and the estimators inside it."""
    seen: set[int] = set()
    pending = [model]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, list | tuple):
            pending += part
        elif isinstance(part, dict):
            pending += part.values()
        elif hasattr(part, "get_params") and not isinstance(part, type):
            pending += vars(part).values()


def _top(part: Any) -> str:
    module = getattr(part, "__module__", None) or type(part).__module__
    return str(module).partition(".")[0]


def _needs(name: str) -> list[str]:
    parsed = [Requirement(text) for text in metadata.requires(name) or ()]
    return [item.name for item in parsed if item.marker is None or item.marker.evaluate({"extra": ""})]


def _normal(name: str) -> str:
    return str(canonicalize_name(name))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _check_name(name: str) -> None:
    if not name or not name.strip():
        raise UsageError.of("a registered model needs a name")
    if any(char in name for char in "/:"):
        raise UsageError.of(f"{name!r} cannot be the name of a model", fix="leave out slashes and colons")


def _flavor(model: Any) -> Callable[..., Any]:
    if hasattr(model, "fit") and hasattr(model, "get_params"):
        return _log_sklearn
    if isinstance(model, mlflow.pyfunc.PythonModel | types.FunctionType):
        return _log_pyfunc
    kind = f"{type(model).__module__}.{type(model).__name__}"
    fix = "pass a scikit-learn estimator, an mlflow.pyfunc.PythonModel or a function"
    raise UsageError.of(f"a {kind} cannot be packaged", fix=fix)


def _log_sklearn(model: Any, *, predict: str, extra_files: list[str], **options: Any) -> Any:
    # Pickled with cloudpickle, as MLflow's clients load it without being told which types to trust: skops
    # refuses HistGradientBoosting among others. Whoever loads a model trusts its store.
    logged = mlflow.sklearn.log_model(
        model,
        pyfunc_predict_fn=predict,
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        **options,
    )
    _add_files(logged, extra_files)
    return logged


def _log_pyfunc(model: Any, *, predict: str, extra_files: list[str], **options: Any) -> Any:
    if predict != "predict":
        raise UsageError.of(f"{predict!r}: only scikit-learn models have other methods than predict")
    logged = mlflow.pyfunc.log_model(python_model=model, **options)
    _add_files(logged, extra_files)
    return logged


def _add_files(logged: Any, files: list[str]) -> None:
    client = MlflowClient()
    for file in files:
        path = Path(file)
        if not path.exists():
            raise UsageError.of("the extra file does not exist", where=file)
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / path.name
            link.symlink_to(path.resolve())
            client.log_model_artifacts(logged.model_id, folder)


def _predicted(model: Any, predict: str, example: Any) -> Any:
    if isinstance(model, types.FunctionType):
        return model(example)
    if isinstance(model, mlflow.pyfunc.PythonModel):
        return model.predict(None, example)
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


def _choose_store(context: Mapping[str, Any]) -> None:
    """Outside a run, use the project's own store if nobody chose another."""
    if context or os.environ.get("MLFLOW_TRACKING_URI"):
        return
    root = find_root(Path.cwd())
    if root is not None and not mlflow.is_tracking_uri_set():
        database = root / ".nbtools" / "mlflow.db"
        ensure_store(database, lambda _: None)
        mlflow.set_tracking_uri(f"sqlite:///{database}")


@contextlib.contextmanager
def _run() -> Iterator[str]:
    """Use the run that is active, or the stage's; else one that ends with the block."""
    active = mlflow.active_run()
    if active is not None:
        yield active.info.run_id
        return
    own = "MLFLOW_RUN_ID" not in os.environ
    run = mlflow.start_run()
    try:
        yield run.info.run_id
    finally:
        if own:
            mlflow.end_run()


def _describe(
    version: PackagedVersion, description: str, context: Mapping[str, Any], tags: Mapping[str, str]
) -> None:
    client = MlflowClient()
    if description:
        client.update_model_version(version.name, str(version.version), description)
    revision = context.get("revision", {})
    known = {
        "nbtools.run": context.get("run", ""),
        "nbtools.stage": context.get("stage", ""),
        "nbtools.fingerprint": context.get("fingerprint", ""),
        "nbtools.commit": revision.get("commit", ""),
        "nbtools.dirty": str(revision.get("dirty", "")).lower(),
        "nbtools.lineage": _LINEAGE,
        "nbtools.missing": "; ".join(version.missing),
        **tags,
    }
    for key, value in known.items():
        if value:
            client.set_model_version_tag(version.name, str(version.version), key, value[:_LONGEST_TAG])


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
