"""Lineage graphs as drawings: well-formed, self-contained, harmless with any names, with a text beside each drawing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from comity.drawing.graph_text import BASIS_LABELS, lay_out, render_dot, render_svg, render_tree
from comity.trust.encoding import Digest, sha256
from comity.trust.lineage import (
    ArtifactClaims,
    DerivationClaim,
    LineageGraph,
    LocalComparison,
    PublicationClaim,
    build_graph,
)
from comity.trust.statement import parse_entry
from comity.trust.statements import Derived, Extent
from hypothesis import given, settings
from hypothesis import strategies as st
from support.derivations import derived_line
from support.examples import examples

ELEMENTS = {"svg", "title", "style", "defs", "marker", "path", "g", "rect", "text"}
SVG = "{http://www.w3.org/2000/svg}"


def digest(name: str) -> Digest:
    return sha256(name.encode("utf-8", "surrogatepass"))


def claim(name: str, *parents: str, licence: str = "MIT", by: str = "Lab") -> PublicationClaim:
    return PublicationClaim(
        digest(by), by, name, licence, tuple(("merge", p, digest(p)) for p in parents), digest(name)
    )


def graph(parents: dict[str, list[str]], root: str, **licences: str) -> LineageGraph:
    known = {
        digest(name): ArtifactClaims((claim(name, *above, licence=licences.get(name, "MIT")),))
        for name, above in parents.items()
    }
    return build_graph(digest(root), lambda artifact: known.get(artifact, ArtifactClaims()))


DIAMOND = graph({"d": ["b", "c", "a"], "b": ["a"], "c": ["a"], "a": ["d"]}, "d", a="CC-BY-NC-4.0")


def test_every_column_is_after_those_of_its_parents_and_no_two_boxes_share_a_place() -> None:
    layout = lay_out(DIAMOND)
    for edge in DIAMOND.edges:
        if not edge.closes_cycle:
            assert layout.positions[edge.parent][0] < layout.positions[edge.child][0]
    assert len(set(layout.positions.values())) == len(DIAMOND.nodes)
    long = next(
        stops
        for edge, stops in layout.edge_paths
        if (edge.child, edge.parent) == (f"sha256:{digest('d')}", f"sha256:{digest('a')}")
    )
    assert [column for column, _ in long] == [0, 1, 2]
    assert long[1] not in layout.positions.values()


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), max_size=4, unique=True)))
@settings(max_examples=examples(80))
def test_any_graph_is_laid_out_and_drawn(parents: dict[str, list[str]]) -> None:
    drawn = graph(parents, "a")
    layout = lay_out(drawn)
    assert layout.positions.keys() == {node.key for node in drawn.nodes}
    assert len(set(layout.positions.values())) == len(drawn.nodes)
    assert len(layout.edge_paths) == len(drawn.edges)
    picture = ElementTree.fromstring(render_svg(drawn))
    assert len(list(picture.iter(f"{SVG}rect"))) == len(drawn.nodes)
    assert render_tree(drawn).startswith("a" if "a" in parents else "sha256")


HOSTILE = '</text><script>alert(1)</script>"\\ ]]> & \x1b[31m\x00\ud800 \u202e\nx'


@pytest.mark.parametrize("name", [HOSTILE, "a" * 300, ""])
def test_texts_of_strangers_stay_texts_in_every_format(name: str) -> None:
    parent = PublicationClaim(digest("p"), name, name, name, (), digest("line"))
    child = PublicationClaim(
        digest("c"), name, name, "MIT", ((name, name, digest("p")), ("merge", name, None)), digest("other")
    )
    known = {digest("c"): ArtifactClaims((child,)), digest("p"): ArtifactClaims((parent,))}
    drawn = build_graph(digest("c"), lambda artifact: known.get(artifact, ArtifactClaims()))
    svg = render_svg(drawn)
    picture = ElementTree.fromstring(svg.encode())
    assert {element.tag.removeprefix(SVG) for element in picture.iter()} <= ELEMENTS
    for text in (svg, render_dot(drawn), render_tree(drawn)):
        text.encode()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    labels = re.sub(r'"(?:[^"\\]|\\.)*"', "", render_dot(drawn))
    assert "<script>" not in labels
    assert '"' not in labels


def test_the_picture_refers_to_nothing_outside() -> None:
    svg = render_svg(DIAMOND)
    assert "href" not in svg
    assert svg.count("http") == 1  # the namespace
    assert "@import" not in svg
    assert re.findall(r"url\(([^)]*)\)", svg) == ["#a"] * len(DIAMOND.edges)


def test_strokes_differ_by_basis_and_the_legend_explains_them() -> None:
    line = derived_line(digest("b"), digest("a"))
    word = DerivationClaim("Checker", Derived.parse(parse_entry(line).statement), sha256(line))
    known = {digest("c"): ArtifactClaims((claim("c", "b"),)), digest("b"): ArtifactClaims((claim("b", "a"),), (word,))}
    known[digest("a")] = ArtifactClaims((claim("a", "root"),))
    drawn = build_graph(digest("c"), lambda artifact: known.get(artifact, ArtifactClaims()))
    drawn = drawn.with_comparison(digest("c"), digest("b"), LocalComparison(True, Extent(3, 3), {"copy": 3}))
    picture = ElementTree.fromstring(render_svg(drawn))
    edges = [path.get("stroke-dasharray") for path in picture.iter(f"{SVG}path") if path.get("marker-end")]
    assert edges == [None, "12 5", "2 5"]
    words = {text.text for text in picture.iter(f"{SVG}text")}
    assert words >= set(BASIS_LABELS.values())
    assert "missing: no claims found about root" in words
    titles = [title.text or "" for title in picture.iter(f"{SVG}title")]
    assert any("Checker signed: exact, 101 tensors (62 copy, 39 q8_0)" in title for title in titles)
    assert any("here: exact, 3 tensors (3 copy)" in title for title in titles)


def test_a_conflict_is_named_on_the_edge_and_below() -> None:
    svg = render_svg(DIAMOND)
    assert "licence conflict" in svg
    assert "licence conflict, as claimed: d (MIT), a (CC-BY-NC-4.0)" in svg
    assert "! licence conflict, as claimed: d (MIT), a (CC-BY-NC-4.0)" in render_tree(DIAMOND)


def test_the_tree_shows_an_artifact_once_and_ends_at_a_cycle() -> None:
    tree = render_tree(DIAMOND)
    assert tree.count("of a  (sha256") == 1
    assert tree.count("shown above") == 3
    assert "closes a cycle" in tree


def test_a_root_without_parents_is_drawn_alone() -> None:
    alone = graph({"a": []}, "a")
    assert "no parent is known" in render_tree(alone)
    assert ElementTree.fromstring(render_svg(alone)).get("role") == "img"
    assert render_dot(alone).count("->") == 0
