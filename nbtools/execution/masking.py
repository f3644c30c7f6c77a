"""Values of secrets are replaced by a mark in everything that nbtools keeps or shows."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Mapping
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

    def text(self, text: str) -> str:
        """Return ``text`` without any secret."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

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


def _forms(value: str) -> set[str]:
    """Return how ``value`` may stand in an output: as it is, escaped, quoted for URLs, in base64."""
    raw = value.encode("utf-8", "surrogateescape")
    forms = {value, json.dumps(value)[1:-1], repr(value)[1:-1], urllib.parse.quote(raw, safe="")}
    forms.add(base64.b64encode(raw).decode().rstrip("="))
    forms.update(line for line in value.splitlines() if len(line) >= 2 * SHORTEST)
    # A notebook is JSON, in which each of these may stand escaped once more.
    forms.update([json.dumps(form, ensure_ascii=False)[1:-1] for form in forms])
    return {form for form in forms if len(form) >= SHORTEST}
