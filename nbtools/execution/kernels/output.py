"""What a cell puts out, kept within bounds: the beginning and the end of its text, whatever comes between.

A notebook stays something that people can open, and the process that takes it in stays small, however much
its cells print. What is left out of the notebook is in a compressed file beside it.
"""

from __future__ import annotations

import bisect
import gzip
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from nbtools.execution.masking import NO_SECRETS, Masking

#: How much text of a cell is kept, in characters; half from its beginning, half from its end.
KEPT_CHARACTERS = 1_000_000
#: How much all outputs of a notebook may take together, in characters of its JSON.
NOTEBOOK_CHARACTERS = 20_000_000
#: What an output costs beside its text, so that a million short ones are bounded, too.
_OVERHEAD = 200
#: The same of a display, which is more than its text both here and in a browser.
_DISPLAY_OVERHEAD = 2_000
#: Kept of each cell's text even if the notebook is full.
LEAST_CHARACTERS = 20_000
_EMPTY_AT_ONCE = 256
#: Parts are lost whole or cut; cutting a small one costs little.
_PART = 8_192
_HELD_BACK = 1 << 16


class Spill:
    """The whole text of a cell in a compressed file, secrets masked.

    Parameters
    ----------
    path
        Of the file; it is made when something is written.
    shown
        What readers of the notebook are told of where it will be.
    masking
        Applied to the text.
    """

    def __init__(self, path: Path, shown: str, masking: Masking = NO_SECRETS) -> None:
        self.path = path
        self.shown = shown
        self._masking = masking
        self._pending: list[tuple[str, str]] = []
        self._size = 0
        self._stream: gzip.GzipFile | None = None

    def write(self, text: str, name: str = "stdout") -> None:
        """Append ``text`` of the stream ``name``; a full disk loses it, which the bounded text does not."""
        self._pending.append((name, text))
        self._size += len(text)
        if self._size > _HELD_BACK + self._masking.reach:
            # The beginning of a secret whose end is still to come must not get out.
            self._put_all_but(self._masking.reach)

    def close(self) -> None:
        """Write what was held back."""
        self._put_all_but(0)
        if self._stream:
            with suppress(OSError):
                self._stream.close()

    def _put_all_but(self, held_back: int) -> None:
        masked = self._masking.pieces(self._pending)
        masked = self._masking.pieces([("both", text) for text in masked])  # one of both streams together
        self._size = sum(map(len, masked))
        ready = []
        for number, text in enumerate(masked):
            part = text[: max(0, self._size - held_back)]
            ready.append(part)
            self._size -= len(part)
            if len(part) < len(text):
                rest = zip(self._pending[number + 1 :], masked[number + 1 :], strict=True)
                self._pending = [(self._pending[number][0], text[len(part) :])]
                self._pending += [(name, later) for (name, _), later in rest]
                break
        else:
            self._pending = []
        self._put("".join(ready))

    def _put(self, text: str) -> None:
        with suppress(OSError):
            if self._stream is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = gzip.GzipFile(self.path, "wb", compresslevel=1)
            self._stream.write(text.encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class _Segment:
    """A stream output and its text: parts of the beginning, and how much of the end belongs to it."""

    output: Any
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=deque)
    changed: bool = True

    def text(self, gap: str) -> str:
        return "".join(self.head) + gap + "".join(self.tail)


