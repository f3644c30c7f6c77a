"""What a stage's kernel begins with: its variables, its environment, and what it may ask about its own run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbtools.execution.kernels.seeding import HASH_SEED, with_hash_seed
from nbtools.execution.kernels.seeding import VARIABLE as SEED
from nbtools.execution.workspace import Workspace, recorded
from nbtools.pipeline.dag import Output, Variant
from nbtools.pipeline.plan import Completion
from nbtools.pipeline.seeding import kernel_seed
from nbtools.pipeline.spec import Secret


def variables(variant: Variant, workspace: Workspace, where: Callable[[Output], Path]) -> dict[str, Any]:
    """Return what is injected: params, and paths relative to the kernel's working directory.

    Parameters
    ----------
    where
        Returns where an output is written.
    """
    root = workspace.project.root
    cwd = root / variant.stage.cwd
    values: dict[str, Any] = {}
    for name, value in workspace.params(variant).items():
        # A notebook reads a secret from the environment, under the name that it finds here.
        values[name] = value.env if isinstance(value, Secret) else value
    for item in variant.inputs:
        paths = [_relative(root / path, cwd) for path in item.paths]
        values[item.variable] = paths if item.many else paths[0]
    for output in variant.outputs:
        values[output.variable] = _relative(where(output), cwd)
    return values


def environment(variant: Variant, workspace: Workspace, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a stage's kernel: without the secrets of others, and with ``more``.

    It leaves no byte code of the project's modules: Python takes that for the present module's if another of the same
    size was written within the same second.
    """
    own = {value.env for value in workspace.params(variant).values() if isinstance(value, Secret)}
    others = workspace.secret_variables() - own
    inherited = {name: value for name, value in os.environ.items() if name not in others}
    folders = [workspace.project.root / folder for folder in workspace.import_folders(variant.stage)]
    paths = [str(folder) for folder in folders if folder.is_dir()]
    paths += filter(None, [inherited.get("PYTHONPATH", "")])
    own_code = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**with_hash_seed(inherited), **own_code, SEED: str(seed_of(variant, workspace)), **more}


def seed_of(variant: Variant, workspace: Workspace) -> int:
    """Return what the global random number generators of the variant's kernel begin with."""
    return kernel_seed(variant.key, workspace.params(variant))


def for_first_cells(environment: Mapping[str, str], variant: Variant, workspace: Workspace) -> dict[str, str]:
    """Return a variant's environment as the cells get it that all variants share, whoever comes first."""
    stage = variant.stage
    return {**environment, SEED: str(kernel_seed(stage.key, workspace.params_of(stage)))}


def seeds(variant: Variant, workspace: Workspace) -> dict[str, Any]:
    """Return all that random numbers, and the order of sets, depend on: those that nbtools sets, and the param."""
    number = seed_of(variant, workspace)
    found = {HASH_SEED: with_hash_seed(os.environ)[HASH_SEED], "random": number, "numpy": number}
    params = recorded(workspace.params(variant))
    return {**found, **({"seed": params["seed"]} if "seed" in params else {})}


def lineage(completions: Sequence[Completion]) -> list[dict[str, Any]]:
    """Return what is known of the stages that a stage depends on."""
    return [
        {
            "stage": completion.stage,
            "resumed": completion.resumed,
            "fingerprint": completion.fingerprint,
            "notebook": completion.extra.get("notebook", ""),
            "notebook_digest": completion.source,
            "params": dict(completion.ingredients.params),
            "inputs": list(completion.extra.get("inputs", ())),
            "outputs": [
                {"dataset": name, "digest": digest, "size_bytes": completion.sizes.get(name, 0)}
                for name, digest in completion.outputs.items()
            ],
            "run": completion.run,
            "tracking_run": completion.tracking_run,
            "finished_at": completion.finished_at,
        }
        for completion in completions
    ]


def _relative(path: Path, cwd: Path) -> str:
    return Path(os.path.relpath(path, cwd)).as_posix()
