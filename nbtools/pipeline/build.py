"""A checked document to a ``Spec``: do names exist, are paths sound, does everything fit together?

Rules of this file: no I/O. Mistakes are collected, not raised, so that all are reported at once.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

from nbtools.errors import Problem, suggest
from nbtools.pipeline.conditions import params_named, stages_named, why_bad_condition
from nbtools.pipeline.dag import cycle, path_part
from nbtools.pipeline.document import Document, PipelineEntry, ResourcesEntry, StageEntry
from nbtools.pipeline.gates import why_bad_gate
from nbtools.pipeline.marked_yaml import Path, Tree, dotted
from nbtools.pipeline.matrix_build import MatrixBuilder
from nbtools.pipeline.spec import (
    Binding,
    Condition,
    Dataset,
    Gate,
    Location,
    ParamValue,
    Pipeline,
    Resources,
    SchemaReference,
    Secret,
    Spec,
    Stage,
    Tracking,
)
from nbtools.pipeline.values import why_bad_name, why_unfit

_NAME = re.compile(r"[^\W\d][\w-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}(?:\.tree)?")
_RESERVED_FOLDERS = (".nbtools", ".git", ".venv")


def build(tree: Tree, document: Document, file: str) -> tuple[Spec, list[Problem]]:
    """Return the spec of a document, and what is wrong with it; without problems it may be relied on."""
    builder = _Builder(tree, document, file)
    return builder.spec(), builder.problems


class _Builder:
    def __init__(self, tree: Tree, document: Document, file: str) -> None:
        self.tree = tree
        self.document = document
        self.file = file
        self.problems: list[Problem] = []
        self.places: dict[str, Location] = {}
        raw = tree.value if isinstance(tree.value, dict) else {}
        data = raw.get("data")
        self.raw_datasets: dict[str, Any] = data if isinstance(data, dict) else {}

    def problem(self, path: Path, message: str, fix: str = "") -> None:
        self.problems.append(Problem(message, str(self.place(path)), dotted(path), fix))

    def place(self, path: Path) -> Location:
        return self.tree.place(path) or Location(self.file, 1, 1)

    def spec(self) -> Spec:
        datasets = self.datasets()
        pipelines = tuple(
            self.pipeline(name, entry, datasets) for name, entry in self.document.pipelines.items()
        )
        spec = Spec(
            project=self.document.project,
            pipelines=pipelines,
            datasets=datasets,
            params=self.params(("params",), self.document.params),
            tracking=Tracking(self.document.tracking.uri, self.document.tracking.experiment),
            places=self.places,
            warm_kernels=self.document.kernels.warm,
            kernel_protocol=self.document.kernels.protocol,
            kept_kernels=self.document.kernels.keep,
            kept_s=self.document.kernels.keep_for,
        )
        stages = list(spec.stages())
        self.check_writers(stages, datasets)
        self.check_after(stages)
        self.check_conditions(spec)
        self.check_patterns(stages, datasets)
        self.check_files_kept(stages, datasets)
        if found := cycle(stages):
            path = _stage_path(found[0])
            chain = " → ".join([*(stage.key for stage in found), found[0].key])
            self.problem(path, f"these stages wait for each other: {chain}", "break the circle")
        return spec

    # Datasets

    def datasets(self) -> dict[str, Dataset]:
        found: dict[str, Dataset] = {}
        for name, entry in self.document.data.items():
            path: Path = ("data", name)
            if reason := why_bad_name(name):
                self.problem(path, f"{reason}; a dataset's name is the variable in the notebook")
            where = (*path, "path") if (*path, "path") in self.tree.keys else path
            found[name] = Dataset(
                name,
                self.sound_path(where, entry.path),
                self.place(path),
                self.schema(entry.schema_, (*path, "schema")),
                entry.description,
                entry.owner,
                self.placeholders(where, entry.path),
                self.digest((*path, "digest"), entry.digest),
                entry.keep,
            )
        self.check_overlaps(found.values())
        return found

    def sound_path(self, where: Path, text: str) -> str:
        normal = posixpath.normpath(text)
        if reason := why_bad_path(text):
            self.problem(
                where, f"{text!r} {reason}", "write a path inside the project, such as data/x.parquet"
            )
        return normal

    def schema(self, text: str | None, where: Path) -> SchemaReference | None:
        if text is None:
            return None
        file, _, name = text.rpartition(":")
        if not file.endswith(".py") or not name.isidentifier():
            self.problem(where, f"{text!r} names no schema", 'write it as "schemas.py:TrainSet"')
            return None
        return SchemaReference(self.sound_path(where, file), name)

    def digest(self, where: Path, text: str | None) -> str:
        if text is None:
            return ""
        digest = text.strip().lower().removeprefix("sha256:")
        if not _DIGEST.fullmatch(digest):
            fix = "write the 64 digits that sha256sum prints; nbtools data show prints those of a folder, too"
            self.problem(where, f"{text!r} is no SHA-256", fix)
        return digest

    def placeholders(self, where: Path, text: str) -> tuple[str, ...]:
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            self.problem(where, f"{text!r} is no pattern: {error}", "write {param} for a param of the matrix")
            return ()
        names = [name for _, name, _, _ in parts if name is not None]
        odd = any(spec or conversion for _, name, spec, conversion in parts if name is not None)
        if odd or any(why_bad_name(name) for name in names) or "{{" in text or "}}" in text:
            self.problem(where, f"{text!r} is no pattern", "write {param} for a param of the matrix")
            return ()
        return tuple(dict.fromkeys(names))

    def check_overlaps(self, datasets: Iterable[Dataset]) -> None:
        by_path: dict[str, Dataset] = {}
        for dataset in datasets:
            if other := by_path.get(dataset.path):
                self.problem(
                    ("data", dataset.name),
                    f"{dataset.name!r} and {other.name!r} are the same path {dataset.path!r}",
                    "keep one of them",
                )
            by_path.setdefault(dataset.path, dataset)
        for path, dataset in by_path.items():
            parent = posixpath.dirname(path)
            while parent.strip("/"):
                if parent in by_path:
                    outer = by_path[parent].name
                    self.problem(("data", dataset.name), f"{path!r} lies inside the dataset {outer!r}")
                parent = posixpath.dirname(parent)

    # Pipelines and stages

    def pipeline(self, name: str, entry: PipelineEntry, datasets: Mapping[str, Dataset]) -> Pipeline:
        path: Path = ("pipelines", name)
        self.check_name(path, name)
        stages = tuple(self.stage(name, key, value, datasets) for key, value in entry.stages.items())
        return Pipeline(name, stages, self.params((*path, "params"), entry.params), entry.description)

    def check_name(self, path: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            self.problem(
                path, f"{name!r} is no name", "use letters, digits, _ and -, beginning with a letter"
            )

    def stage(self, pipeline: str, name: str, entry: StageEntry, datasets: Mapping[str, Dataset]) -> Stage:
        path = ("pipelines", pipeline, "stages", name)
        self.check_name(path, name)
        defaults = self.document.defaults
        notebook = self.sound_path((*path, "notebook"), entry.notebook)
        if not notebook.endswith(".ipynb"):
            self.problem(
                (*path, "notebook"), f"{entry.notebook!r} is no notebook", "its name must end in .ipynb"
            )
        cwd = entry.cwd if entry.cwd is not None else defaults.cwd
        stage = Stage(
            pipeline=pipeline,
            name=name,
            notebook=notebook,
            location=self.place(path),
            inputs=self.bindings((*path, "inputs"), entry.inputs, datasets),
            outputs=self.bindings((*path, "outputs"), entry.outputs, datasets),
            params=self.params((*path, "params"), entry.params),
            **self.matrix((*path, "matrix"), entry.matrix),
            after=tuple(entry.after),
            timeout_s=entry.timeout if entry.timeout is not None else defaults.timeout,
            cell_timeout_s=entry.cell_timeout if entry.cell_timeout is not None else defaults.cell_timeout,
            retries=entry.retries if entry.retries is not None else defaults.retries,
            python=entry.python if entry.python is not None else defaults.python,
            cwd=self.folder((*path, "cwd"), cwd),
            description=entry.description,
            resources=_resources(entry.resources, defaults.resources),
            when=self.condition((*path, "when"), entry.when),
            share_prefix=entry.share_prefix,
            gates=self.gates((*path, "gates"), entry.gates),
        )
        self.check_variables(path, stage)
        return stage

    def condition(self, where: Path, text: str | None) -> Condition | None:
        if text is None:
            return None
        if reason := why_bad_condition(text):
            fix = "compare params and metrics of other stages: sample > 0.5 and evaluate.auc >= 0.7"
            self.problem(where, f"{text!r} is no condition: {reason}", fix)
            return None
        return Condition(text, self.place(where), params_named(text), stages_named(text))

    def gates(self, path: Path, conditions: list[str]) -> tuple[Gate, ...]:
        for number, text in enumerate(conditions):
            if reason := why_bad_gate(text):
                fix = "write a comparison of metrics: r2 > 0.24, or rmse <= champion.rmse * 1.01"
                self.problem((*path, number), f"{text!r} is no gate: {reason}", fix)
            if text in conditions[:number]:
                self.problem((*path, number), f"{text!r} is listed twice", "remove one of them")
        return tuple(Gate(text, self.place((*path, number))) for number, text in enumerate(conditions))

    def folder(self, where: Path, text: str) -> str:
        return "" if text in ("", ".") else self.sound_path(where, text)

    def bindings(
        self, path: Path, entries: Mapping[str, str], datasets: Mapping[str, Dataset]
    ) -> tuple[Binding, ...]:
        self.check_repeats(path)
        found = []
        for number, (variable, name) in enumerate(entries.items()):
            where = (*path, variable) if (*path, variable) in self.tree.keys else (*path, number)
            if reason := why_bad_name(variable):
                self.problem(where, reason, "write variable: dataset with a Python name as variable")
            if name in datasets:
                found.append(Binding(variable, name, self.place(where)))
            elif name not in self.raw_datasets:
                fix = suggest(name, self.raw_datasets, "dataset")
                self.problem(where, f"unknown dataset {name!r}", f"{fix} (or add it under data:)")
        return tuple(found)

    def check_repeats(self, path: Path) -> None:
        raw: Any = self.tree.value
        for part in path:
            raw = raw.get(part) if isinstance(raw, dict) else None
        if not isinstance(raw, list):
            return
        for number, name in enumerate(raw):
            if isinstance(name, str) and name in raw[:number]:
                self.problem((*path, number), f"{name!r} is listed twice", "remove one of them")

    def check_variables(self, path: Path, stage: Stage) -> None:
        seen: dict[str, str] = {}
        named = [("inputs", item.variable) for item in stage.inputs]
        named += [("outputs", item.variable) for item in stage.outputs]
        named += [("params", name) for name in stage.params] + [("matrix", name) for name in stage.varied]
        for kind, name in named:
            if name in seen:
                self.problem(
                    (*path, kind, name), f"{name!r} stands under both {seen[name]} and {kind}", "rename one"
                )
            seen.setdefault(name, kind)

    # Params

    def params(self, path: Path, entries: Mapping[str, Any]) -> dict[str, ParamValue | Secret]:
        found: dict[str, ParamValue | Secret] = {}
        for name, value in entries.items():
            where = (*path, name)
            self.places[dotted(where)] = self.place(where)
            if reason := why_bad_name(name):
                self.problem(where, reason, "a param is a variable of the notebook")
            found[name] = self.param(where, value)
        return found

    def param(self, where: Path, value: Any) -> ParamValue | Secret:
        if isinstance(value, dict) and "secret" in value:
            env = value["secret"]
            if len(value) == 1 and isinstance(env, str) and re.fullmatch(r"[A-Za-z_]\w*", env, re.ASCII):
                return Secret(env)
            self.problem(where, "a secret names one environment variable", "write {secret: ENV_NAME}")
        if reason := why_unfit(value):
            self.problem(where, f"this value would not reach the notebook unchanged: {reason}")
        return value

    def matrix(self, path: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
        fields = MatrixBuilder(path, self.problem).fields(entries)
        for name in entries:
            self.places[dotted((*path, name))] = self.place((*path, name))
        for number, point in enumerate(fields["include"]):
            for name in point:
                where = (*path, "include", number, name)
                self.places.setdefault(dotted((*path, name)), self.place(where))
        return fields

    # What concerns several stages

    def check_writers(self, stages: Iterable[Stage], datasets: Mapping[str, Dataset]) -> None:
        writers: dict[str, Stage] = {}
        for stage in stages:
            for binding in stage.outputs:
                where = (*_stage_path(stage), "outputs")
                if other := writers.get(binding.dataset):
                    whose = "twice by this stage" if other is stage else f"by {other.key} too"
                    self.problem(
                        where, f"the dataset {binding.dataset!r} is written {whose}", "one stage writes it"
                    )
                writers.setdefault(binding.dataset, stage)
        for dataset in datasets.values():
            self.check_external(dataset, writers.get(dataset.name))
            if dataset.placeholders and dataset.name not in writers:
                self.problem(
                    ("data", dataset.name),
                    f"the pattern {dataset.path!r} is written by no stage",
                    "a pattern needs a stage with a matrix that lists it as output",
                )

    def check_external(self, dataset: Dataset, writer: Stage | None) -> None:
        for key, given in (("digest", bool(dataset.digest)), ("keep", dataset.keep is not None)):
            if writer and given:
                message = f"{key!r} is for external data, and {writer.key} writes {dataset.name!r}"
                fix = "leave it out: what a stage writes follows from its inputs, and is stored"
                self.problem(("data", dataset.name, key), message, fix)

    def check_files_kept(self, stages: list[Stage], datasets: Mapping[str, Dataset]) -> None:
        holding: dict[str, list[str]] = {}  # what must stay, by its own path and every folder above
        kept = {stage.notebook: "the notebook " for stage in stages}
        kept |= {item.schema.file: "the schema " for item in datasets.values() if item.schema}
        for file, what in sorted({**kept, posixpath.basename(self.file): ""}.items()):
            for place in itertools.accumulate(file.split("/"), posixpath.join):
                holding.setdefault(place, []).append(what + file)
        for stage in stages:
            for binding in stage.outputs:
                path = datasets[binding.dataset].path
                for file in holding.get(path, ()):
                    message = f"writing {binding.dataset!r} ({path}) would replace {file}"
                    self.problem((*_stage_path(stage), "outputs"), message, "write to another path")

    def check_patterns(self, stages: Iterable[Stage], datasets: Mapping[str, Dataset]) -> None:
        for stage in stages:
            for binding in stage.outputs:
                dataset = datasets[binding.dataset]
                if self.check_placeholders(stage, dataset) and stage.has_matrix:
                    self.check_variants(stage, dataset, datasets)

    def check_placeholders(self, stage: Stage, dataset: Dataset) -> bool:
        """Check that every variant of a stage has a value for what the pattern of its output names."""
        where = (*_stage_path(stage), "outputs")
        spread = stage.spread
        missing = [name for name in dataset.placeholders if name not in spread]
        for name in sorted(missing):
            if lacking := [point for point in stage.points if name in stage.varied and name not in point]:
                message = f"the pattern of {dataset.name!r} has {{{name}}}, which the variant {_shown(lacking[0])} lacks"
                self.problem(where, message, f"give {name} in every point of the matrix")
            else:
                fix = suggest(name, spread, "matrix param")
                self.problem(where, f"the pattern of {dataset.name!r} has {{{name}}}, no matrix param", fix)
        return not missing

    def check_variants(self, stage: Stage, dataset: Dataset, datasets: Mapping[str, Dataset]) -> None:
        """Check that no two variants write the same path, such as ``a-b-c`` from ``{x}-{y}``."""
        where = (*_stage_path(stage), "outputs")
        unnamed = [name for name in stage.matrix if name not in dataset.placeholders]
        for name in sorted(unnamed):
            self.problem(
                where,
                f"variants with other values of {name!r} would write the same {dataset.name!r}",
                f"put {{{name}}} into the path of {dataset.name!r}",
            )
        if unnamed:
            return
        plain = [other for other in datasets.values() if not other.placeholders and other is not dataset]
        taken = {other.path: f"the dataset {other.name!r}" for other in plain}
        for point in stage.points:
            texts = {name: path_part(value) for name, value in point.items()}
            path = posixpath.normpath(dataset.path.format(**texts))
            shown = f"the variant {_shown(point)}"
            if other := taken.get(path):
                message = f"{other} and {shown} are the same path {path!r}"
                fix = f"change the pattern of {dataset.name!r}"
                self.problem((*_stage_path(stage), "matrix"), message, fix)
                return
            taken[path] = shown

    def check_after(self, stages: list[Stage]) -> None:
        for stage in stages:
            for number, name in enumerate(stage.after):
                if not any(matches(other, name, stage.pipeline) for other in stages):
                    fix = suggest(name, [*(s.key for s in stages), *(s.name for s in stages)], "stage")
                    self.problem((*_stage_path(stage), "after", number), f"unknown stage {name!r}", fix)

    def check_conditions(self, spec: Spec) -> None:
        for pipeline in spec.pipelines:
            for stage in pipeline.stages:
                if stage.when:
                    spread = dict.fromkeys(stage.spread)
                    known = {**spec.params, **pipeline.params, **stage.params, **spread}
                    self.check_condition_params(stage, stage.when, known)
                    self.check_condition_stages(stage, stage.when, list(spec.stages()))

    def check_condition_params(self, stage: Stage, when: Condition, known: Mapping[str, Any]) -> None:
        where = (*_stage_path(stage), "when")
        for name in when.params:
            if name not in known:
                fix = suggest(name, known, "param")
                fix += (
                    f"{'; ' * bool(fix)}a param of a condition has its value here, not in the notebook alone"
                )
                self.problem(where, f"the condition names {name!r}, no param of {stage.key}", fix)
            elif isinstance(known[name], Secret):
                self.problem(where, f"the condition names {name!r}, a secret", "nothing may tell what it is")

    def check_condition_stages(self, stage: Stage, when: Condition, stages: list[Stage]) -> None:
        where = (*_stage_path(stage), "when")
        for name in when.stages:
            found = next((other for other in stages if matches(other, name, stage.pipeline)), None)
            if found is None:
                fix = suggest(name, [*(s.key for s in stages), *(s.name for s in stages)], "stage")
                self.problem(where, f"the condition names the stage {name!r}, which does not exist", fix)
            elif found.has_matrix:
                message = f"the condition names {found.key}, whose variants have a value each"
                self.problem(where, message, "let a stage log one metric of them all")


def matches(stage: Stage, name: str, pipeline: str) -> bool:
    """Tell whether ``name``, written in ``pipeline``, means ``stage``."""
    return stage.key == name or (stage.pipeline == pipeline and stage.name == name)


def why_bad_path(text: str) -> str:
    """Return why ``text`` is no path inside the project, or an empty string.

    >>> why_bad_path("../secrets.csv")
    'leads out of the project'
    """
    normal = posixpath.normpath(text)
    if posixpath.isabs(text) or re.match(r"[A-Za-z]:[\\/]", text) or text.startswith("~"):
        return "is no path relative to the project"
    if normal == ".." or normal.startswith("../"):
        return "leads out of the project"
    if normal == ".":
        return "is the project itself"
    if "\\" in text or any(ord(char) < 32 for char in text):
        return "holds a backslash or a control character"
    if normal.split("/", 1)[0] in _RESERVED_FOLDERS:
        return "lies in a folder that is not for data"
    if posixpath.basename(normal).startswith(".git"):
        return "is a file of git's"
    return ""


def _resources(own: ResourcesEntry, defaults: ResourcesEntry) -> Resources:
    cpu = own.cpu if own.cpu is not None else defaults.cpu
    memory = own.memory if own.memory is not None else defaults.memory
    return Resources(cpu or 0.0, memory or 0)


def _shown(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={path_part(value)}" for name, value in point.items())


def _stage_path(stage: Stage) -> Path:
    return ("pipelines", stage.pipeline, "stages", stage.name)
