"""Values of secrets are replaced by a mark in everything that nbtools keeps or shows."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MASK = "●●●●●●"
#: Shorter values would mask half of every text.
SHORTEST = 4


class Masking:
    """Replaces secret values in texts.

    Parameters
    ----------
    secrets
        The values, by environment variable.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms = {form for value in secrets.values() for form in _forms(value)}
        # The longest first: one form may be part of another.
        self._forms = sorted(forms, key=len, reverse=True)

    @property
    def reach(self) -> int:
        """The longest text that is replaced, in characters."""
        return len(self._forms[0]) if self._forms else 0

    def text(self, text: str, *, begins_cut: bool = False, ends_cut: bool = False) -> str:
        """Return ``text`` without any secret.

        Parameters
        ----------
        begins_cut, ends_cut
            Whether something was left out before or after it: there it may begin with the end of a secret,
            or end with the beginning of one, which are masked too.
        """
        (masked,) = self._across([text], begins_cut=begins_cut, ends_cut=ends_cut)
        return masked

    def pieces(
        self, pieces: Sequence[tuple[str, str]], *, begins_cut: bool = False, ends_cut: bool = False
    ) -> list[str]:
        """Return the texts of pieces (stream, text) without any secret, be it in several pieces of a stream."""
        if not self._forms:
            return [text for _, text in pieces]
        by_stream: dict[str, list[str]] = {}
        for stream, text in pieces:
            by_stream.setdefault(stream, []).append(text)
        masked = {
            stream: iter(self._across(texts, begins_cut=begins_cut, ends_cut=ends_cut))
            for stream, texts in by_stream.items()
        }
        return [next(masked[stream]) for stream, _ in pieces]

    def value(self, value: Any) -> Any:
        """Return JSON-like ``value`` without any secret, in keys and at any depth."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.value(item) for item in value)
        return value

    def _across(self, texts: list[str], *, begins_cut: bool, ends_cut: bool) -> list[str]:
        """Return texts that follow each other without any secret; one that spans some is marked in the first."""
        whole = texts[0] if len(texts) == 1 else "".join(texts)
        spans = deque(self._spans(whole, begins_cut=begins_cut, ends_cut=ends_cut))
        if not spans:
            return texts
        masked, begin = [], 0
        for text in texts:
            end, at, kept = begin + len(text), begin, []
            while spans and spans[0][0] < end:
                first, last = spans[0]
                kept += [whole[at:first], MASK if first >= begin else ""]
                at = min(last, end)
                if last > end:
                    break
                spans.popleft()
            masked.append("".join([*kept, whole[at:end]]))
            begin = end
        return masked

    def _spans(self, text: str, *, begins_cut: bool, ends_cut: bool) -> list[tuple[int, int]]:
        """Return where secrets stand, in order; those that overlap as one."""
        found = []
        for form in self._forms:
            at = text.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = text.find(form, at + len(form))
            if begins_cut and (known := _overlap(form, text)):
                found.append((0, known))
            if ends_cut and (known := _overlap(text, form)):
                found.append((len(text) - known, len(text)))
        merged: list[tuple[int, int]] = []
        for first, last in sorted(found):
            if merged and first < merged[-1][1]:
                merged[-1] = merged[-1][0], max(last, merged[-1][1])
            else:
                merged.append((first, last))
        return merged


def _overlap(before: str, after: str) -> int:
    """Return how many characters, at most, end the one text and begin the other.

    >>> _overlap("hunter2", "r2d2")
    2
    """
    longest = min(len(before), len(after))
    return next((n for n in range(longest, 0, -1) if before.endswith(after[:n])), 0)


NO_SECRETS = Masking({})


def _forms(value: str) -> set[str]:
    """Return how ``value``, or a line of it, may stand in an output."""
    lines = [line for line in value.splitlines() if len(line) >= 2 * SHORTEST]
    forms = {form for text in (value, *lines) for form in _escaped(text)}
    # A notebook is JSON, in which each of these may stand escaped once more.
    forms.update([json.dumps(form, ensure_ascii=False)[1:-1] for form in forms])
    return {form for form in forms if len(form) >= SHORTEST}


def _escaped(value: str) -> Iterator[str]:
    """Yield ``value`` as it is, and as Python, JSON, HTML, URLs and base64 write it."""
    raw = value.encode("utf-8", "surrogateescape")
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    for written in (repr(value), ascii(value), repr(raw)[1:]):
        yield written[1:-1]
    yield repr("'\"" + value)[4:-1]  # among quotes of both kinds
    for double, single in (('"', "'"), ("&quot;", "&#x27;"), ("&#34;", "&#39;")):
        yield html.escape(value, quote=False).replace('"', double).replace("'", single)
    for kept in ("", "/"):
        yield urllib.parse.quote(raw, safe=kept)
        yield urllib.parse.quote_plus(raw, safe=kept)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")
