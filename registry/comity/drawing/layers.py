"""A layered layout: ancestors left, the root right, each artifact in the column after the last of its parents.

After Sugiyama, Tagawa and Toda (1981), in its simplest useful form: columns by longest path, a place in every column
that an edge crosses, and a few sweeps that put everything near the middle of its neighbours. Edges that close a circle
take no part. Units are columns and rows, which a painter turns into pixels.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.lineage import Edge, Graph, Key

SWEEPS: Final = 6

Spot = tuple[Key, Key, int]
"""An artifact (key, "", 0), or the place where the edge (child, parent) crosses a column."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns count from the left, rows from the top, in halves. `ways` gives the (column, row) of each stop of an
    edge, from the parent to the child."""

    places: Mapping[Key, tuple[int, float]]
    ways: tuple[tuple[Edge, tuple[tuple[int, float], ...]], ...]
    columns: int
    rows: float


def lay_out(graph: Graph) -> Layout:
    """Deterministic; of the size of the graph and of what its edges cross."""
    generations = _generations(graph)
    columns = max(generations.values()) + 1
    paths = {(edge.child, edge.parent): _path(edge, generations) for edge in graph.edges if not edge.closes}
    order = _order(graph, generations, paths)
    tallest = max(len(spots) for spots in order.values())
    rows = {spot: at + (tallest - len(spots)) / 2 for spots in order.values() for at, spot in enumerate(spots)}

    def stop(spot: Spot) -> tuple[int, float]:
        generation = generations[spot[0]] if not spot[1] else spot[2]
        return columns - 1 - generation, rows[spot]

    places = {node.key: stop((node.key, "", 0)) for node in graph.nodes}
    ways = tuple(
        (edge, tuple(stop(spot) for spot in reversed(paths.get((edge.child, edge.parent), _ends(edge)))))
        for edge in graph.edges
    )
    return Layout(places, ways, columns, tallest)


def _generations(graph: Graph) -> dict[Key, int]:
    """The longest way from the root to each artifact, without edges that close a circle."""
    generations = {graph.root.key: 0}
    above: dict[Key, list[Key]] = defaultdict(list)
    below: dict[Key, int] = defaultdict(int)
    for edge in graph.edges:
        if not edge.closes:
            above[edge.child].append(edge.parent)
            below[edge.parent] += 1
    ready = [graph.root.key]
    while ready:
        child = ready.pop()
        for parent in above[child]:
            generations[parent] = max(generations.get(parent, 0), generations[child] + 1)
            below[parent] -= 1
            if not below[parent]:
                ready.append(parent)
    return generations


def _ends(edge: Edge) -> tuple[Spot, ...]:
    return ((edge.child, "", 0), (edge.parent, "", 0))


def _path(edge: Edge, generations: Mapping[Key, int]) -> tuple[Spot, ...]:
    """From the child to the parent, with a stop in every column between them."""
    child, parent = _ends(edge)
    between = range(generations[edge.child] + 1, generations[edge.parent])
    return (child, *((edge.child, edge.parent, column) for column in between), parent)


def _order(
    graph: Graph, generations: Mapping[Key, int], paths: Mapping[tuple[Key, Key], tuple[Spot, ...]]
) -> dict[int, list[Spot]]:
    """The spots of each generation from the top, near the middle of their neighbours."""
    columns: dict[int, list[Spot]] = defaultdict(list)
    for node in graph.nodes:
        columns[generations[node.key]].append((node.key, "", 0))
    near: dict[Spot, list[Spot]] = defaultdict(list)
    for path in paths.values():
        for spot in path[1:-1]:
            columns[spot[2]].append(spot)
        for one, other in itertools.pairwise(path):
            near[one].append(other)
            near[other].append(one)
    for sweep in range(SWEEPS):
        numbers = sorted(columns, reverse=bool(sweep % 2))
        for before, number in itertools.pairwise(numbers):
            at = {spot: place for place, spot in enumerate(columns[before])}
            columns[number] = _by_middle(columns[number], near, at)
    return columns


def _by_middle(spots: list[Spot], near: Mapping[Spot, list[Spot]], at: Mapping[Spot, int]) -> list[Spot]:
    def middle(place: int, spot: Spot) -> float:
        neighbours = [at[other] for other in near.get(spot, ()) if other in at]
        return sum(neighbours) / len(neighbours) if neighbours else place

    return [spot for _, spot in sorted(enumerate(spots), key=lambda item: middle(*item))]
