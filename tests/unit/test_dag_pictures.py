from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbtools.reports.dag import Edge, Graph, Node, as_mermaid, as_svg, as_text
from nbtools.reports.layout import Box, Item, Layout, arrange

SVG = "{http://www.w3.org/2000/svg}"


def stages(text: str, state: str = "") -> tuple[Node, ...]:
    """Return a node for each ``pipeline.stage`` in ``text``."""
    return tuple(Node(key, key.split(".", 1)[1], key.split(".", 1)[0], state) for key in text.split())


EXAMPLE = Graph(
    stages(
        "data.ingest data.validate data.features train.fit train.evaluate train.package deploy.release deploy.smoke"
    ),
    tuple(
        Edge(source, target, "x")
        for source, target in [
            ("data.ingest", "data.validate"),
            ("data.ingest", "data.features"),
            ("data.features", "train.fit"),
            ("data.features", "train.evaluate"),
            ("data.features", "train.package"),
            ("data.features", "deploy.smoke"),
            ("train.fit", "train.evaluate"),
            ("train.fit", "train.package"),
            ("train.evaluate", "train.package"),
            ("train.evaluate", "deploy.smoke"),
            ("train.package", "deploy.release"),
            ("train.package", "deploy.smoke"),
            ("deploy.release", "deploy.smoke"),
        ]
    ),
)