class CellText:
    """The text that a cell prints, in its stream outputs.

    Parameters
    ----------
    outputs
        The cell's; stream outputs are appended to it.
    limit
        How many characters are kept.
    spill
        Takes the whole text once something has been left out of the notebook.
    masking
        Applied to the text; afterwards, half a secret could stand where the text was cut.
    overhead
        What another output costs beside its text, in characters.
    """

    def __init__(
        self,
        outputs: list[Any],
        limit: int = KEPT_CHARACTERS,
        spill: Spill | None = None,
        masking: Masking = NO_SECRETS,
        overhead: int = _OVERHEAD,
    ) -> None:
        self._overhead = overhead
        self._outputs = outputs
        self._half = max(limit, 2) // 2
        self._segments: list[_Segment] = []
        self._by_output: dict[int, _Segment] = {}
        self._head_size = 0
        self._tail: deque[_Segment] = deque()  # whose turn it is to lose its oldest part
        self._tail_size = 0
        self._empty = 0
        self._spill = spill
        self._masking = masking
        self._marked: _Segment | None = None
        self.dropped = 0

    def add(self, name: str, text: str) -> None:
        """Append ``text`` to the stream ``name``."""
        segment = self._segment(name)
        segment.changed = True
        if self.dropped and self._spill:
            self._spill.write(text, name)
        room = self._half - self._head_size
        if room > 0:
            segment.head.append(text[:room])
            self._head_size += len(text[:room])
            text = text[room:]
        for start in range(0, len(text), _PART):
            segment.tail.append(text[start : start + _PART])
            self._tail.append(segment)
        self._tail_size += len(text)
        if self._tail_size > self._half:
            self._shorten()

    def _segment(self, name: str) -> _Segment:
        last = self._outputs[-1] if self._outputs else None
        if last is None or last.output_type != "stream" or last.name != name:
            last = nbformat.NotebookNode(output_type="stream", name=name, text="")
            self._outputs.append(last)
        found = self._by_output.get(id(last))
        if found is None:
            found = self._by_output[id(last)] = _Segment(last, [last.text] if last.text else [])
            if self._head_size >= self._half:
                self._tail_size += self._overhead
            elif self._segments:
                self._head_size += self._overhead
            self._segments.append(found)
        return found

    def _shorten(self) -> None:
        """Leave out the oldest parts of the end."""
        if not self.dropped and self._spill:
            for segment in self._segments:
                self._spill.write(segment.text(""), segment.output.name)
        while self._tail_size > self._half and self._tail:
            segment, excess = self._tail[0], self._tail_size - self._half
            segment.changed = True
            part = segment.tail.popleft()
            if len(part) > excess:
                segment.tail.appendleft(part[excess:])
                self._tail_size -= excess
                self.dropped += excess
                return
            self._tail.popleft()
            self._tail_size -= len(part)
            self.dropped += len(part)
            if not segment.tail and not segment.head and segment is not self._segments[-1]:
                self._tail_size -= self._overhead
                self._empty += 1

    def empty_outputs(self) -> list[int]:
        """Remove the outputs that have lost all their text, if there are many, and return where they stood."""
        if self._empty < _EMPTY_AT_ONCE:
            return []
        gone = {id(item.output) for item in self._segments[:-1] if not item.tail and not item.head}
        places = [index for index, output in enumerate(self._outputs) if id(output) in gone]
        self._outputs[:] = [output for output in self._outputs if id(output) not in gone]
        self._segments = [item for item in self._segments if id(item.output) not in gone]
        for key in gone:
            del self._by_output[key]
        self._empty = 0
        return places

    def fill(self) -> None:
        """Write the text into the outputs, with a line that says what is missing."""
        marked = next((item for item in self._segments if item.tail), None) if self.dropped else None
        if marked is not self._marked:
            for item in (marked, self._marked):
                if item is not None:
                    item.changed = True
            self._marked = marked
        if self._masking.reach and self._segments:
            self._fill_masked(marked)
            return
        for item in self._segments:
            if item.changed or item is marked:
                item.output.text = item.text(self._gap(item) if item is marked else "")
                item.changed = False

    def _fill_masked(self, marked: _Segment | None) -> None:
        """Write all texts anew: a secret may stand in pieces, with another stream in between."""
        names = [item.output.name for item in self._segments]
        heads, tails = (
            ["".join(parts) for parts in ends]
            for ends in zip(*((item.head, item.tail) for item in self._segments), strict=True)
        )
        if self.dropped:
            heads = self._masking.pieces(list(zip(names, heads, strict=True)), ends_cut=True)
            tails = self._masking.pieces(list(zip(names, tails, strict=True)), begins_cut=True)
        else:
            whole = map("".join, zip(heads, tails, strict=True))
            heads, tails = self._masking.pieces(list(zip(names, whole, strict=True))), [""] * len(names)
        for item, head, tail in zip(self._segments, heads, tails, strict=True):
            item.output.text = head + (self._gap(item) if item is marked else "") + tail

    def _gap(self, item: _Segment) -> str:
        where = f"; the whole is in {self._spill.shown}" if self._spill else ""
        before = "\n" if item.head else ""
        return f"{before}… {self.dropped:,} characters left out{where} …\n"

    def close(self) -> None:
        """Fill the outputs for the last time."""
        self.fill()
        if self.dropped and self._spill:
            self._spill.close()


def without(places: list[int], index: int) -> int:
    """Return where what stood at ``index`` stands once ``places`` (sorted) are gone.

    >>> without([1, 2], 5)
    3
    """
    return index - bisect.bisect_left(places, index)


def characters(content: Any) -> int:
    """Return about how many characters the data of a message take in a notebook."""
    data = content.get("data") or {}
    return _DISPLAY_OVERHEAD + sum(
        len(value) if isinstance(value, str) else len(json.dumps(value, default=str))
        for value in data.values()
    )


class LeftOut:
    """What stands in a cell for displays that its notebook has no room for: one line for all in a row."""

    def __init__(self) -> None:
        self._count = 0
        self._size = 0
        self._kinds: set[str] = set()
        self._output: Any = None

    def take(self, content: Any, size: int, outputs: list[Any]) -> dict[str, Any] | None:
        """Count a display; return the content that stands for it, or None if the last output of the cell does.

        Parameters
        ----------
        size
            Of the display, in characters.
        outputs
            The cell's.
        """
        goes_on = bool(outputs) and outputs[-1] is self._output
        if not goes_on:
            self.__init__()  # type: ignore[misc]
        self._count += 1
        self._size += size
        self._kinds |= (content.get("data") or {}).keys() or set(content.get("left_out", ((), 0))[0])
        if not goes_on:
            return {**content, "data": {"text/plain": self._text()}, "metadata": {}}
        self._output.data["text/plain"] = self._text()
        return None

    def stands_as(self, output: Any) -> None:
        """Know the output that was made of the content."""
        self._output = output

    def _text(self) -> str:
        which = "an output" if self._count == 1 else f"{self._count:,} outputs"
        kinds = ", ".join(sorted(self._kinds))
        limit = f"outputs of a notebook are kept up to {NOTEBOOK_CHARACTERS:,}"
        verb = "was" if self._count == 1 else "were"
        return f"{which} of {self._size:,} characters ({kinds}) {verb} left out: {limit}"


def shortened(text: str, masking: Masking = NO_SECRETS, longest: int = 10_000) -> str:
    """Return an error's message, cut if nobody could read it; secrets are masked before that."""
    if len(text) > longest:
        text = masking.text(text)
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … {len(text) - longest:,} more characters"


def shortened_error(content: Any, masking: Masking = NO_SECRETS) -> dict[str, Any]:
    """Return the content of an error message with its texts cut if nobody could read them."""
    traceback = [shortened(line, masking, 100_000) for line in content.get("traceback", ())]
    evalue = shortened(str(content.get("evalue", "")), masking)
    return {**content, "evalue": evalue, "traceback": traceback}
