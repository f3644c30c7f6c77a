"""The stages of a project as a graph that can be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nbtools.pipeline.dag import Dag
from nbtools.reports.dag import Edge, Graph, Node


def stage_graph(dag: Dag, keys: Iterable[str], states: Mapping[str, str]) -> Graph:
    """Return the variants ``keys`` with the datasets that join them.

    Parameters
    ----------
    keys
        Variants in running order, everything that they need included.
    states
        What is shown of a variant, by key; nothing where it is missing.
    """
    nodes = []
    edges: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        variant = dag.variants[key]
        label = key.removeprefix(f"{variant.stage.pipeline}.")
        nodes.append(Node(key, label, variant.stage.pipeline, states.get(key, ""), variant.stage.notebook))
        for before in variant.upstream:
            edges.setdefault((before, key), [])
        for item in variant.inputs:
            for producer in item.producers:
                edges[producer, key].append(item.dataset)
    joined = [Edge(source, target, ", ".join(names)) for (source, target), names in edges.items()]
    return Graph(tuple(nodes), tuple(joined))
