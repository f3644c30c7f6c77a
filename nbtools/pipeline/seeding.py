"""The seed that a stage's kernel begins with.

Rules of this file: no I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

_PARAM = "seed"
#: numpy takes 32 bits.
_BYTES = 4


def kernel_seed(name: str, params: Mapping[str, Any]) -> int:
    """Return the seed of the global random number generators in a kernel, below 2**32.

    It depends on who runs there and the ``seed`` param only: a stage draws the same numbers whenever it runs, and
    each variant of a matrix draws its own, so that they can be independent repetitions of one experiment.

    Parameters
    ----------
    name
        The variant, such as ``train.fit[alpha=0.5]``; of the first cells that all variants share, the stage.

    >>> kernel_seed("train.fit", {"seed": 13}) == kernel_seed("train.fit", {"seed": 13, "alpha": 0.5})
    True
    """
    value = params.get(_PARAM)
    own = value if isinstance(value, int) and not isinstance(value, bool) else None
    return int.from_bytes(hashlib.sha256(f"{name}\0{own}".encode()).digest()[:_BYTES], "big")
