"""What a zygote should import for a notebook."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbtools.execution.kernels.warm.zygote import NEVER_FORKED

#: Name of the provisioner (see ``provisioner``), and of the variable with the modules that it imports ahead.
PROVISIONER = "nbtools-warm"
MODULES_VARIABLE = "NBTOOLS_WARM_MODULES"


def worth_importing(
    imports: Sequence[str], packages: Mapping[str, Any], shadowed: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return which of the dotted names in ``imports`` a zygote should import, in order.

    Parameters
    ----------
    packages
        Installed packages by import name.
    shadowed
        Whether a top-level name means something else to the notebook than the installed package.
    """
    found = []
    for name in imports:
        top = name.partition(".")[0]
        if top in packages and top not in NEVER_FORKED and not shadowed(top):
            found.append(name)
    return tuple(dict.fromkeys(found))


def shadows(folders: Sequence[Path]) -> Callable[[str], bool]:
    """Return what tells whether a top-level name is found in one of ``folders``."""
    listed = {name.partition(".")[0] for folder in folders if folder.is_dir() for name in os.listdir(folder)}
    return listed.__contains__
