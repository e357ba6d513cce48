"""The lineage graph: which claims make an edge, missing parents, cycles, bounds, licences. And the rows about it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import Row
from comity.trust.lineage import (
    MAX_DEPTH,
    MAX_EDGES,
    MAX_NODES,
    MAX_STATEMENTS,
    ArtifactClaims,
    DerivationClaim,
    LicenceFit,
    LineageGraph,
    LineageNode,
    LocalComparison,
    PublicationClaim,
    build_graph,
    lineage_of,
)
from comity.trust.rows.content import derivation_text
from comity.trust.statement import parse_entry, sign_payload, sign_statement
from comity.trust.statements import Derived, Extent, Parent
from support.case import Case, case, nodes, release
from support.derivations import derived_line
from support.world import Identity, identity

Parents = tuple[tuple[str, str, Digest | None], ...]


def digest(name: str) -> Digest:
    return sha256(name.encode())


def claim(name: str, *parents: str, licence: str = "MIT", by: str = "Lab") -> PublicationClaim:
    named: Parents = tuple(("finetune", f"lab/{parent}@v1", digest(parent)) for parent in parents)
    return PublicationClaim(digest(by), by, f"lab/{name}@v1", licence, named, digest(f"line of {name} {by}"))


def word(child: str, parent: str, *, exact: bool = True, by: str = "Checker") -> DerivationClaim:
    line = derived_line(digest(child), digest(parent), exact=exact)
    return DerivationClaim(by, Derived.parse(parse_entry(line).statement), sha256(line))


def graph(root: str, **known: ArtifactClaims) -> LineageGraph:
    by_digest = {digest(name): said for name, said in known.items()}
    return build_graph(digest(root), lambda artifact: by_digest.get(artifact, ArtifactClaims()))


def edges(found: LineageGraph) -> set[tuple[str, str, str]]:
    return {(found.node(e.child).title, found.node(e.parent).title, e.basis) for e in found.edges}


def test_the_graph_follows_parents_by_digest() -> None:
    found = graph(
        "c", c=ArtifactClaims((claim("c", "b"),)), b=ArtifactClaims((claim("b", "a"),)), a=ArtifactClaims((claim("a"),))
    )
    assert [(node.title, node.depth) for node in found.nodes] == [("lab/c@v1", 0), ("lab/b@v1", 1), ("lab/a@v1", 2)]
    assert edges(found) == {("lab/c@v1", "lab/b@v1", "claimed"), ("lab/b@v1", "lab/a@v1", "claimed")}
    assert not found.missing
    assert not found.truncation


def test_a_parent_without_a_publication_is_shown_as_missing() -> None:
    found = graph("c", c=ArtifactClaims((claim("c", "b"),)))
    (missing,) = found.missing
    assert (missing.title, missing.digest, missing.licence) == ("lab/b@v1", digest("b"), None)


def test_a_parent_by_name_is_no_parent_by_digest() -> None:
    hexadecimal = digest("b")
    parents: Parents = (("finetune", hexadecimal, None), ("merge", "lab/b@v1", digest("b")))
    found = graph("c", c=ArtifactClaims((replace(claim("c"), parents=parents),)), b=ArtifactClaims((claim("b"),)))
    assert {(node.key, node.missing) for node in found.nodes[1:]} == {
        (f"name:{hexadecimal}", True),
        (f"sha256:{hexadecimal}", False),
    }


def test_an_edge_names_the_deriving_party_and_rests_on_an_exact_result() -> None:
    found = graph("b", b=ArtifactClaims((claim("b", "a"),), (word("b", "a", exact=False), word("b", "a", by="Other"))))
    (edge,) = found.edges
    assert (edge.basis, edge.claimed_by, [w.by for w in edge.derivations]) == (
        "signed",
        (("Lab", digest("line of b Lab")),),
        ["Checker", "Other"],
    )
    (share,) = graph("b", b=ArtifactClaims((claim("b", "a"),), (word("b", "a", exact=False),))).edges
    assert share.basis == "claimed"
    checked = found.with_comparison(digest("b"), digest("a"), LocalComparison(True, Extent(9, 9), {"copy": 9}))
    assert checked.edges[0].basis == "here"
    assert (
        found.with_comparison(digest("b"), digest("a"), LocalComparison(False, Extent(9, 2), {"copy": 2}))
        .edges[0]
        .basis
        == "signed"
    )


def test_a_parent_that_only_a_derivation_names_is_an_edge_without_claimant() -> None:
    (edge,) = graph("b", b=ArtifactClaims((claim("b"),), (word("b", "a"),))).edges
    assert (edge.claimed_by, edge.relations) == ((), ("quantized",))


def test_a_cycle_ends_where_it_closes() -> None:
    found = graph(
        "c",
        c=ArtifactClaims((claim("c", "b"),)),
        b=ArtifactClaims((claim("b", "a"),)),
        a=ArtifactClaims((claim("a", "c", "a"),)),
    )
    assert len(found.nodes) == 3
    assert {(found.node(e.child).title, found.node(e.parent).title) for e in found.edges if e.closes_cycle} == {
        ("lab/a@v1", "lab/c@v1"),
        ("lab/a@v1", "lab/a@v1"),
    }


def test_two_parents_without_a_digest_are_two_artifacts() -> None:
    parents: Parents = (("merge", "lab/a@v1", None), ("merge", "lab/b@v1", None))
    found = graph("c", c=ArtifactClaims((replace(claim("c"), parents=parents),)))
    assert [node.key for node in found.nodes[1:]] == ["name:lab/a@v1", "name:lab/b@v1"]


def test_only_the_edge_that_leads_back_closes_a_cycle() -> None:
    found = graph(
        "c",
        c=ArtifactClaims((claim("c", "x", "y"),)),
        x=ArtifactClaims((claim("x", "c"),)),
        y=ArtifactClaims((claim("y", "x"),)),
    )
    assert [(found.node(edge.child).title, edge.closes_cycle) for edge in found.edges] == [
        ("lab/c@v1", False),
        ("lab/c@v1", False),
        ("lab/x@v1", True),
        ("lab/y@v1", False),
    ]


def test_an_artifact_has_the_name_that_its_first_claim_gives_it() -> None:
    two = (claim("a"), replace(claim("a", by="Other"), name="other/copy@v1"))
    found = graph("a", a=ArtifactClaims(two))
    assert (found.root.title, found.root.publishers) == ("lab/a@v1", ("Lab", "Other"))


def test_many_ways_to_one_ancestor_cost_no_more_than_their_edges() -> None:
    """Each generation has two artifacts, made from both of the one before: 2**27 ways lead to the oldest."""
    known = {"top": claim("top", "x0", "late0"), "late28": claim("late28", "x0")}
    for i in range(28):
        known |= {f"{side}{i}": claim(f"{side}{i}", f"x{i + 1}", f"y{i + 1}") for side in "xy"}
        known[f"late{i}"] = claim(f"late{i}", f"late{i + 1}")
    found = graph("top", **{name: ArtifactClaims((said,)) for name, said in known.items()})
    assert (len(found.nodes), len(found.edges)) == (1 + 57 + 29, 2 + 2 + 27 * 4 + 28 + 1)
    assert not [edge for edge in found.edges if edge.closes_cycle]


def test_at_the_last_generation_edges_to_known_artifacts_are_still_read() -> None:
    known = {digest(f"n{i}"): ArtifactClaims((claim(f"n{i}", f"n{i + 1}", "n0"),)) for i in range(MAX_DEPTH + 1)}
    found = build_graph(digest("n0"), lambda artifact: known.get(artifact, ArtifactClaims()))
    last = digest(f"n{MAX_DEPTH}")
    assert [(found.node(edge.child).digest, edge.closes_cycle) for edge in found.edges[-1:]] == [(last, True)]
    assert "generations" in found.truncation


def test_a_diamond_has_each_artifact_once() -> None:
    found = graph(
        "d",
        d=ArtifactClaims((claim("d", "b", "c"),)),
        b=ArtifactClaims((claim("b", "a"),)),
        c=ArtifactClaims((claim("c", "a"),)),
        a=ArtifactClaims(),
    )
    assert len(found.nodes) == 4
    assert len(found.edges) == 4
    assert not [edge for edge in found.edges if edge.closes_cycle]


def test_a_graph_of_hostile_size_is_cut_and_the_cut_is_reported() -> None:
    deep: dict[Digest, ArtifactClaims] = {
        digest(f"n{i}"): ArtifactClaims((claim(f"n{i}", f"n{i + 1}"),)) for i in range(1000)
    }
    found = build_graph(digest("n0"), lambda artifact: deep.get(artifact, ArtifactClaims()))
    assert max(node.depth for node in found.nodes) == MAX_DEPTH
    assert "generations" in found.truncation
    wide = {
        digest(f"w{i}"): ArtifactClaims(
            tuple(claim(f"w{i}", *(f"w{i * 32 + k}" for k in range(1, 33)), by=f"Lab {n}") for n in range(3))
        )
        for i in range(2000)
    }
    found = build_graph(digest("w0"), lambda artifact: wide.get(artifact, ArtifactClaims()))
    assert len(found.nodes) == MAX_NODES
    assert "artifacts" in found.truncation
    dense = {digest(f"d{i}"): ArtifactClaims((claim(f"d{i}", *(f"d{k}" for k in range(60))),)) for i in range(60)}
    found = build_graph(digest("d0"), lambda artifact: dense.get(artifact, ArtifactClaims()))
    assert len(found.edges) == MAX_EDGES
    assert "edges" in found.truncation


def test_licences_conflict_along_edges_and_over_what_is_missing_between() -> None:
    found = graph(
        "c",
        c=ArtifactClaims((claim("c", "b"),)),
        b=ArtifactClaims((claim("b", "a", licence="other"),)),
        a=ArtifactClaims((claim("a", licence="CC-BY-NC-4.0"),)),
    )
    ((child, parent, why),) = found.conflicts
    assert (child.title, parent.title) == ("lab/c@v1", "lab/a@v1")
    assert "commercial" in why.why
    assert {edge.licence.answer for edge in found.edges} == {"unknown"}


def test_different_licences_of_several_publishers_make_it_unknown() -> None:
    two = (claim("a", licence="CC-BY-NC-4.0"), claim("a", licence="MIT", by="Other"))
    unknown = LicenceFit("unknown", "publishers claim different licences")
    found = graph("b", b=ArtifactClaims((claim("b", "a"),)), a=ArtifactClaims(two))
    assert not found.conflicts
    assert found.edges[0].licence == unknown
    assert found.node(found.edges[0].parent).licence is None
    children = tuple(replace(each, parents=claim("b", "a").parents) for each in two)
    (edge,) = graph("b", b=ArtifactClaims(children), a=ArtifactClaims((claim("a", licence="CC-BY-NC-4.0"),))).edges
    assert edge.licence == unknown


def test_the_licence_of_an_artifact_without_a_publication_is_missing() -> None:
    missing = LicenceFit("unknown", "the licence of one artifact is missing")
    (upward,) = graph("b", b=ArtifactClaims((claim("b", "a", licence="MIT"),))).edges
    (downward,) = graph("b", b=ArtifactClaims((), (word("b", "a"),)), a=ArtifactClaims((claim("a"),))).edges
    assert (upward.licence, downward.licence) == (missing, missing)


def test_no_licence_conflicts_with_itself_where_nothing_was_derived() -> None:
    found = graph("a", a=ArtifactClaims((claim("a", licence="CC-BY-ND-4.0"),)))
    assert not found.conflicts


PARENT_FILES: Mapping[str, bytes] = {"model.safetensors": b"weights"}
OWNER = identity("Swiss AI", "CH")
STRANGER = identity("Somebody else", "KR")


def parent(
    spdx: str = "Apache-2.0", by: Identity = OWNER, name: str = "swiss-ai/base@v1", text: str = ""
) -> tuple[Digest, bytes]:
    files = {**PARENT_FILES, "text": text.encode()} if text else PARENT_FILES
    published, entry, _, _ = release(files, by=by, name=name, spdx=spdx)
    return published.artifact, entry.line


BASE, BASE_LINE = parent()
CHILD = case(lineage=(Parent("quantized", "swiss-ai/base@v1", BASE),))


def row(changed: Case) -> Row:
    return changed.verdict().row("lineage")


def demanding(changed: Case, rule: str) -> Case:
    return changed.demanding("[rows]", f"[lineage]\n{rule} = true\n[rows]")


def test_the_row_passes_where_every_parent_is_described() -> None:
    assert row(CHILD).state == "unknown"
    assert "no statement about swiss-ai/base@v1 is here" in row(CHILD).summary
    whole = row(CHILD.saying(BASE_LINE))
    assert whole.state == "pass"
    assert "quantized of swiss-ai/base@v1 (claimed)" in whole.summary
    assert {fact.basis for fact in whole.facts} == {"claimed"}


def test_no_parent_is_the_publishers_claim() -> None:
    alone = row(case())
    assert (alone.state, alone.summary) == ("pass", "the publisher names no parent")
    assert [fact.basis for fact in alone.facts] == ["claimed"]


def test_a_derivation_is_its_signers_claim() -> None:
    checker = identity("Checking lab", "ES")
    line = derived_line(CHILD.artifact, BASE)
    told = CHILD.saying(BASE_LINE, checker.entry.line, line)
    assert "derived bit for bit, as claimed by Checking lab" in row(told).summary
    (fact,) = [fact for fact in row(told).facts if fact.evidence == sha256(line)]
    assert fact.basis == "claimed"
    assert fact.by.startswith("Checking lab")
    assert "101 tensors reproduced bit for bit (62 copy, 39 q8_0)" in fact.text


def test_of_many_deriving_parties_one_is_named_and_the_others_are_counted() -> None:
    for count, more in ((1, ""), (2, " and 1 more"), (3, " and 2 more")):
        checkers = [identity(f"Checking lab {number}", "ES") for number in range(count)]
        lines = [checker.entry.line for checker in checkers]
        lines += [derived_line(CHILD.artifact, BASE, by=checker) for checker in checkers]
        summary = row(CHILD.saying(BASE_LINE, *lines)).summary
        assert "as claimed by Checking lab" in summary and summary.endswith(f"]{more})")


def test_exact_derivations_are_named_before_partial_ones() -> None:
    plain, others = case(), [identity(f"Checking lab {number}", "ES") for number in range(4)]
    lines = [line for each in others for line in (each.entry.line, derived_line(plain.artifact, BASE, by=each))]
    for exact in others:
        shares = [derived_line(plain.artifact, BASE, by=each, exact=each is exact) for each in others]
        told = row(plain.saying(BASE_LINE, *(each.entry.line for each in others), *shares))
        assert f"; {exact.inception.label} [" in told.summary and told.summary.endswith("] derived it)")
    told = row(plain.saying(BASE_LINE, *lines))
    first = next(fact.by for fact in told.facts if "bit for bit" in fact.text)
    assert told.summary.endswith(f"; {first} and 3 more derived it)")


def test_no_steps_are_listed_where_no_tensor_is_the_same() -> None:
    share = Derived.parse(parse_entry(derived_line(CHILD.artifact, BASE, exact=False)).statement)
    assert derivation_text(share) == "50 of 101 tensors are the same (50 copy)"
    none = replace(share, steps={}, tensors=Extent(101, 0))
    assert derivation_text(none) == "0 of 101 tensors are the same"


def test_a_lineage_that_was_not_read_to_its_end_is_unknown_and_says_so() -> None:
    last, lines = (Parent("finetune", "swiss-ai/base@v1", BASE),), [BASE_LINE]
    for number in range(MAX_DEPTH):
        name = f"swiss-ai/generation-{number}@v1"
        published, entry, _, _ = release({"text": name.encode()}, name=name, lineage=last)
        last = (Parent("finetune", name, published.artifact),)
        lines.append(entry.line)
    long = row(case(lineage=last).saying(*lines))
    limit = f"more than {MAX_NODES} artifacts, or {MAX_DEPTH} generations"
    assert (long.state, long.summary.rpartition("; ")[2]) == ("unknown", limit)
    assert [f.basis for f in long.facts if f.text == f"more is claimed than was read: {limit}"] == ["stale or absent"]


def test_an_unproven_derivation_is_a_note_and_no_fact() -> None:
    told = CHILD.saying(BASE_LINE, derived_line(CHILD.artifact, BASE))
    assert row(told) == row(CHILD.saying(BASE_LINE))
    assert "derived" in told.verdict().row("notes").summary


def test_a_node_may_claim_a_derivation() -> None:
    _, node, *_ = nodes(4)
    said = Derived.parse(parse_entry(derived_line(CHILD.artifact, BASE)).statement)
    good = sign_content(replace(said, by=node.record.node), node.online).line
    assert f"derived bit for bit, as claimed by {node.record.name}" in row(CHILD.saying(BASE_LINE, good)).summary
    forged = sign_content(replace(said, by=node.record.node), OWNER.signer).line
    assert row(CHILD.saying(BASE_LINE, forged)) == row(CHILD.saying(BASE_LINE))


def test_a_parent_that_the_publisher_does_not_name_is_reported_as_such() -> None:
    checker = identity("Checking lab", "ES")
    plain = case()
    told = plain.saying(BASE_LINE, checker.entry.line, derived_line(plain.artifact, BASE))
    assert "which its publisher does not name" in row(told).summary


def test_a_policy_may_demand_digests() -> None:
    by_name = case(lineage=(Parent("finetune", "swiss-ai/base@v1"),))
    assert row(by_name).state == "unknown"
    refused = demanding(by_name, "parents_by_digest")
    assert (row(refused).state, row(refused).cause) == ("fail", "short")
    assert row(demanding(CHILD.saying(BASE_LINE), "parents_by_digest")).state == "pass"
    required = refused.demanding('require = ["artifact", ', 'require = ["lineage", "artifact", ')
    assert required.verdict().exit_status == 4


def test_a_policy_may_refuse_licence_conflicts_and_the_licence_row_names_them() -> None:
    base, line = parent("CC-BY-NC-4.0")
    child = case(lineage=(Parent("finetune", "swiss-ai/base@v1", base),)).saying(line)
    assert row(child).state == "pass"
    refused = row(demanding(child, "refuse_licence_conflicts"))
    assert refused.state == "fail"
    assert "forbids commercial use" in refused.summary
    licence = child.verdict().row("licence")
    assert licence.state == "pass"
    (fact,) = [fact for fact in licence.facts if "conflict" in fact.text]
    assert fact.basis == "claimed"


def test_of_several_licence_conflicts_the_row_names_the_first_of_those_that_it_lists() -> None:
    parents = [parent(spdx, name=f"swiss-ai/{spdx.lower()}@v1", text=spdx) for spdx in ("CC-BY-NC-4.0", "CC-BY-NC-3.0")]
    named = tuple(Parent("merge", f"swiss-ai/{number}@v1", base) for number, (base, _) in enumerate(parents))
    refused = row(demanding(case(lineage=named).saying(*(line for _, line in parents)), "refuse_licence_conflicts"))
    first, second = (fact.text for fact in refused.facts if fact.text.startswith("licence conflict"))
    assert (refused.state, refused.summary) == ("fail", first) and first != second


def test_a_claim_of_another_parent_decides_nothing() -> None:
    """Anyone may sign that two artifacts have tensors in common, and publish one of them."""
    theirs, line = parent("CC-BY-NC-4.0", STRANGER, "elsewhere/other@v1", "other")
    plain, whole = case(), CHILD.saying(BASE_LINE)
    for good in (plain, whole):
        for made_from, more in ((theirs, (line,)), (sha256(b"nobody knows it"), ())):
            lines = (STRANGER.entry.line, *more, derived_line(good.artifact, made_from, by=STRANGER, exact=False))
            told = demanding(good.saying(*lines), "refuse_licence_conflicts")
            assert (row(told).state, row(good).state) == ("pass", "pass")
            assert any("50 of 101 tensors are the same" in fact.text for fact in row(told).facts)
            assert not [fact for fact in told.verdict().row("licence").facts if "conflict" in fact.text]


def last(lines: Iterable[bytes]) -> bytes:
    """Of several lines of one statement, the last one in the order in which statements are read."""
    return max(lines, key=sha256)


def test_no_number_of_strangers_hides_what_a_member_derived() -> None:
    _, node, *_ = nodes(4)
    said = Derived.parse(parse_entry(derived_line(CHILD.artifact, BASE)).statement)
    good = last(sign_content(replace(said, by=node.record.node), node.online).line for _ in range(20))
    flood = [
        sign_content(replace(said, by=STRANGER.inception.author, left_out=number), STRANGER.signer).line
        for number in range(4 * MAX_STATEMENTS)
    ]
    told = row(CHILD.saying(BASE_LINE, STRANGER.entry.line, good, *flood))
    assert f"derived bit for bit, as claimed by {node.record.name}" in told.summary
    assert sum("reproduced bit for bit" in fact.text for fact in told.facts) == MAX_STATEMENTS


def test_no_number_of_statements_of_one_member_hides_what_another_derived() -> None:
    _, one, other, _ = nodes(4)
    said = Derived.parse(parse_entry(derived_line(CHILD.artifact, BASE)).statement)
    good = last(sign_content(replace(said, by=other.record.node), other.online).line for _ in range(20))
    flood = [
        sign_content(replace(said, by=one.record.node, left_out=number), one.online).line
        for number in range(4 * MAX_STATEMENTS)
    ]
    told = row(CHILD.saying(BASE_LINE, good, *flood))
    assert any(fact.by.startswith(other.record.name) for fact in told.facts)
    assert sum("reproduced bit for bit" in fact.text for fact in told.facts) == MAX_STATEMENTS


def test_no_number_of_forged_statements_hides_that_of_a_publisher() -> None:
    names = [f"swiss-ai/base@v{number}" for number in range(2, 4 * MAX_STATEMENTS)]
    statements = [release(PARENT_FILES, by=OWNER, name=name)[1].statement for name in names]
    forged = [sign_statement(each, STRANGER.signer).line for each in statements]
    honest = last(parent()[1] for _ in range(20))
    assert row(CHILD.saying(honest, *forged)).state == "pass"


def test_two_artifacts_that_are_claimed_to_be_made_from_one_another_are_named() -> None:
    back = (Parent("converted", "swiss-ai/tiny@v1", CHILD.artifact),)
    again = release(PARENT_FILES, by=OWNER, name="swiss-ai/base@v1", lineage=back)[1]
    found = row(CHILD.saying(again.line))
    assert (found.state, found.summary.rpartition("; ")[2]) == (
        "unknown",
        "the claims about swiss-ai/base@v1 form a cycle",
    )
    said = [(fact.text, fact.basis) for fact in found.facts if "one another" in fact.text]
    text = "swiss-ai/base@v1 and swiss-ai/tiny@v1 are claimed to be made from one another"
    assert said == [(text, "verified here")]


@pytest.mark.parametrize("name", ["swiss-ai/base@v1", "elsewhere/base@v1"])
def test_a_strangers_publication_of_the_parents_bytes_under_other_terms_changes_nothing(name: str) -> None:
    _, theirs = parent("CC-BY-NC-4.0", STRANGER, name)
    flooded = demanding(CHILD.saying(BASE_LINE, STRANGER.entry.line, theirs), "refuse_licence_conflicts")
    assert row(flooded).state == "pass"
    assert not [fact for fact in flooded.verdict().row("licence").facts if "conflict" in fact.text]


def test_a_publication_under_a_name_bound_to_another_publisher_describes_nothing() -> None:
    """Also if the publisher to whom the name is bound says nothing about these bytes."""
    for name, state in (
        ("swiss-ai/base@v1", "unknown"),
        ("Swiss-AI/base@v1", "unknown"),
        ("elsewhere/base@v1", "pass"),
    ):
        _, theirs = parent("Apache-2.0", STRANGER, name)
        assert row(CHILD.saying(STRANGER.entry.line, theirs)).state == state, name


def parent_node(lines: Iterable[bytes], policy: str = "") -> LineageNode:
    """The node of the parent in the graph of `CHILD`."""
    readings = read_claims([*CHILD.claims, *lines], CHILD.artifact)
    chosen = replace(CHILD, policy_text=CHILD.policy_text + policy)
    found, _ = lineage_of(readings, CHILD.artifact, readings.publications[0], chosen.policy, ())
    return found.nodes[1]


def test_the_policy_decides_who_may_describe_an_ancestor() -> None:
    _, theirs = parent("CC-BY-NC-4.0", STRANGER, "elsewhere/base@v1")
    other = identity("Another", "BR")
    _, others = parent("MIT", other, "nowhere/base@v1")
    strangers = (STRANGER.entry.line, theirs, other.entry.line, others)
    assert parent_node((BASE_LINE, *strangers)) == parent_node((BASE_LINE,))
    assert set(parent_node(strangers).licences) == {"MIT", "CC-BY-NC-4.0"}
    bound = f'[publishers.names]\nnowhere = "{other.id}"\n'
    assert parent_node(strangers, bound).licences == ("MIT",)


@pytest.mark.parametrize("named", ["open/base@v1", "Open/base", "open/base@main"])
def test_a_stranger_under_another_namespace_describes_no_ancestor_that_is_described_under_the_name_of_its_child(
    named: str,
) -> None:
    """The policy binds neither namespace. The stranger names a parent that nobody knows, and a licence in conflict."""
    lab = identity("Lab", "BR")
    base, honest = parent("MIT", lab, "open/base@v1")
    nowhere = (Parent("finetune", "elsewhere/nothing@v1", sha256(b"nobody knows it")),)
    theirs = release(PARENT_FILES, by=STRANGER, name="elsewhere/base@v1", spdx="CC-BY-NC-4.0", lineage=nowhere)[1].line
    plain = case(lineage=(Parent("quantized", named, base),)).saying(lab.entry.line, honest)
    told = plain.saying(STRANGER.entry.line, theirs)
    for each in (demanding(told, "refuse_licence_conflicts"), told):
        assert row(each).state == row(plain).state == "pass"
        assert not [fact for fact in each.verdict().row("licence").facts if "conflict" in fact.text]


def test_a_stranger_with_a_permissive_licence_hides_no_licence_conflict() -> None:
    lab = identity("Lab", "BR")
    base, honest = parent("CC-BY-NC-4.0", lab, "open/base@v1")
    _, theirs = parent("MIT", STRANGER, "elsewhere/base@v1")
    plain = case(lineage=(Parent("quantized", "open/base@v1", base),)).saying(lab.entry.line, honest)
    for each in (plain, plain.saying(STRANGER.entry.line, theirs)):
        assert row(demanding(each, "refuse_licence_conflicts")).state == "fail"


def test_a_publisher_that_the_policy_accepts_describes_an_ancestor_under_any_name() -> None:
    _, theirs = parent("CC-BY-NC-4.0", STRANGER, "elsewhere/base@v1")
    other = identity("Another", "BR")
    _, others = parent("MIT", other, "swiss-ai/base@v1")
    lines = (STRANGER.entry.line, theirs, other.entry.line, others)
    accepting = CHILD.demanding(f'accept = ["{OWNER.id}"]', f'accept = ["{OWNER.id}", "{other.id}"]')
    readings = read_claims([*CHILD.claims, *lines], CHILD.artifact)
    found, _ = lineage_of(readings, CHILD.artifact, readings.publications[0], accepting.policy, ())
    assert found.nodes[1].licences == ("MIT",)


def test_the_graph_is_one_for_every_order_of_lines() -> None:
    other = identity("Another", "BR")
    lines = [STRANGER.entry.line, other.entry.line, parent(by=STRANGER, name="elsewhere/base@v1")[1]]
    lines += [parent("MIT", other, "nowhere/base@v1")[1]]
    assert {parent_node(order) for order in itertools.permutations(lines)} == {parent_node(lines)}


def test_no_more_than_so_many_statements_about_an_ancestor_are_read() -> None:
    strangers = [identity(f"Stranger {number}", "BR", algs=("ed25519",)) for number in range(MAX_STATEMENTS + 3)]
    lines = [each.entry.line for each in strangers]
    lines += [parent(by=each, name="elsewhere/base@v1")[1] for each in strangers]
    assert len(parent_node(lines).publishers) == MAX_STATEMENTS


def test_statements_without_an_author_or_without_its_keys_describe_nothing() -> None:
    _, theirs = parent(by=STRANGER, name="elsewhere/base@v1")
    payload = parse_entry(theirs).envelope.payload.replace(b'"urn:comity:published:v1"', b'"published"')
    nobody = sign_payload(payload, OWNER.signer).encode()
    assert (parse_entry(nobody).statement.predicate, parse_entry(nobody).statement.by) == ("published", None)
    assert parent_node((theirs, nobody)).missing
    assert not parent_node((theirs, nobody, STRANGER.entry.line)).missing


def test_the_root_is_described_by_the_chosen_publication() -> None:
    again = release(PARENT_FILES, by=STRANGER, name="elsewhere/base@v1", spdx="CC-BY-NC-4.0")[1].line
    readings = read_claims([BASE_LINE, again, OWNER.entry.line, STRANGER.entry.line], BASE)
    assert len(readings.publications) == 2
    for chosen in readings.publications:
        found, _ = lineage_of(readings, BASE, chosen, CHILD.policy, ())
        assert found.root.licences == (chosen.published.licence.spdx,)
    none, _ = lineage_of(readings, BASE, None, CHILD.policy, ())
    assert none.root.missing


def test_the_order_of_claims_changes_no_row() -> None:
    checker = identity("Checking lab", "ES")
    more = (BASE_LINE, checker.entry.line, derived_line(CHILD.artifact, BASE), STRANGER.entry.line)
    expected = row(CHILD.saying(*more))
    for order in itertools.islice(itertools.permutations(more), 8):
        assert row(CHILD.saying(*order)) == expected
    mixed = [*CHILD.claims, *more]
    random.Random(1).shuffle(mixed)
    assert row(replace(CHILD, claims=tuple(mixed))) == expected


def test_lineage_never_changes_the_rows_that_more_evidence_cannot_change() -> None:
    before = CHILD.verdict()
    checker = identity("Checking lab", "ES")
    after = CHILD.saying(BASE_LINE, checker.entry.line, derived_line(CHILD.artifact, BASE, exact=False)).verdict()
    for name in ("artifact", "bytes", "signatures", "transparency", "cosigners"):
        assert after.row(name).state == before.row(name).state == "pass"
