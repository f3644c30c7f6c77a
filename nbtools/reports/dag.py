"""Pictures of the DAG: text for terminals, Mermaid for documents, SVG for everything else.

Rules of this file: no I/O. A state is told by words and by the kind of line as well as by colour.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from html import escape
from typing import NamedTuple

from nbtools.reports.layout import Box, Item, Layout, arrange

#: More variants of a stage than this are drawn as the first two and the last, unless they stand out.
_MANY = 8
_SHOWN_NAMES = 3
_NOTEWORTHY = frozenset({"failed", "running"})


@dataclass(frozen=True, slots=True)
class Node:
    """A stage, or a variant of one.

    Parameters
    ----------
    key
        Unique name, such as ``train.fit``.
    label
        What is written in the picture.
    group
        Name of the pipeline.
    state
        Empty, ``run``, ``restore``, ``up to date``, ``failed`` or ``running``.
    note
        Anything else about it: the text tree shows it, the SVG when it is pointed at.
    """

    key: str
    label: str
    group: str
    state: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """``target`` needs ``source``; ``label`` names the datasets that go from one to the other."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Stages and what they need of each other; free of cycles, every edge between two of the nodes."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


# Text


class _Line(NamedTuple):
    tree: str
    state: str
    note: str
    needs: str


def as_text(graph: Graph) -> str:
    """Return the DAG as a tree for each pipeline.

    Every stage has one line. It hangs from the stage of its pipeline that all its paths come through;
    what else it needs stands behind the arrow.
    """
    if not graph.nodes:
        return "no stages"
    nodes = {node.key: node for node in graph.nodes}
    needs: dict[str, list[str]] = {key: [] for key in nodes}
    for edge in graph.edges:
        needs[edge.target].append(edge.source)
    order = list(TopologicalSorter(needs).static_order())
    place = {node.key: number for number, node in enumerate(graph.nodes)}
    lines: list[_Line] = []
    for group in dict.fromkeys(node.group for node in graph.nodes):
        lines.append(_Line(_clean(group), "", "", ""))
        parents = _parents([key for key in order if nodes[key].group == group], needs)
        children: dict[str, list[Node]] = {}
        for key in sorted(parents, key=place.__getitem__):
            children.setdefault(parents[key], []).append(nodes[key])
        others = {key: [other for other in needs[key] if other != parents[key]] for key in parents}
        lines += _branches(children, {key: _needed(others[key], nodes, group) for key in others})
    return _aligned(lines)


