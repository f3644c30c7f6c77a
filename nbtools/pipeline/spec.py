"""What a project consists of, as frozen values.

Rules of this file: no I/O, no parsing, no validation of outside data. ``load`` builds these
values from ``pipelines.yaml`` and reports mistakes; everything else only reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nbtools.pipeline.matrix import names_of_all, points, values_by_name

#: A value that reaches a kernel unchanged: None, bool, int, float, str, lists and str-keyed dicts of them.
ParamValue: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a text file; ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Secret:
    """A param whose value stays in an environment variable; only the variable's name is ever written."""

    env: str


@dataclass(frozen=True, slots=True)
class SchemaReference:
    """A pandera schema: attribute ``name`` of the Python file ``file`` (relative to the project)."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named path with its contract.

    Parameters
    ----------
    name
        Name in ``data:``; also the default name of the variable in notebooks.
    path
        POSIX path relative to the project; ``{param}`` marks a pattern with one path per variant.
    placeholders
        Names in braces in ``path``, in order.
    digest
        What external data must be; empty if anything will do.
    keep
        Whether the bytes of external data are kept with each run; None leaves it to their size.
    """

    name: str
    path: str
    location: Location
    schema: SchemaReference | None = None
    description: str = ""
    owner: str = ""
    placeholders: tuple[str, ...] = ()
    digest: str = ""
    keep: bool | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """A notebook variable that holds a dataset's path."""

    variable: str
    dataset: str
    location: Location


@dataclass(frozen=True, slots=True)
class Resources:
    """What a stage takes of its machine while it runs; zero is not counted.

    Parameters
    ----------
    cpu
        Processors.
    memory_bytes
        Main memory.
    """

    cpu: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on the metrics that a stage logs; see ``nbtools.pipeline.gates``."""

    condition: str
    location: Location


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition under which a stage runs; see ``nbtools.pipeline.conditions``.

    Parameters
    ----------
    params
        Names of the params that it depends on.
    stages
        Stages whose metrics it depends on, as written.
    """

    text: str
    location: Location
    params: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One notebook with params, inputs and outputs.

    Parameters
    ----------
    notebook, cwd
        POSIX paths relative to the project; an empty ``cwd`` is the project folder.
    params
        Params written at this stage only.
    matrix
        Param name to its values; the stage runs once for each point of the product.
    include, exclude
        Points beyond that, or with more params, and points to leave out; see ``nbtools.pipeline.matrix``.
    drawn
        Whether its variants are drawn while it runs, so that ``matrix`` does not have them.
    timeout_s
        Budget of the whole notebook in seconds; None means no limit.
    cell_timeout_s
        Budget of each cell in seconds; None means no limit.
    retries
        How often a failed stage is tried again.
    python
        Interpreter of the kernel as written; empty means the one that runs nbtools.
    when
        What must hold so that it runs at all; None: it always does.
    share_prefix
        Whether the variants of its matrix may share what the cells above the parameters cell do.
    gates
        What must hold of its metrics before its result is used.
    """

    pipeline: str
    name: str
    notebook: str
    location: Location
    inputs: tuple[Binding, ...] = ()
    outputs: tuple[Binding, ...] = ()
    params: Mapping[str, ParamValue | Secret] = field(default_factory=dict)
    matrix: Mapping[str, tuple[ParamValue, ...]] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    timeout_s: float | None = None
    cell_timeout_s: float | None = None
    retries: int = 0
    python: str = ""
    cwd: str = ""
    description: str = ""
    resources: Resources = Resources()
    gates: tuple[Gate, ...] = ()
    share_prefix: bool = True
    when: Condition | None = None
    include: tuple[Mapping[str, ParamValue], ...] = ()
    exclude: tuple[Mapping[str, ParamValue], ...] = ()
    drawn: bool = False

    @property
    def points(self) -> tuple[Mapping[str, ParamValue], ...]:
        """The points of its matrix; none if it has no matrix."""
        return points(self.matrix, self.include, self.exclude)

    @property
    def has_matrix(self) -> bool:
        """Whether it runs once for each point of a matrix."""
        return bool(self.matrix or self.include)

    @property
    def varied(self) -> dict[str, tuple[ParamValue, ...]]:
        """Values of each param that some variant has from the matrix."""
        return values_by_name(self.points)

    @property
    def spread(self) -> tuple[str, ...]:
        """Params that every variant has from the matrix: no other value of theirs reaches the stage."""
        return names_of_all(self.points)

    @property
    def key(self) -> str:
        """Full name, such as ``train.fit``."""
        return f"{self.pipeline}.{self.name}"

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Names of the stages that must be done before although no dataset joins them, as written."""
        return (*self.after, *(self.when.stages if self.when else ()))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A named set of stages."""

    name: str
    stages: tuple[Stage, ...]
    params: Mapping[str, ParamValue | Secret] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where MLflow keeps the project's runs; empty strings mean the defaults."""

    uri: str = ""
    experiment: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that ``pipelines.yaml`` says."""

    project: str
    pipelines: tuple[Pipeline, ...]
    datasets: Mapping[str, Dataset]
    params: Mapping[str, ParamValue | Secret] = field(default_factory=dict)
    tracking: Tracking = field(default_factory=Tracking)
    warm_kernels: bool = True
    kernel_protocol: bool = False
    kept_kernels: int = 2
    kept_s: float = 8 * 3600.0
    places: Mapping[str, Location] = field(default_factory=dict)

    def stages(self) -> Iterator[Stage]:
        """Yield every stage in the order in which they are written."""
        for pipeline in self.pipelines:
            yield from pipeline.stages

    def place(self, path: str) -> Location | None:
        """Return where the document's ``path`` (dotted) stands."""
        return self.places.get(path)
