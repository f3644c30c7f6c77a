"""The page of an executed notebook shows everything and runs nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nbtools.tracking.notebook_html import clean, render
from tests.projects import notebook


def test_page_shows_headings_tables_and_pictures_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    content = notebook("1")
    content["cells"].append(
        {
            "cell_type": "markdown",
            "id": "m",
            "metadata": {},
            "source": "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        }
    )
    content["cells"][1]["outputs"] = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {
                "text/html": "<style>td {color: red}</style><table><thead><tr><th>auc</th></tr></thead></table>",
                "text/plain": "",
            },
        },
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"image/png": "iVBORw0KGgo=", "text/plain": ""},
        },
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(content))
    page = render(path)
    assert re.search(r"<h1[^>]*>Title", page)
    assert "<th>auc</th>" in page
    assert "<td>2</td>" in page
    assert "td {color: red}" not in page
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in page
    assert re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?https?:""", page) == []


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="javascript:alert(1)">x</a>',
        '<a href="data:text/html,<script>alert(1)</script>">x</a>',
        '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
        '<svg onload="alert(1)"><script>alert(1)</script></svg>',
        '<div style="background: url(javascript:alert(1))">x</div>',
        '<object data="javascript:alert(1)"></object>',
        "<SCRIPT >alert(1)</SCRIPT ><style>@import 'javascript:alert(1)'</style>",
    ],
)
def test_nothing_that_could_run_is_left(hostile: str) -> None:
    assert "alert(1)" not in clean(f"<p>before</p>{hostile}<p>after</p>")
    assert "<p>after</p>" in clean(f"<p>before</p>{hostile}<p>after</p>")


def test_svg_stays_a_picture() -> None:
    drawn = '<svg viewBox="0 0 1 1"><path d="M0 0" style="fill: red"></path><text>label</text></svg>'
    assert "<path" in clean(drawn)
    assert 'd="M0 0"' in clean(drawn)
    assert "label" in clean(drawn)