def _parents(keys: Sequence[str], needs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return, for ``keys`` in running order, the nearest one that all paths to each come through.

    It is empty for those where paths begin in different places: the immediate dominator, after
    Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm" (2001), for graphs without loops.
    """
    parents: dict[str, str] = {}
    depth = {"": 0}
    for key in keys:
        above = [other for other in needs[key] if other in parents]
        meeting = above[0] if above else ""
        for other in above[1:]:
            while meeting != other:
                if depth[meeting] >= depth[other]:
                    meeting = parents[meeting]
                else:
                    other = parents[other]  # noqa: PLW2901 - climbs towards the meeting point
        parents[key] = meeting
        depth[key] = depth[meeting] + 1
    return parents


def _branches(children: Mapping[str, Sequence[Node]], needed: Mapping[str, str]) -> list[_Line]:
    lines: list[_Line] = []
    pending = [(entry, "", last) for entry, last in _entries(children, "")]
    while pending:
        entry, indent, last = pending.pop()
        corner, deeper = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if isinstance(entry, str):
            lines.append(_Line(f"{indent}{corner}{entry}", "", "", ""))
            continue
        tree = f"{indent}{corner}{_clean(entry.label)}"
        lines.append(_Line(tree, entry.state, _clean(entry.note), needed[entry.key]))
        pending += [(below, indent + deeper, final) for below, final in _entries(children, entry.key)]
    return lines


def _entries(children: Mapping[str, Sequence[Node]], parent: str) -> list[tuple[Node | str, bool]]:
    """Return what hangs from ``parent``, last first; of many alike only some, and a line for the rest."""
    found: list[Node | str] = []
    families: dict[str, list[Node]] = {}
    for node in children.get(parent, ()):
        family = node.key if node.key in children else node.label.partition("[")[0]
        families.setdefault(family, []).append(node)
    for members in families.values():
        found += members if len(members) <= _MANY else _folded(members)
    return [(entry, number == 0) for number, entry in enumerate(reversed(found))]


def _folded(members: Sequence[Node]) -> list[Node | str]:
    shown = [node for node in members[2:-1] if node.state in _NOTEWORTHY]
    hidden = [node for node in members[2:-1] if node.state not in _NOTEWORTHY]
    states = [node.state for node in hidden]
    every = dict.fromkeys(filter(None, states))
    counts = ", ".join(f"{states.count(state)} {state}" if len(every) > 1 else state for state in every)
    rest = [f"⋮  {len(hidden)} more{f': {counts}' if counts else ''}"] if hidden else []
    return [*members[:2], *shown, *rest, members[-1]]


def _needed(others: Sequence[str], nodes: Mapping[str, Node], group: str) -> str:
    """Return the names of ``others``, variants of one stage counted, with the pipeline if it is another one."""
    counts: dict[str, list[str]] = {}
    for key in others:
        node = nodes[key]
        prefix = "" if node.group == group else f"{node.group}."
        counts.setdefault(prefix + node.label.partition("[")[0], []).append(prefix + node.label)
    names = [f"{name} ×{len(every)}" if len(every) > 1 else every[0] for name, every in counts.items()]  # noqa: RUF001
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES + 1 else ""
    return _clean(", ".join(names[:_SHOWN_NAMES] if more else names)) + more


def _aligned(lines: Sequence[_Line]) -> str:
    """Return the lines with states and notes below each other; a very long name does not move the others."""
    tree = min(max(_width(line.tree) for line in lines), 56)
    state = max(len(line.state) for line in lines)
    note = min(max(_width(line.note) for line in lines), 48)
    texts = []
    for line in lines:
        parts = [(line.tree, tree), (line.state, state), (line.note, note)]
        text = "  ".join(part.ljust(width + len(part) - _width(part)) for part, width in parts if width)
        texts.append((f"{text}  ← {line.needs}" if line.needs else text).rstrip())
    return "\n".join(texts)


def _clean(text: str) -> str:
    """Return ``text`` on one line and without characters that a terminal or XML would trip over."""
    return "".join(char if char.isprintable() else "·" for char in text)


def _width(text: str) -> int:
    """Return the columns that ``text`` takes where every letter is equally wide."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


# Mermaid

_MERMAID_CLASSES = {
    "run": "fill:#dbeafe,stroke:#1d4ed8,color:#172554,stroke-width:2px",
    "restore": "fill:#ede9fe,stroke:#6d28d9,color:#2e1065,stroke-dasharray:5 3",
    "up to date": "fill:#dcfce7,stroke:#15803d,color:#052e16",
    "failed": "fill:#fee2e2,stroke:#b91c1c,color:#450a0a,stroke-width:3px",
    "gate failed": "fill:#fee2e2,stroke:#b91c1c,color:#450a0a,stroke-width:3px",
    "blocked": "fill:#f3f4f6,stroke:#6b7280,color:#111827,stroke-dasharray:2 3",
    "skipped": "fill:#f3f4f6,stroke:#9ca3af,color:#6b7280,stroke-dasharray:2 3",
    "running": "fill:#fef3c7,stroke:#b45309,color:#451a03,stroke-width:2px",
}


def as_mermaid(graph: Graph) -> str:
    """Return the DAG as a Mermaid flowchart (of Mermaid 10 or newer)."""
    ids = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    if not graph.nodes:
        lines.append('  none["no stages"]')
    for number, group in enumerate(dict.fromkeys(node.group for node in graph.nodes)):
        lines.append(f'  subgraph g{number}["{_mermaid(group)}"]')
        for node in graph.nodes:
            if node.group == group:
                state = f"<br/>{_mermaid(node.state)}" if node.state else ""
                lines.append(f'    {ids[node.key]}["{_mermaid(node.label)}{state}"]')
        lines.append("  end")
    for (source, target), label in _joined(graph.edges).items():
        arrow = f'-->|"{_mermaid(label)}"|' if label else "-->"
        lines.append(f"  {ids[source]} {arrow} {ids[target]}")
    for state, style in _MERMAID_CLASSES.items():
        if members := [ids[node.key] for node in graph.nodes if node.state == state]:
            name = state.replace(" ", "_")
            lines += [f"  classDef {name} {style}", f"  class {','.join(members)} {name}"]
    return "\n".join(lines)


def _mermaid(text: str) -> str:
    """Return ``text`` as it stands between quotes: all but letters, digits and the harmless as entities.

    Mermaid reads Markdown, HTML, and words of its own language there too.
    """
    return (
        "".join(char if char.isalnum() or char in " _,=" else f"#{ord(char)};" for char in _clean(text))
        or " "
    )


def _joined(edges: Iterable[Edge]) -> dict[tuple[str, str], str]:
    """Return the labels of all edges between each two nodes."""
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for edge in edges:
        found = labels.setdefault((edge.source, edge.target), {})
        if edge.label:
            found[edge.label] = None
    return {ends: ", ".join(found) for ends, found in labels.items()}


# SVG

_SVG_LABEL, _SVG_LETTER = 38, 7.9  # letters at most; pixels of a letter at 13 px in a wide font
_SVG_LEAST_WIDTH = 96.0
_SVG_LIGHT = {
    "page": "#fff", "ink": "#1f2328", "soft": "#59636e", "box": "#fff", "rim": "#8c959f", "frame": "#f6f8fa",
    "edge": "#9aa4af", "run": "#0550ae", "restore": "#6639ba", "current": "#1a7f37", "failed": "#cf222e",
    "running": "#953800",
}  # fmt: skip
_SVG_DARK = {
    "page": "#0d1117", "ink": "#f0f6fc", "soft": "#9198a1", "box": "#1c2129", "rim": "#6e7681", "frame": "#151b23",
    "edge": "#656c76", "run": "#79b8ff", "restore": "#c4a6ff", "current": "#56d364", "failed": "#ff8e85",
    "running": "#f0a35e",
}  # fmt: skip
# Colours in full instead of CSS variables, which many programs that draw SVG do not know.
_SVG_COLORS = """
  .nbt-dag .page { fill:<page> }
  .nbt-dag .frame { fill:<frame>; stroke:<rim>; stroke-opacity:.45 }
  .nbt-dag .box { fill:<box>; stroke:<rim>; stroke-width:1.25 }
  .nbt-dag .edge { fill:none; stroke:<edge>; stroke-width:1.5 }
  .nbt-dag .edge:hover { stroke:<ink>; stroke-width:2.5 }
  .nbt-dag .tip { fill:<edge> }
  .nbt-dag text { fill:<ink> }
  .nbt-dag .name, .nbt-dag .state { fill:<soft> }
  .nbt-dag .s-run .box { stroke:<run>; stroke-width:2 }
  .nbt-dag .s-run .state { fill:<run> }
  .nbt-dag .s-restore .box { stroke:<restore>; stroke-width:1.5; stroke-dasharray:6 3 }
  .nbt-dag .s-restore .state { fill:<restore> }
  .nbt-dag .s-up-to-date .box { stroke:<current> }
  .nbt-dag .s-up-to-date .state { fill:<current> }
  .nbt-dag .s-gate-failed .box, .nbt-dag .s-failed .box { stroke:<failed>; stroke-width:3 }
  .nbt-dag .s-gate-failed .state, .nbt-dag .s-failed .state { fill:<failed>; font-weight:700 }
  .nbt-dag .s-running .box { stroke:<running>; stroke-width:2; stroke-dasharray:2 3 }
  .nbt-dag .s-running .state { fill:<running>; font-weight:700 }
"""


def _colored(palette: Mapping[str, str]) -> str:
    return re.sub(r"<(\w+)>", lambda match: palette[match[1]], _SVG_COLORS)


_SVG_STYLE = f"""
  .nbt-dag {{ font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif }}
  .nbt-dag text {{ font-size:13px }}
  .nbt-dag .name {{ font-weight:600 }}
  .nbt-dag .state {{ font-size:11px }}
  {_colored(_SVG_LIGHT).strip()}
  @media (prefers-color-scheme:dark) {{
  {_colored(_SVG_DARK).strip()}
  }}
"""
_SVG_SIGNS = {
    "run": "▸",
    "restore": "↺",
    "up to date": "✓",
    "failed": "✕",
    "gate failed": "✕",
    "skipped": "»",
    "running": "●",
}


def as_svg(graph: Graph) -> str:
    """Return the DAG as an SVG document that stands alone, for light and dark surroundings."""
    box_height = 46.0 if any(node.state for node in graph.nodes) else 34.0
    items = [Item(node.key, node.group, _box_width(node)) for node in graph.nodes]
    joined = _joined(graph.edges)
    layout = arrange(items, joined, box_height=box_height)
    width, height = (layout.width, layout.height) if graph.nodes else (160.0, 56.0)
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nbt-dag" role="img" aria-label="{_described(graph)}" {size}>',
        f"<title>{_counted(graph)}</title>",
        f"<desc>{_described(graph)}</desc>",
        f"<style>{_SVG_STYLE}</style>",
        '<rect class="page" width="100%" height="100%" rx="8"/>',
    ]
    if not graph.nodes:
        lines.append('<text class="name" x="80" y="32" text-anchor="middle">no stages</text>')
    lines += [_frame(name, frame) for name, frame in layout.frames.items()]
    lines += [_edge(link, label, layout) for link, label in joined.items()]
    lines += [_box(node, layout.boxes[node.key]) for node in graph.nodes]
    return "\n".join([*lines, "</svg>"])


