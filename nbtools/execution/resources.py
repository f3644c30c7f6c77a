"""What the machine has, and what of it running stages have taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from nbtools.pipeline.spec import Resources

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine() -> Resources:
    """Return the processors and the memory that this process may use; zero memory where nobody says."""
    return Resources(float(processors()), _memory_bytes())


def processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def room_for(wanted: Resources, running: Iterable[Resources], capacity: Resources) -> bool:
    """Tell whether a stage may start beside those that run; one that wants too much runs alone.

    What a stage does not declare, or the capacity does not say, is not counted.
    """
    taken = list(running)
    if not taken:
        return True
    cpu = wanted.cpu + sum(item.cpu for item in taken)
    memory = wanted.memory_bytes + sum(item.memory_bytes for item in taken)
    # Thirds of a processor must add up to one.
    enough_cpu = not (wanted.cpu and capacity.cpu) or cpu <= capacity.cpu + 1e-9
    enough_memory = not (wanted.memory_bytes and capacity.memory_bytes) or memory <= capacity.memory_bytes
    return enough_cpu and enough_memory


def _memory_bytes() -> int:
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    return min([physical, *_limits()])


def _limits() -> list[int]:
    """Return the limits that a container puts on memory."""
    found = []
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit():
            found.append(int(text))
    return found
