"""What is there: notebooks, modules, interpreters and datasets of a project, read once per command."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path

from nbtools.errors import DataError, NotebookError, Problem, SpecError, suggest
from nbtools.execution.database import Database
from nbtools.execution.digest import Measured
from nbtools.execution.kernels.interpreter import Interpreter, UnusablePython, describe, locate
from nbtools.execution.kernels.warm.imports import shadows, worth_importing
from nbtools.execution.modules import ModuleFinder
from nbtools.execution.store import Store
from nbtools.pipeline import notebook, params
from nbtools.pipeline.dag import Dag, Variant
from nbtools.pipeline.fingerprint import Ingredients
from nbtools.pipeline.notebook import NotebookFacts
from nbtools.pipeline.params import Overrides
from nbtools.pipeline.plan import Surroundings
from nbtools.pipeline.spec import Secret, Spec, Stage
from nbtools.project import Project


class Workspace:
    """A project's folder as one command sees it.

    Parameters
    ----------
    overrides
        Params given for this command, weakest first.
    pythons
        Interpreters to use instead of those that pipelines.yaml names; an empty name is the default one.
    """

    def __init__(
        self,
        project: Project,
        spec: Spec,
        database: Database,
        overrides: Iterable[Overrides] = (),
        pythons: Mapping[str, str] | None = None,
    ) -> None:
        self._pythons = pythons or {}
        self.project = project
        self.spec = spec
        self.database = database
        self.overrides = tuple(overrides)
        self.store = Store(project.store)
        self.memo = database.memo()
        self._facts = database.facts()
        self._new_facts: dict[str, str] = {}
        self._interpreters: dict[str, Interpreter] = {}
        self._measured: dict[str, Measured | None] = {}
        self._local: dict[str, Ingredients] = {}
        self._modules = ModuleFinder(project.root, self._digest_of_file, self._facts, self._new_facts)
        self.digests: dict[str, str] = {}
        self.notebooks: dict[str, NotebookFacts] = self._read_notebooks()

    def remember(self) -> None:
        """Keep what was found, so that the next command need not look again."""
        self.database.keep(self.memo, self._new_facts)
        self._new_facts.clear()

    def surroundings(self) -> Surroundings:
        """Return what planning may ask."""
        completions, latest = self.database.completions()
        return Surroundings(
            ingredients=self.ingredients,
            digest_of=self.digest_of,
            completion_of=completions.get,
            latest_of=latest.get,
            is_stored=self.store.holds,
            params=self.params_of_condition,
            datasets=self.spec.datasets,
        )

    def knows(self, fact: str) -> bool:
        """Tell whether somebody has found that ``fact`` holds."""
        return fact in self._facts

    def learn(self, fact: str) -> None:
        """Remember that ``fact`` holds."""
        self._facts[fact] = self._new_facts[fact] = "true"

    # Notebooks

    def _read_notebooks(self) -> dict[str, NotebookFacts]:
        found: dict[str, NotebookFacts] = {}
        problems: list[Problem] = []
        by_path: dict[str, NotebookFacts] = {}
        for stage in self.spec.stages():
            try:
                if stage.notebook not in by_path:
                    by_path[stage.notebook] = self._read_notebook(stage.notebook)
                found[stage.key] = by_path[stage.notebook]
            except notebook.NotebookFormatError as error:
                fix = error.fix.replace("NOTEBOOK", stage.notebook)
                problems.append(Problem(str(error), stage.notebook, f"stage {stage.key}", fix))
            except FileNotFoundError:
                problems.append(self._missing_notebook(stage))
            except OSError as error:
                problems.append(Problem(f"it cannot be read: {error.strerror}", stage.notebook))
        if problems:
            raise NotebookError(*problems)
        params.check_notebooks(self.spec, found)
        return found

    def _read_notebook(self, path: str) -> NotebookFacts:
        digest = self._digest_of_file(self.project.root / path)
        self.digests[path] = digest
        key = f"notebook {notebook.DIGEST_VERSION} {digest}"
        if known := self._facts.get(key):
            return notebook.decode(known)
        facts = notebook.read(self.notebook_text(path))
        self._new_facts[key] = notebook.encode(facts)
        return facts

    def notebook_text(self, path: str) -> str:
        """Return a notebook's text; bytes that are no UTF-8 make it no notebook."""
        try:
            return (self.project.root / path).read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise notebook.NotebookFormatError("this is not a notebook: it is not UTF-8 text") from error

    def _missing_notebook(self, stage: Stage) -> Problem:
        folder = (self.project.root / stage.notebook).parent
        names = [path.name for path in folder.glob("*.ipynb")] if folder.is_dir() else []
        fix = suggest(posixpath.basename(stage.notebook), names, "notebook")
        message = f"the notebook {stage.notebook} does not exist"
        return Problem(message, str(stage.location), f"stage {stage.key}", fix)

    def _digest_of_file(self, path: Path) -> str:
        return self.memo.file(path, path.stat())

    # Interpreters

    def interpreter(self, stage: Stage) -> Interpreter:
        """Return the Python of the stage's kernel.

        Raises
        ------
        SpecError
            If there is none, or notebooks cannot run on it.
        """
        try:
            path = locate(self._pythons.get(stage.python, stage.python), self.project.root)
            if path not in self._interpreters:
                found, facts = describe(path, self._facts)
                self._interpreters[path] = found
                self._new_facts.update(facts)
        except UnusablePython as error:
            fix = "write the path of a Python, such as .venv/bin/python"
            raise SpecError(Problem(str(error), str(stage.location), f"stage {stage.key}", fix)) from error
        return self._interpreters[path]

    def check_kernels(self, stages: Iterable[Stage]) -> None:
        """Check that the kernel of every stage can be started.

        Raises
        ------
        SpecError
            With all that cannot.
        """
        problems: list[Problem] = []
        for stage in stages:
            if self.notebooks[stage.key].language != "python":
                continue
            try:
                if problem := self.interpreter(stage).problem():
                    problems.append(problem)
            except SpecError as error:
                problems += error.problems
        if problems:
            raise SpecError(*dict.fromkeys(problems))

    def check_outputs(self, variants: Iterable[Variant]) -> None:
        """Check that no stage would write over code that stages import.

        Raises
        ------
        SpecError
            With all that would.
        """
        modules = {path for stage in self.spec.stages() for path in self._own_modules(stage)}
        problems = [
            Problem(
                f"writing {output.dataset!r} would replace the module {path}, which stages import",
                str(variant.stage.location),
                f"stage {variant.stage.key}",
                "write to another path",
            )
            for variant in variants
            for output in variant.outputs
            for path in sorted(modules)
            if path == output.path or path.startswith(f"{output.path}/")
        ]
        if problems:
            raise SpecError(*dict.fromkeys(problems))

    def _own_modules(self, stage: Stage) -> Iterable[str]:
        return self._modules.closure(self.notebooks[stage.key].imports, self.import_folders(stage))[0]

    # Ingredients

    def params(self, variant: Variant) -> dict[str, object]:
        """Return the params that are injected into the variant's notebook; secrets as ``Secret``."""
        return {**self.params_of(variant.stage), **variant.point}

    def params_of(self, stage: Stage) -> dict[str, object]:
        """Return the params of a stage, without those of its matrix."""
        return dict(params.resolve(stage, self.notebooks[stage.key], self.spec, self.overrides))

    def params_of_condition(self, variant: Variant) -> dict[str, object]:
        """Return the params that the variant's condition names."""
        return {**params.of_condition(variant.stage, self.spec, self.overrides), **variant.point}

    def secret_variables(self) -> set[str]:
        """Return the environment variables that hold secrets of any stage of the project."""
        spec = self.spec
        layers = [
            spec.params,
            *(item.params for item in spec.pipelines),
            *(item.params for item in spec.stages()),
        ]
        return {value.env for layer in layers for value in layer.values() if isinstance(value, Secret)}

    def ingredients(self, variant: Variant) -> Ingredients:
        """Return all that the variant's result depends on but its inputs."""
        if variant.key not in self._local:
            self._local[variant.key] = self._ingredients(variant)
        return self._local[variant.key]

    def _ingredients(self, variant: Variant) -> Ingredients:
        stage = variant.stage
        facts = self.notebooks[stage.key]
        folders = self.import_folders(stage)
        modules, imported = self._modules.closure(facts.imports, folders)
        modules.update(self._schema_modules(variant, folders))
        python, packages = "", {}
        if facts.language == "python":
            interpreter = self.interpreter(stage)
            python = interpreter.version
            packages = dict(sorted(filter(None, (interpreter.packages.get(name) for name in imported))))
        return Ingredients(
            code=facts.code,
            params=recorded(self.params(variant)),
            # Of the path as it is written: 0.5 in the place of {alpha} makes no other kind of file.
            outputs={
                item.variable: posixpath.splitext(self.spec.datasets[item.dataset].path)[1]
                for item in variant.outputs
            },
            modules=dict(sorted(modules.items())),
            packages=packages,
            python=python or f"kernel {facts.kernel}",
        )

    def code_files(self, variants: Iterable[Variant]) -> dict[str, str]:
        """Return the digest of every file that the variants' results depend on as code, by path."""
        found = {self.project.file.name: self._digest_of_file(self.project.file)}
        for variant in variants:
            notebook = variant.stage.notebook
            found |= {notebook: self.digests[notebook], **self.ingredients(variant).modules}
            for item in variant.inputs:
                if not item.producers:
                    found |= self.schema_files(item.dataset)
        return found

    def schema_files(self, dataset: str, folders: tuple[str, ...] = (".", "src")) -> dict[str, str]:
        """Return the file that holds a dataset's schema, and the modules that it imports, by path with digest.

        Parameters
        ----------
        folders
            Where else than beside it these are looked for.

        Raises
        ------
        SpecError
            If there is no such file.
        """
        found = self.spec.datasets[dataset]
        if found.schema is None:
            return {}
        if not (self.project.root / found.schema.file).is_file():
            message = f"the schema file {found.schema.file} does not exist"
            raise SpecError(Problem(message, str(found.location), f"data.{found.name}.schema"))
        beside = posixpath.dirname(found.schema.file) or "."
        return self._modules.file(found.schema.file, (beside, *folders))

    def warm_imports(self, stage: Stage) -> tuple[str, ...]:
        """Return the modules of installed packages that the stage's notebook imports."""
        names = self.notebooks[stage.key].imports
        folders = self.import_folders(stage)
        _, foreign = self._modules.closure(names, folders)
        dotted = [*(name for name in names if name.partition(".")[0] in foreign), *sorted(foreign)]
        others = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        return worth_importing(
            dotted, self.interpreter(stage).packages, shadows([Path(item) for item in others])
        )

    def mentions_mlflow(self, stage: Stage) -> bool:
        """Tell whether the stage's notebook, or a project module that it imports, names MLflow or nbtools."""
        facts = self.notebooks[stage.key]
        _, foreign = self._modules.closure(facts.imports, self.import_folders(stage))
        text = self.notebook_text(stage.notebook).lower()
        return bool(foreign & {"mlflow", "nbtools"}) or "mlflow" in text

    def import_folders(self, stage: Stage) -> tuple[str, ...]:
        """Return where the stage's notebook finds the project's modules: first match wins."""
        cwd = stage.cwd or "."
        return tuple(dict.fromkeys([cwd, posixpath.dirname(stage.notebook) or ".", "src"]))

    def _schema_modules(self, variant: Variant, folders: tuple[str, ...]) -> dict[str, str]:
        """Return the modules that hold the contracts of what the variant writes."""
        found: dict[str, str] = {}
        for output in variant.outputs:
            found.update(self.schema_files(output.dataset, folders))
        return found

    # Datasets

    def digest_of(self, path: str) -> str | None:
        """Return the digest of what lies at a path of the project; None if nothing does."""
        measured = self.measure(path)
        return measured.digest if measured else None

    def measure(self, path: str) -> Measured | None:
        """Return digest and size of what lies at a path of the project.

        Raises
        ------
        DataError
            If it cannot be read or lies outside the project.
        """
        if path not in self._measured:
            place = self.project.root / path
            if not place.resolve().is_relative_to(self.project.root):
                fix = "put the data themselves there; a run brings a stage's own output back once the link is gone"
                raise DataError.of("it is a link that leads out of the project", where=path, fix=fix)
            try:
                self._measured[path] = self.memo.measure(place)
            except OSError as error:
                raise DataError.of(f"it cannot be read: {error.strerror}", where=path) from error
        return self._measured[path]

    def forget(self, path: str) -> None:
        """Look at a path anew the next time: something was written there."""
        self._measured.pop(path, None)


def recorded(values: Mapping[str, object]) -> dict[str, object]:
    """Return params as they are recorded: a secret as the name of its variable."""
    return {
        name: {"secret": value.env} if isinstance(value, Secret) else value for name, value in values.items()
    }


def taking_part(dag: Dag, keys: Iterable[str]) -> list[Stage]:
    """Return the stages of the variants ``keys``, each once."""
    return list({dag.variants[key].stage.key: dag.variants[key].stage for key in keys}.values())
