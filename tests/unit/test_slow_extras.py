"""What is left out while something is imported is there again afterwards, and only in nbtools' own processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import gc, sys
from nbtools.execution import slow_extras
{own}
def there():
    try:
        import colorsys
    except ImportError:
        return False
    return True
with slow_extras.left_out("colorsys"):
    within, collecting = there(), gc.isenabled()
print(within, collecting, there(), gc.isenabled())
"""


@pytest.mark.parametrize(
    ("own", "expected"),
    [("slow_extras.leave_out()", "False False True True"), ("", "True False True True")],
    ids=["nbtools' own", "somebody's"],
)
def test_package_is_hidden_within_the_block_only(own: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(own=own)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == expected.split()


def test_package_that_was_imported_before_stays() -> None:
    code = LOOK.format(own="slow_extras.leave_out()\nimport colorsys")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "True"