def _counted(graph: Graph) -> str:
    pipelines = len({node.group for node in graph.nodes})
    return f"Stages: {len(graph.nodes)}; pipelines: {pipelines}"


def _described(graph: Graph) -> str:
    """Return what the picture shows, for those who hear it."""
    parts = []
    for group in dict.fromkeys(node.group for node in graph.nodes):
        members = [node for node in graph.nodes if node.group == group]
        names = [f"{node.label} ({node.state})" if node.state else node.label for node in members[:_MANY]]
        more = f" and {len(members) - _MANY} more" if len(members) > _MANY else ""
        parts.append(f"{group}: {', '.join(names)}{more}")
    return escape(_clean("; ".join(parts))) or "no stages"


def _box_width(node: Node) -> float:
    letters = max(_width(_fitting(node.label)), _width(node.state) * 0.85 + 2)
    return max(letters * _SVG_LETTER + 24, _SVG_LEAST_WIDTH)


def _fitting(label: str) -> str:
    """Return a label of at most so many letters; what is left out comes from its middle."""
    label = _clean(label)
    if _width(label) <= _SVG_LABEL:
        return label
    head, tail = label[: _SVG_LABEL // 2], label[-_SVG_LABEL // 2 + 1 :]
    while _width(head) > _SVG_LABEL // 2:
        head = head[:-1]
    while _width(tail) > _SVG_LABEL // 2 - 1:
        tail = tail[1:]
    return f"{head}…{tail}"


def _frame(name: str, frame: Box) -> str:
    # A name is cut where the frame ends; there may be only one narrow box in it.
    letters = max(int((frame.width - 20) / _SVG_LETTER), 1)
    shown = _fitting(name)
    while _width(shown) > letters:
        shown = shown.rstrip("…")[:-1] + "…" if len(shown) > 1 else ""
    return (
        f"<g><title>{escape(_clean(name))}</title>{_rect('frame', frame, 10)}"
        f'<text class="name" x="{frame.x + 12:.1f}" y="{frame.y + 23:.1f}">{escape(shown)}</text></g>'
    )


def _box(node: Node, box: Box) -> str:
    style = f' class="s-{node.state.replace(" ", "-")}"' if node.state in _SVG_SIGNS else ""
    about = "\n".join(filter(None, map(_clean, (node.key, node.state, node.note))))
    center = box.x + box.width / 2
    baseline = box.y + 20 if node.state else box.middle + 4.5
    lines = [
        f'<text x="{center:.1f}" y="{baseline:.1f}" text-anchor="middle">{escape(_fitting(node.label))}</text>'
    ]
    if node.state:
        sign = f"{_SVG_SIGNS.get(node.state, '')} {_clean(node.state)}".strip()
        lines.append(
            f'<text class="state" x="{center:.1f}" y="{box.y + 36:.1f}" text-anchor="middle">{escape(sign)}</text>'
        )
    return f"<g{style}><title>{escape(about)}</title>{_rect('box', box, 7)}{''.join(lines)}</g>"


def _rect(style: str, box: Box, radius: int) -> str:
    return (
        f'<rect class="{style}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}"'
        f' height="{box.height:.1f}" rx="{radius}"/>'
    )


def _edge(link: tuple[str, str], label: str, layout: Layout) -> str:
    points = layout.routes[link]
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for number in range(1, len(points)):
        (x0, y0), (x, y) = points[number - 1], points[number]
        if number % 2:
            bend = (x0 + x) / 2
            path += f"C{bend:.1f} {y0:.1f} {bend:.1f} {y:.1f} {x:.1f} {y:.1f}"
        else:
            path += f"H{x:.1f}"
    x, y = points[-1]
    about = f"{link[0]} → {link[1]}" + (f": {label}" if label else "")
    return (
        f'<g><title>{escape(_clean(about))}</title><path class="edge" d="{path}"/>'
        f'<path class="tip" d="M{x:.1f} {y:.1f}l-8 -4v8z"/></g>'
    )
