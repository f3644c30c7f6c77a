"""The file format of pipelines.yaml: what pydantic checks, and the JSON Schema for editors.

Rules of this file: no I/O and no meaning. Whether names exist, paths are sound and the stages form
a DAG is checked in ``load``, where mistakes get their line.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic.json_schema import WithJsonSchema

from nbtools.pipeline.values import seconds, size_bytes

_VARIABLE = r"^[^\W\d]\w*$"


def _duration(value: Any) -> Any:
    return seconds(value) if isinstance(value, str | int | float) else value


def _size(value: Any) -> Any:
    return size_bytes(value) if isinstance(value, str | int) else value


def _as_condition(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _as_dataset(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _as_tracking(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


def _as_mapping(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return {item: item for item in value}
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": "^[0-9.hms ]+$"},
            ],
            "description": "Seconds, or a text such as 45s, 30m, 1h30m.",
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0},
                {"type": "string", "pattern": "^[0-9.]+ *([KMGT]i?)?B?$"},
            ],
            "description": "Bytes, or a text such as 500MB, 2GiB.",
        }
    ),
]
Condition = Annotated[
    StrictStr,
    BeforeValidator(_as_condition),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "minLength": 1}, {"type": "boolean"}],
            "description": 'Condition on params and metrics of other stages, such as "sample > 0.5" or '
            '"evaluate.auc >= 0.7"; where it does not hold the stage is skipped.',
        }
    ),
]
Params = Annotated[
    dict[StrictStr, Any],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": _VARIABLE},
            "description": "Values by name; {secret: ENV_NAME} stays in the kernel's environment.",
        }
    ),
]
_POINTS = {"type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 1}}
_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3}
#: What it holds is checked in ``build``, where mistakes get their words.
Matrix = Annotated[
    dict[StrictStr, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "include": {
                    **_POINTS,
                    "description": "More points, or more params for the combinations that they fit.",
                },
                "exclude": {**_POINTS, "description": "Combinations with these values are left out."},
            },
            "additionalProperties": {
                "anyOf": [
                    {"type": "array", "minItems": 1},
                    {"type": "string", "pattern": r"^\s*(range|linspace)\s*\(.*\)\s*$"},
                    *(
                        {
                            "type": "object",
                            "properties": {kind: _NUMBERS},
                            "required": [kind],
                            "additionalProperties": False,
                        }
                        for kind in ("range", "linspace")
                    ),
                ],
                "description": "A list; range(start, stop, step) without the stop; linspace(start, stop, count) with it.",
            },
        }
    ),
]
Bindings = Annotated[
    dict[StrictStr, StrictStr],
    BeforeValidator(_as_mapping),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ],
            "description": "Dataset names, or variable: dataset where the notebook calls it otherwise.",
        }
    ),
]


class DatasetEntry(_Strict):
    """A named path with its contract."""

    path: StrictStr = Field(
        min_length=1, description="Path relative to the project; {param} makes a pattern."
    )
    schema_: StrictStr | None = Field(
        None, alias="schema", description="pandera schema that the data must satisfy, as file.py:Name."
    )
    description: StrictStr = Field("", description="What the data are.")
    owner: StrictStr = Field("", description="Whom to ask.")
    digest: StrictStr | None = Field(
        None, description="SHA-256 that external data must have; checked before the first stage runs."
    )
    keep: StrictBool | None = Field(
        None, description="Keep the bytes of external data with each run; default: up to 1 MiB."
    )


class ResourcesEntry(_Strict):
    """What a stage takes of its machine while it runs."""

    cpu: float | None = Field(None, gt=0, le=10_000, strict=True, description="Processors.")
    memory: Size | None = Field(None, description="Main memory.")


class StageEntry(_Strict):
    """One notebook with params, inputs and outputs."""

    notebook: StrictStr = Field(min_length=1, description="Path of the notebook, relative to the project.")
    inputs: Bindings = Field(default_factory=dict, description="Datasets that the notebook reads.")
    outputs: Bindings = Field(default_factory=dict, description="Datasets that the notebook writes.")
    params: Params = Field(default_factory=dict, description="Params of this stage.")
    matrix: Matrix = Field(
        default_factory=dict, description="Values by param; the stage runs once for each combination."
    )
    after: list[StrictStr] = Field(
        default_factory=list, description="Stages to wait for although no dataset joins them."
    )
    when: Condition | None = Field(None, description="Condition under which the stage runs.")
    timeout: Duration | None = Field(None, description="Budget of the whole notebook.")
    cell_timeout: Duration | None = Field(None, description="Budget of each cell.")
    retries: StrictInt | None = Field(None, ge=0, le=100, description="How often a failure is tried again.")
    python: StrictStr | None = Field(None, description="Interpreter of the kernel; default: that of nbtools.")
    cwd: StrictStr | None = Field(None, description="Working directory; default: the project folder.")
    resources: ResourcesEntry = Field(
        default_factory=ResourcesEntry, description="What it takes of the machine while it runs."
    )
    gates: list[StrictStr] = Field(
        default_factory=list,
        description='Conditions on the metrics it logs, such as "r2 > 0.24" or "rmse <= champion.rmse * 1.01".',
    )
    share_prefix: StrictBool = Field(
        True, description="Run the cells above the parameters cell once for all variants of the matrix."
    )
    description: StrictStr = Field("", description="What the stage is for.")


class PipelineEntry(_Strict):
    """A named set of stages."""

    stages: dict[StrictStr, StageEntry] = Field(min_length=1, description="Stages by name.")
    params: Params = Field(default_factory=dict, description="Params of all stages of this pipeline.")
    description: StrictStr = Field("", description="What the pipeline is for.")


class DefaultsEntry(_Strict):
    """What stages get that do not say otherwise."""

    timeout: Duration | None = Field(None, description="Budget of each notebook.")
    cell_timeout: Duration | None = Field(None, description="Budget of each cell.")
    retries: StrictInt = Field(0, ge=0, le=100, description="How often a failure is tried again.")
    python: StrictStr = Field("", description="Interpreter of the kernels.")
    cwd: StrictStr = Field("", description="Working directory, relative to the project.")
    resources: ResourcesEntry = Field(
        default_factory=ResourcesEntry, description="What each takes of the machine while it runs."
    )


class TrackingEntry(_Strict):
    """Where MLflow keeps the runs."""

    uri: StrictStr = Field("", description="MLflow tracking URI; MLFLOW_TRACKING_URI wins over it.")
    experiment: StrictStr = Field("", description="Name of the experiment; default: the project's name.")


class KernelsEntry(_Strict):
    """How kernels are started."""

    warm: StrictBool = Field(
        True, description="Fork each from a process that has imported what notebooks need; Linux only."
    )
    protocol: StrictBool = Field(
        False, description="Drive forked kernels over Jupyter's protocol, for comms of extensions."
    )
    keep: StrictInt = Field(
        2, ge=1, le=100, description="How many kernels of failed cells run --debug keeps."
    )
    keep_for: Duration = Field(8 * 3600.0, description="How long it keeps each.")


DatasetField = Annotated[
    DatasetEntry,
    BeforeValidator(_as_dataset),
]
TrackingField = Annotated[TrackingEntry, BeforeValidator(_as_tracking)]


class Document(_Strict):
    """An nbtools project."""

    version: StrictInt = Field(ge=1, le=1, description="Version of this format.")
    project: StrictStr = Field(min_length=1, max_length=200, description="Name of the project.")
    pipelines: dict[StrictStr, PipelineEntry] = Field(min_length=1, description="Pipelines by name.")
    params: Params = Field(default_factory=dict, description="Params of every stage that declares them.")
    data: dict[StrictStr, DatasetField] = Field(default_factory=dict, description="Datasets by name.")
    defaults: DefaultsEntry = Field(default_factory=DefaultsEntry, description="Defaults of all stages.")
    kernels: KernelsEntry = Field(default_factory=KernelsEntry, description="How kernels are started.")
    tracking: TrackingField = Field(default_factory=TrackingEntry, description="Where MLflow keeps the runs.")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of pipelines.yaml."""
    schema = Document.model_json_schema(by_alias=True)
    datasets = schema["properties"]["data"]
    datasets["additionalProperties"] = {"anyOf": [{"type": "string"}, datasets["additionalProperties"]]}
    tracking = schema["properties"]["tracking"]
    reference = tracking.pop("$ref", None)
    schema["properties"]["tracking"] = {
        **tracking,
        "anyOf": [{"type": "string"}, {"$ref": reference} if reference else {"type": "object"}],
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "nbtools pipelines.yaml"
    return schema
