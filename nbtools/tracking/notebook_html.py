"""An executed notebook and its HTML page as artifacts of a run; imported only by the process that ``tracker`` starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from nbtools.tracking.worker import attach_file

_FOLDER = "notebook"


def attach_notebook(uri: str, run_id: str, path: str) -> None:
    """Log the notebook at ``path``, and how it looks."""
    attach_file(uri, run_id, path, _FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / f"{Path(path).stem}.html"
        page.write_text(render(Path(path)), encoding="utf-8")
        attach_file(uri, run_id, str(page), _FOLDER)


def render(path: Path) -> str:
    """Return one self-contained page; scripts in outputs are taken out, never run."""
    notebook = nbformat.read(path, as_version=4)
    exporter = HTMLExporter(template_name="lab", sanitize_html=True, embed_images=True)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})
    return str(body)
