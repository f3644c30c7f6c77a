"""A matplotlib figure that shows itself in any notebook, whatever backend is chosen; imported when one is drawn."""

from __future__ import annotations

import io
import warnings

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that a notebook shows when it is the value of a cell; ``savefig`` and all else are matplotlib's."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        with warnings.catch_warnings():
            # A letter that the font lacks is drawn as a box; nobody can do anything about it here.
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
            self.savefig(stream, format="png")
        return stream.getvalue()
