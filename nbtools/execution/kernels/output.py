"""Stream output of a cell, kept within bounds: the beginning and the end, whatever comes between."""

from __future__ import annotations

from collections import deque

#: How much of one stream of a cell is kept, in characters; half from its beginning, half from its end.
KEPT_CHARACTERS = 1_000_000


class BoundedText:
    """Text that grows without end but is kept only in part."""

    def __init__(self, limit: int = KEPT_CHARACTERS) -> None:
        self._half = limit // 2
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._dropped = 0

    def add(self, text: str) -> None:
        """Append ``text``."""
        room = self._half - self._head_size
        if room > 0:
            self._head.append(text[:room])
            self._head_size += len(text[:room])
            text = text[room:]
        if text:
            self._tail.append(text)
            self._tail_size += len(text)
        while self._tail_size > self._half:
            excess = self._tail_size - self._half
            first = self._tail.popleft()
            if len(first) > excess:
                self._tail.appendleft(first[excess:])
            self._dropped += min(excess, len(first))
            self._tail_size -= min(excess, len(first))

    def text(self) -> str:
        """Return what was kept, with a line that says how much is missing."""
        head, tail = "".join(self._head), "".join(self._tail)
        if not self._dropped:
            return head + tail
        return f"{head}\n… {self._dropped:,} characters left out …\n{tail}"