def sweep(count: int, failed: int = -1) -> Graph:
    variants = [
        Node(f"train.fit[a={n}]", f"fit[a={n}]", "train", "failed" if n == failed else "up to date")
        for n in range(count)
    ]
    ends = Node("data.features", "features", "data"), Node("train.evaluate", "evaluate", "train", "run")
    edges = [Edge("data.features", node.key) for node in variants]
    edges += [Edge(node.key, "train.evaluate") for node in variants]
    return Graph((ends[0], *variants, ends[1]), tuple(edges))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any DAG of up to 12 nodes with any names; edges lead from earlier to later nodes."""
    count = draw(st.integers(0, 12))
    names = st.text(max_size=50)
    states = st.sampled_from(["", "run", "restore", "up to date", "failed", "running"])
    nodes = [
        Node(
            f"k{n}",
            draw(names),
            draw(st.sampled_from(["data", "<train>", "a & b"])),
            draw(states),
            draw(names),
        )
        for n in range(count)
    ]
    pairs = list(itertools.combinations([node.key for node in nodes], 2))
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=25)) if pairs else []
    return Graph(tuple(nodes), tuple(Edge(source, target, draw(names)) for source, target in chosen))


def laid_out(graph: Graph) -> Layout:
    items = [Item(node.key, node.group, 100.0) for node in graph.nodes]
    return arrange(items, [(edge.source, edge.target) for edge in graph.edges], box_height=40.0)


def overlap(one: Box, other: Box) -> bool:
    apart = one.right <= other.x or other.right <= one.x or one.bottom <= other.y or other.bottom <= one.y
    return not apart


# Layout


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_every_edge_leads_from_left_to_right(graph: Graph) -> None:
    layout = laid_out(graph)
    for (source, target), points in layout.routes.items():
        assert layout.boxes[source].right < layout.boxes[target].x
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert points[0] == pytest.approx([layout.boxes[source].right, layout.boxes[source].middle])
        assert points[-1] == pytest.approx([layout.boxes[target].x, layout.boxes[target].middle])


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_no_two_boxes_and_no_two_frames_overlap(graph: Graph) -> None:
    layout = laid_out(graph)
    for boxes in (layout.boxes, layout.frames):
        for one, other in itertools.combinations(boxes.values(), 2):
            assert not overlap(one, other)


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_no_line_runs_through_a_box_and_all_is_inside_the_picture(graph: Graph) -> None:
    layout = laid_out(graph)
    for points in layout.routes.values():
        # Curves keep to the gaps between columns; only the straight parts pass boxes.
        for (x0, y), (x, _) in zip(points[1:-1:2], points[2::2], strict=True):
            assert not any(
                box.x < x and x0 < box.right and box.y < y < box.bottom for box in layout.boxes.values()
            )
            assert 0 < y < layout.height
    for box in (*layout.boxes.values(), *layout.frames.values()):
        assert box.x > 0
        assert box.y > 0
        assert box.right < layout.width
        assert box.bottom < layout.height


def test_every_box_lies_in_the_frame_of_its_pipeline() -> None:
    layout = laid_out(EXAMPLE)
    for node in EXAMPLE.nodes:
        box, frame = layout.boxes[node.key], layout.frames[node.group]
        assert frame.x < box.x
        assert frame.y < box.y
        assert box.right < frame.right
        assert box.bottom < frame.bottom


def test_pipelines_that_follow_one_another_stand_side_by_side() -> None:
    frames = laid_out(EXAMPLE).frames
    assert frames["data"].right < frames["train"].x
    assert frames["train"].right < frames["deploy"].x


def test_pipelines_that_need_each_other_lie_above_each_other() -> None:
    nodes = stages("data.a train.b data.c")
    frames = laid_out(Graph(nodes, (Edge("data.a", "train.b"), Edge("train.b", "data.c")))).frames
    assert frames["data"].bottom < frames["train"].y


def test_a_cycle_is_refused() -> None:
    nodes = stages("a.b a.c")
    with pytest.raises(ValueError, match="cycle"):
        as_svg(Graph(nodes, (Edge("a.b", "a.c"), Edge("a.c", "a.b"))))


# SVG


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_svg_is_well_formed_for_any_names(graph: Graph) -> None:
    root = ET.fromstring(as_svg(graph))
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title") is not None
    assert root.find(f"{SVG}desc") is not None
    assert not list(root.iter(f"{SVG}script"))


def test_svg_shows_names_as_text_and_states_as_words() -> None:
    root = ET.fromstring(as_svg(Graph((Node("a.b", "<script>x</script>", "a & b", "failed"),))))
    texts = [item.text or "" for item in root.iter(f"{SVG}text")]
    assert "<script>x</script>" in texts
    assert any("failed" in text for text in texts)


def test_svg_tells_which_datasets_go_along_an_edge() -> None:
    picture = as_svg(Graph(stages("a.b a.c"), (Edge("a.b", "a.c", "flights"), Edge("a.b", "a.c", "weather"))))
    assert "a.b → a.c: flights, weather" in picture


def test_svg_cuts_long_names_and_keeps_them_whole_where_one_points() -> None:
    root = ET.fromstring(as_svg(Graph((Node("a.b", "x" * 300, "a", note="y" * 300),))))
    assert max(len(item.text or "") for item in root.iter(f"{SVG}text")) <= 40
    assert "y" * 300 in "".join(item.text or "" for item in root.iter(f"{SVG}title"))


def test_svg_has_its_colours_in_full_for_programs_that_know_no_variables() -> None:
    drawn = as_svg(EXAMPLE)
    assert "var(" not in drawn
    assert ".page { fill:#fff }" in drawn.partition("@media")[0]


def test_svg_is_drawn_for_an_empty_graph() -> None:
    assert "no stages" in as_svg(Graph())


def test_svg_of_a_thousand_stages_is_drawn() -> None:
    chains = [
        Node(f"p.{row}.{step}", f"s{row}.{step}", f"p{row % 3}") for row in range(100) for step in range(10)
    ]
    edges = [Edge(f"p.{row}.{step}", f"p.{row}.{step + 1}") for row in range(100) for step in range(9)]
    assert as_svg(Graph(tuple(chains), tuple(edges))).count('class="box"') == 1000


# Mermaid


def test_mermaid_puts_pipelines_into_subgraphs_and_datasets_on_arrows() -> None:
    picture = as_mermaid(
        Graph(stages("data.a train.b", "up to date"), (Edge("data.a", "train.b", "train_set"),))
    )
    assert picture.splitlines() == [
        "flowchart LR",
        '  subgraph g0["data"]',
        '    n0["a<br/>up to date"]',
        "  end",
        '  subgraph g1["train"]',
        '    n1["b<br/>up to date"]',
        "  end",
        '  n0 -->|"train_set"| n1',
        "  classDef up_to_date fill:#dcfce7,stroke:#15803d,color:#052e16",
        "  class n0,n1 up_to_date",
    ]


def test_mermaid_escapes_what_it_would_read_as_its_own_language() -> None:
    picture = as_mermaid(Graph((Node("a.b", 'x"]; <b>`#quot;', "end"),)))
    assert '    n0["x#34;#93;#59; #60;b#62;#96;#35;quot#59;"]' in picture


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_mermaid_has_no_stray_quotes_or_brackets_for_any_names(graph: Graph) -> None:
    for line in as_mermaid(graph).splitlines():
        assert line.count('"') in {0, 2}
        assert line.count("<") == line.count("<br/>")
        assert line.count("[") == line.count("]") <= 1


def test_mermaid_draws_an_empty_graph() -> None:
    assert as_mermaid(Graph()) == 'flowchart LR\n  none["no stages"]'


# Text


def test_text_hangs_stages_from_what_they_need_and_names_the_rest() -> None:
    assert as_text(EXAMPLE).splitlines() == [
        "data",
        "└─ ingest",
        "   ├─ validate",
        "   └─ features",
        "train",
        "└─ fit          ← data.features",
        "   ├─ evaluate  ← data.features",
        "   └─ package   ← data.features, evaluate",
        "deploy",
        "└─ release      ← train.package",
        "   └─ smoke     ← data.features, train.evaluate, train.package",
    ]


def test_text_hangs_a_join_from_where_its_branches_part() -> None:
    graph = Graph(
        stages("p.a p.b p.c p.d"), tuple(Edge(f"p.{x}", f"p.{y}") for x, y in ("ab", "ac", "bd", "cd"))
    )
    assert as_text(graph).splitlines()[1:] == ["└─ a", "   ├─ b", "   ├─ c", "   └─ d  ← b, c"]


def test_text_draws_some_of_many_variants_and_counts_the_rest() -> None:
    lines = as_text(sweep(50, failed=17)).splitlines()
    assert len(lines) == 9
    assert any("fit[a=17]" in line and "failed" in line for line in lines)
    assert any("46 more: up to date" in line for line in lines)
    assert "← fit ×50" in lines[-1]  # noqa: RUF001 - the sign


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_text_is_free_of_control_characters_for_any_names(graph: Graph) -> None:
    assert all(line.isprintable() for line in as_text(graph).split("\n"))


def test_text_of_a_long_chain_does_not_recurse() -> None:
    nodes = stages(" ".join(f"p.s{n}" for n in range(1200)))
    edges = tuple(Edge(f"p.s{n}", f"p.s{n + 1}") for n in range(1199))
    assert len(as_text(Graph(nodes, edges)).splitlines()) == 1201
