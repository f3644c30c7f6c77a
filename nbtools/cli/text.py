"""Values as text for terminals: tables, durations, sizes, and what is shown when a stage fails.

Rules of this file: no I/O, nothing heavier than the standard library. Whatever comes from a
notebook passes through ``strip_ansi`` first: no cell may move the user's cursor.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from nbtools.execution.events import Failure

#: How much of an error, and of one line of it, is shown; the notebook holds the rest.
_CONTRACT_LINES = 40
_MESSAGE_LINES = 12
_LINE_WIDTH = 160
_NARROWEST = 4

# Strings to the terminal (titles, links, pictures) first: they end where the next sequence begins.
_SEQUENCES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS: dict[int, str | None] = dict.fromkeys((*range(32), *range(127, 160)))
_CONTROLS.update({9: "\t", 10: "\n"})
# These reorder what is read; a lone surrogate cannot be written to any stream.
_CONTROLS.update(dict.fromkeys((0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_CONTROLS.update(dict.fromkeys(range(0xD800, 0xE000), "\ufffd"))

_SYMBOLS = {
    "passed": ("✓", "+"),
    "failed": ("✗", "x"),
    "gate failed": ("✗", "x"),
    "running": ("▶", ">"),
    "run": ("▶", ">"),
    "up to date": ("=", "="),
    "unchanged inputs": ("=", "="),
    "restore": ("↺", "<"),
    "restored": ("↺", "<"),
    "skipped": ("–", "-"),  # noqa: RUF001 - a dash, not a minus
    "cancelled": ("■", "!"),
    "pruned": ("⊘", "/"),
    "retried": ("↻", "~"),
    "waiting": ("○", "."),
    "blocked": ("○", "."),
}
#: One character for one, so that columns stay where they are.
_ASCII = str.maketrans(
    {
        **dict(_SYMBOLS.values()),
        **dict(zip("…→←│├└─━·×⋮“”‘’—", "~><||`-=.x:\"\"''-", strict=True)),  # noqa: RUF001 - punctuation itself
    }
)

_RED, _GREEN, _YELLOW = "\x1b[31m", "\x1b[32m", "\x1b[33m"
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_FRAME = re.compile(r"^File (\S.*), in (.+)$", re.MULTILINE)


def strip_ansi(text: str) -> str:
    r"""Return ``text`` without anything that a terminal obeys; only line ends and tabs stay.

    >>> strip_ansi("\x1b[31mred\x1b[0m \x1b]0;title\x07and \x1b[2Jcalm\r\n")
    'red and calm\n'
    """
    return _SEQUENCES.sub("", text).translate(_CONTROLS)


def plain(text: str) -> str:
    """Return ``text`` as a single line that is safe to print; its indentation stays."""
    return " ".join(strip_ansi(text).rstrip().splitlines()).expandtabs(4)


def quoted(path: str) -> str:
    """Return ``path`` as it is typed in a shell."""
    return shlex.quote(plain(path))


def encodable(text: str, encoding: str | None) -> str:
    """Return ``text`` as a stream of ``encoding`` can carry it: symbols become ASCII, the rest ``?``."""
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        name = encoding or "ascii"
        return text.translate(_ASCII).encode(name, "replace").decode(name)
    except LookupError:
        return encodable(text, "ascii")
    return text


def symbol(state: str, *, ascii_only: bool = False) -> str:
    """Return the one-character sign of a stage's or run's state; an unknown state has a dot."""
    return _SYMBOLS.get(state, ("·", "."))[ascii_only]


def display_width(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """Return ``text``, cut with an ellipsis if it takes more than ``width`` columns.

    >>> shortened("evaluate", 5)
    'eval…'
    """
    if display_width(text) <= width:
        return text
    kept, used = "", 1
    for char in text:
        used += _columns(char)
        if used > width:
            break
        kept += char
    return f"{kept}…" if width > 0 else ""


def padded(text: str, width: int, align: str = "<") -> str:
    """Return ``text`` filled with blanks, or cut, to exactly ``width`` columns; ``align`` is ``<`` or ``>``."""
    text = shortened(text, width)
    blanks = " " * (width - display_width(text))
    return blanks + text if align == ">" else text + blanks


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, width: int | None = None, align: str = ""
) -> str:
    """Return the rows as aligned columns under their headers, one line a row.

    Parameters
    ----------
    rows
        As many cells as there are headers; None is an empty cell.
    width
        Columns of the terminal; the widest text columns are cut to fit it. None cuts nothing.
    align
        ``<`` or ``>`` for each column; those left out are ``<``, which is text. A column of numbers
        (``>``) is cut only when no text is left to cut.
    """
    align = align.ljust(len(headers), "<")
    cells = [[plain(str(cell)) if cell is not None else "" for cell in row] for row in [headers, *rows]]
    wanted = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    widths = wanted if width is None else _fitted(wanted, align, width - 2 * (len(headers) - 1))
    lines = ("  ".join(map(padded, row, widths, align)).rstrip() for row in cells)
    return "\n".join(line if width is None else shortened(line, width) for line in lines)


def _fitted(widths: Sequence[int], align: str, room: int) -> list[int]:
    """Return the widths, the widest reduced until they fit; numbers give way last."""
    fitted = [min(width, max(room, 1)) for width in widths]
    for kind, least in (("<", _NARROWEST), (">", _NARROWEST), ("<", 1), (">", 1)):
        while sum(fitted) > room:
            width, column = max(
                (width, i) for i, width in enumerate([*fitted, 0]) if f"{align}{kind}"[i] == kind
            )
            if width <= least:
                break
            fitted[column] -= 1
    return fitted


def duration(seconds: float) -> str:
    """Return a length of time for people.

    >>> [duration(s) for s in (0.004, 0.31, 12.4, 185, 7800, 190_000)]
    ['4 ms', '0.3 s', '12 s', '3 m 05 s', '2 h 10 m', '2 d 04 h']
    """
    seconds = max(seconds, 0.0)
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} m"
    return f"{minutes // 1440} d {minutes // 60 % 24:02} h"


def stopwatch(seconds: float) -> str:
    """Return elapsed time as ``mm:ss``, or ``h:mm:ss`` from an hour on."""
    whole = max(int(seconds), 0)
    minutes = f"{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes


def age(then: float, now: float) -> str:
    """Return how long ago ``then`` was; a moment to come, as clocks of two machines differ, is just now.

    >>> age(0, 7200)
    '2 h ago'
    """
    seconds = now - then
    for size, unit in ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"), (10, "s")):
        if seconds >= size:
            return f"{int(seconds // (size if unit != 's' else 1))} {unit} ago"
    return "just now"


def moment(epoch: float) -> str:
    """Return a moment (seconds since the epoch) in local time, such as ``2026-11-23 05:12``."""
    return f"{datetime.fromtimestamp(epoch, UTC).astimezone():%Y-%m-%d %H:%M}"


def size(size_bytes: int) -> str:
    """Return a number of bytes for people.

    >>> [size(n) for n in (0, 900, 1_536, 20_000_000)]
    ['0 B', '900 B', '1.5 KiB', '19 MiB']
    """
    amount, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if round(amount, 0 if amount >= 10 else 1) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if unit != "B" and amount < 9.95 else f"{amount:.0f} {unit}"


def failure(stage: str, notebook: str, failure: Failure, *, color: bool = False) -> str:
    """Return the block that is shown when a stage fails.

    Parameters
    ----------
    notebook
        The stage's notebook as written in ``pipelines.yaml``.
    color
        Whether to set the headline and the failing line apart by colour.
    """
    paint = _paint if color else _unpainted
    head = f"{symbol('failed')} {plain(stage)} failed"
    lines = [paint(head, _RED + _BOLD), f"  {_place(notebook, failure)}"]
    if failure.excerpt:
        lines += ["", *_source(failure.excerpt, paint)]
    lines += ["", *(paint(f"  {line}", _RED) for line in _bounded(failure.message))]
    lines += [f"  {line}" for line in _origin(failure)]
    command = f"nbtools open {quoted(stage)}" if failure.notebook else ""
    rest = {"fix": failure.fix, "executed": failure.notebook, "open": command}
    if shown := [(name, plain(value)) for name, value in rest.items() if value]:
        lines += ["", *(f"  {paint(f'{name}:'.ljust(10), _DIM)}{value}" for name, value in shown)]
    return "\n".join(line.rstrip() for line in lines)


def _paint(text: str, style: str) -> str:
    return f"{style}{text}{_PLAIN}"


def painted(text: str, state: str) -> str:
    """Return ``text`` in the colour of a run's or stage's state."""
    return _paint(text, {"failed": _RED, "cancelled": _YELLOW, "passed": _GREEN}.get(state, _BOLD))


def _unpainted(text: str, style: str) -> str:  # noqa: ARG001 - stands in for _paint
    return text


def _place(notebook: str, failure: Failure) -> str:
    parts = [plain(notebook)] if notebook else []
    if failure.cell:
        parts.append(f"cell {failure.cell}")
    if failure.line:
        parts.append(f"line {failure.line}")
    if failure.kind not in {"error", ""}:
        parts.append(f"({plain(failure.kind)})")
    return ", ".join(parts).replace(", (", " (")


def _source(excerpt: str, paint: Callable[[str, str], str]) -> Iterator[str]:
    for line in strip_ansi(excerpt).expandtabs(4).splitlines():
        cut = shortened(f"    {line}", _LINE_WIDTH)
        yield paint(cut, _BOLD) if line.startswith("→") else cut


def _bounded(text: str) -> list[str]:
    lines = [shortened(line, _LINE_WIDTH) for line in strip_ansi(text).expandtabs(4).strip().splitlines()]
    if len(lines) <= _MESSAGE_LINES:
        return lines
    return [*lines[: _MESSAGE_LINES - 1], f"… {len(lines) - _MESSAGE_LINES + 1} more lines in the notebook"]


def _origin(failure: Failure) -> list[str]:
    """Return where below the cell the error was raised, or what a kernel said before it went."""
    traceback = strip_ansi(failure.traceback)
    if failure.kind == "error":
        frames = _FRAME.findall(traceback)
        return [shortened(f"raised at {frames[-1][0]}, in {frames[-1][1]}", _LINE_WIDTH)] if frames else []
    if failure.kind == "contract":
        lines = [shortened(line, _LINE_WIDTH) for line in traceback.splitlines()]
        return lines if len(lines) <= _CONTRACT_LINES else [*lines[:_CONTRACT_LINES], "…"]
    if failure.kind in {"kernel died", "system"}:
        last = [line for line in traceback.splitlines() if line.strip()][-_MESSAGE_LINES:]
        return [shortened(line, _LINE_WIDTH) for line in last]
    return []
