"""From whom artifacts descend: roots by lineage, each with how it is known."""

from __future__ import annotations

import pytest
from comity.rules.descent import (
    BASES,
    MAX_ROOTS,
    NOWHERE,
    DescentCount,
    LineageFacts,
    LineageRoot,
    ParentEdge,
    added,
    requires_packages,
    roots_of,
)
from comity.trust.lineage import MAX_DEPTH, MAX_NODES
from hypothesis import given
from hypothesis import strategies as st

A, B = "a" * 64, "b" * 64
NOBODY = LineageFacts()


def edge(parent: int | None, author: str = "", *, signed: bool = False) -> ParentEdge:
    return ParentEdge(parent, author, signed)


def found(graph: dict[int, LineageFacts]) -> set[tuple[str, str]]:
    """The roots of artifact 1, as author and basis."""
    return {
        (each.author, each.basis)
        for each in roots_of(1, lambda number: graph.get(number, NOBODY), MAX_NODES, MAX_DEPTH)
    }


def test_an_artifact_without_parents_is_its_own_origin_and_a_mirrored_one_says_so() -> None:
    assert found({1: LineageFacts((A, "hf:google"))}) == {(A, "own"), ("hf:google", "mirrored")}


def test_a_root_is_known_as_well_as_the_weakest_step_to_it() -> None:
    root = LineageFacts((A,))
    assert found({1: LineageFacts((B,), (edge(2, signed=True),)), 2: root}) == {(A, "signed")}
    middle = LineageFacts((B,), (edge(3, signed=True),))
    assert found({1: LineageFacts((B,), (edge(2),)), 2: middle, 3: root}) == {(A, "claimed")}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_ways_to_a_root_the_signed_one_counts_in_any_order(order: tuple[int, int]) -> None:
    ways = edge(2), edge(2, signed=True)
    graph = {1: LineageFacts((B,), (ways[order[0]], ways[order[1]])), 2: LineageFacts((A,))}
    assert found(graph) == {(A, "signed")}


def test_who_fine_tunes_is_no_origin() -> None:
    assert found({1: LineageFacts((B,), (edge(2),)), 2: LineageFacts((A,))}) == {(A, "claimed")}


def test_what_is_not_known_is_an_origin_of_its_own() -> None:
    parents = edge(None), edge(2), edge(None, "hf:google"), edge(3, "hf:meta-llama")
    expected = {("", "unknown"), ("hf:google", "claimed"), ("hf:meta-llama", "claimed")}
    assert found({1: LineageFacts((B,), parents)}) == expected


def test_a_cycle_has_an_unknown_origin() -> None:
    assert found({1: LineageFacts((A,), (edge(2),)), 2: LineageFacts((B,), (edge(1),))}) == {("", "unknown")}


def test_a_lineage_beyond_the_limits_has_an_unknown_origin() -> None:
    wide = {1: LineageFacts((A,), tuple(edge(number) for number in range(2, MAX_NODES + 9)))}
    assert roots_of(1, lambda number: wide.get(number, LineageFacts((B,))), MAX_NODES, MAX_DEPTH) == (
        NOWHERE,
        LineageRoot(B, "claimed"),
    )
    long = {number: LineageFacts((A,), (edge(number + 1),)) for number in range(1, MAX_DEPTH + 9)}
    assert found(long) == {("", "unknown")}


def test_more_origins_than_are_told_apart_are_cut_and_marked() -> None:
    many = LineageFacts(tuple(f"{number:064d}" for number in range(MAX_ROOTS + 1)))
    cut = roots_of(1, lambda number: many, MAX_NODES, MAX_DEPTH)
    assert (cut[0], len(cut)) == (NOWHERE, MAX_ROOTS + 1)


@given(st.dictionaries(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=4)))
def test_any_graph_ends_and_every_origin_has_one_basis(graph: dict[int, list[tuple[int, bool]]]) -> None:
    known = {
        number: LineageFacts((f"{number:064d}",), tuple(edge(parent or None, signed=signed) for parent, signed in to))
        for number, to in graph.items()
    }
    roots = roots_of(1, lambda number: known.get(number, NOBODY), MAX_NODES, MAX_DEPTH)
    assert roots and len({each.author for each in roots}) == len(roots)
    assert {each.basis for each in roots} <= set(BASES)
    authors = {f"{number:064d}" for number, item in known.items() if not item.parents}
    assert {each.author for each in roots if each.author} <= authors


def test_counts_of_the_same_origins_are_added() -> None:
    one = DescentCount((NOWHERE,), True, 1, 10, 1, 3, 0)
    assert added(one, one) == DescentCount((NOWHERE,), True, 2, 20, 2, 6, 0)


@pytest.mark.parametrize(
    ("paths", "requires"),
    [
        (("requirements.txt", "serve.py"), True),
        (("engine/requirements.lock",), True),
        (("pyproject.toml", "a.py"), True),
        (("requirements.lock", "wheels/numpy-2.0-py3.whl"), False),
        (("weights.safetensors", "README.md"), False),
        ((), False),
    ],
)
def test_an_artifact_that_names_packages_and_has_none_requires_an_index(paths: tuple[str, ...], requires: bool) -> None:
    assert requires_packages(paths) is requires
