"""An executed notebook and its HTML page as artifacts of a run; imported only by the process that ``tracker`` starts."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

import bleach
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from nbconvert import HTMLExporter

from nbtools.tracking.worker import attach_file

_FOLDER = "notebook"
_TAGS = frozenset(
    re.findall(
        r"\w+",
        """
        a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure
        h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre s samp section small span strong sub summary
        sup table tbody td tfoot th thead tr u ul var
        circle clipPath defs desc ellipse g line linearGradient marker path polygon polyline
        radialGradient rect stop svg text title tspan use
        """,
    )
)
_LINKS = frozenset({"href", "xlink:href"})
_WITH_CONTENT = re.compile(r"<(script|style|iframe|object|template)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)


def attach_notebook(uri: str, attempt: str, path: str) -> None:
    """Log the notebook at ``path``, and how it looks."""
    attach_file(uri, attempt, path, _FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / f"{Path(path).stem}.html"
        page.write_text(render(Path(path)), encoding="utf-8")
        attach_file(uri, attempt, str(page), _FOLDER)


def render(path: Path) -> str:
    """Return one page that loads nothing from elsewhere; scripts in outputs are taken out, never run."""
    notebook = nbformat.read(path, as_version=4)
    body, _ = _exporter().from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})
    return str(body)


@cache
def _exporter() -> HTMLExporter:
    """Return what makes pages; its templates are compiled once."""
    exporter = HTMLExporter(template_name="lab", sanitize_html=True, embed_images=True)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = exporter.widget_renderer_url = ""
    # nbconvert's own filter shows headings, paragraphs and tables as source text.
    exporter.register_filter("clean_html", clean)
    return exporter


def clean(markup: str | bytes) -> str:
    """Return HTML or SVG without anything that could run: scripts, handlers, frames, odd links."""
    text = markup.decode("utf-8", "replace") if isinstance(markup, bytes) else str(markup)
    return str(
        bleach.clean(
            _WITH_CONTENT.sub("", text),
            tags=_TAGS,
            attributes=_harmless,
            protocols={"http", "https", "mailto", "data"},
            css_sanitizer=CSSSanitizer(),
            strip=True,
        )
    )


def _harmless(tag: str, name: str, value: str) -> bool:
    if name.lower().startswith("on"):
        return False
    if name in _LINKS:
        return not value.strip().lower().startswith("data:")
    if name == "src":
        return tag == "img" and not re.match(r"data:(?!image/)", value.strip(), re.IGNORECASE)
    return name not in {"srcset", "action", "formaction", "srcdoc"}
