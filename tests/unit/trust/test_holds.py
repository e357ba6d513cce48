"""`holds`: one signature for the copies of many artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.copies import MAX_HELD, MAX_LABEL, HeldArtifact, Holds, hold_of, read_holds
from comity.trust.encoding import Digest, b64encode, sha256
from comity.trust.errors import Malformed
from comity.trust.node_records import signed_by_node
from comity.trust.statement import MAX_OBJECT_BYTES, SideObject, Statement, Subject, parse_entry, sign_statement
from comity.trust.statement_kinds import HOLDS
from comity_client.pull.fetch import named_indexes
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import case, filled, nodes
from support.examples import examples
from support.world import identity

NODE, OTHER = nodes(2)
SIZES = st.integers(0, MAX_OBJECT_BYTES // 2)
HELD = st.lists(
    st.builds(
        lambda name, manifest, pieces, label: HeldArtifact(
            NODE.record.node, SideObject(sha256(name), manifest), SideObject(sha256(name + b"'"), pieces), label
        ),
        st.binary(max_size=4),
        SIZES,
        SIZES,
        st.sampled_from(("", "held again after entry 7")),
    ),
    min_size=2,
    max_size=5,
    unique_by=lambda item: item.artifact,
)


def some(count: int) -> list[HeldArtifact]:
    made = []
    for number in range(count):
        manifest, pieces = SideObject.of(b"manifest %d" % number), SideObject.of(b"pieces %d" % number)
        made.append(HeldArtifact(NODE.record.node, manifest, pieces))
    return made


@settings(max_examples=examples(10), deadline=None)
@given(HELD)
def test_holds_claim_the_same_as_a_hold_of_each_artifact(held: Sequence[HeldArtifact]) -> None:
    entry = parse_entry(sign_content(Holds.of(NODE.record.node, held), NODE.online).line)
    assert signed_by_node(entry, NODE.record)
    assert read_holds(entry.statement) == tuple(sorted(held, key=lambda item: item.artifact))
    for item in held:
        alone = sign_content(HeldArtifact(NODE.record.node, item.manifest, item.pieces, item.label), NODE.online)
        assert hold_of(entry.statement, item.artifact) == hold_of(alone.statement, item.artifact) == item


@pytest.mark.parametrize("other", ["another member", "another manifest", "another side object", "no side object"])
def test_a_hold_of_another_form_is_refused(other: str) -> None:
    first, second = some(2)
    alone = sign_content(HeldArtifact(NODE.record.node, first.manifest, first.pieces), NODE.online).statement
    changed = {
        "another member": replace(alone, body={**alone.body, "more": 1}),
        "another manifest": replace(
            alone,
            body={**alone.body, "manifest": second.manifest.to_json()},
            objects=(second.manifest, first.pieces),
        ),
        "another side object": replace(alone, objects=(first.manifest, second.pieces)),
        "no side object": replace(alone, objects=()),
    }
    assert HeldArtifact.parse(alone).pieces == first.pieces
    with pytest.raises(Malformed):
        HeldArtifact.parse(changed[other])


def test_the_largest_line_costs_less_than_a_tenth_of_single_holds() -> None:
    held = some(MAX_HELD)
    one = held[0]
    single = sign_content(HeldArtifact(NODE.record.node, one.manifest, one.pieces), NODE.online).line
    assert len(sign_content(Holds.of(NODE.record.node, held), NODE.online).line) * 10 < len(single) * len(held)


def test_holds_of_one_artifact_or_of_too_many_are_not_signed() -> None:
    for count in (0, 1, MAX_HELD + 1):
        with pytest.raises(Malformed):
            sign_content(Holds.of(NODE.record.node, some(count)), NODE.online)


def test_an_artifact_is_named_once() -> None:
    with pytest.raises(Malformed):
        sign_content(Holds.of(NODE.record.node, [*some(2), *some(1)]), NODE.online)


def test_an_artifact_that_is_not_named_is_not_held() -> None:
    statement = sign_content(Holds.of(NODE.record.node, some(3)), NODE.online).statement
    assert hold_of(statement, sha256(b"another artifact")) is None


GOOD = sign_content(Holds.of(NODE.record.node, some(2)), NODE.online).statement
BODY = dict(GOOD.body)
PIECES = bytes(72)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"subjects": GOOD.subjects[::-1]}, id="not in order"),
        pytest.param({"subjects": GOOD.subjects[:1] * 2}, id="one artifact twice"),
        pytest.param({"subjects": (*GOOD.subjects, Subject("", Digest("f" * 64)))}, id="more artifacts than sizes"),
        pytest.param({"subjects": (GOOD.subjects[0], replace(GOOD.subjects[1], name="x" * 65))}, id="a long label"),
        pytest.param({"by": identity("Security desk", "ES").inception.author}, id="by an identity"),
        pytest.param({"predicate": "hold"}, id="another predicate"),
        pytest.param({"body": {**BODY, "manifests": [1]}}, id="a size too few"),
        pytest.param({"body": {**BODY, "manifests": [1, True]}}, id="an invalid size"),
        pytest.param({"body": {**BODY, "manifests": [1, "5"]}}, id="a size that is a text"),
        pytest.param({"body": {**BODY, "manifests": [1, None]}}, id="no size"),
        pytest.param({"body": {**BODY, "manifests": [1, MAX_OBJECT_BYTES + 1]}}, id="a size too large"),
        pytest.param({"body": {**BODY, "manifests": [1, -1]}}, id="a size below zero"),
        pytest.param({"body": {**BODY, "pieces": b64encode(PIECES[1:])}}, id="a record too short"),
        pytest.param({"body": {**BODY, "pieces": b64encode(bytes([255]) + PIECES[1:])}}, id="an index too large"),
        pytest.param({"body": {**BODY, "more": 1}}, id="another member"),
    ],
)
def test_invalid_holds_are_refused(change: dict[str, Any]) -> None:
    Holds.parse(GOOD)
    with pytest.raises(Malformed):
        Holds.parse(replace(GOOD, **change))


def test_holds_may_have_the_longest_label_and_the_largest_sizes() -> None:
    largest = MAX_OBJECT_BYTES.to_bytes(4, "big")
    subjects = (GOOD.subjects[0], replace(GOOD.subjects[1], name="x" * MAX_LABEL))
    body = {**BODY, "manifests": [0, MAX_OBJECT_BYTES], "pieces": b64encode(bytes(36) + largest + bytes(32))}
    first, second = Holds.parse(replace(GOOD, subjects=subjects, body=body)).held
    assert (first.manifest.size, first.pieces.size, first.label) == (0, 0, "")
    assert (second.manifest.size, second.pieces.size, len(second.label)) == (MAX_OBJECT_BYTES, MAX_OBJECT_BYTES, 64)
    over = b64encode(bytes(36) + (MAX_OBJECT_BYTES + 1).to_bytes(4, "big") + bytes(32))
    with pytest.raises(Malformed, match="holds"):
        Holds.parse(replace(GOOD, body={**BODY, "pieces": over}))
    with pytest.raises(Malformed, match="not a holds statement"):
        Holds.parse(replace(GOOD, by=None))


def test_holds_have_no_side_objects() -> None:
    with pytest.raises(Malformed, match="no side objects"):
        Statement.parse(replace(GOOD, objects=(SideObject.of(b"x"),)).encode())


CASE = case()
PUBLISHED = sha256(b"the index that a publication names")
HOLDER = CASE.claims[-1]


def beside(artifact: str, *, count: int = 3) -> list[HeldArtifact]:
    """The `holds` of the last holder of the case: the artifact among others."""
    said = read_holds(parse_entry(HOLDER).statement)[0]
    return [replace(said, label=""), *(replace(item, by=said.by) for item in some(count))]


def test_a_verdict_counts_an_artifact_among_others_like_a_hold_of_it_alone() -> None:
    node = nodes()[-1]
    together = sign_content(Holds.of(node.record.node, beside(CASE.artifact)), node.online)
    log = filled(node)
    log.append(together.line)
    alone = CASE.verdict().row("replicas")
    proofs = tuple(proof for proof in CASE.proofs if proof.line != parse_entry(HOLDER).digest)
    claims = (*CASE.claims[:-1], together.line)
    now = replace(CASE, claims=claims, proofs=(*proofs, log.proof(together.line))).verdict()
    assert (now.row("replicas").state, now.row("replicas").summary) == (alone.state, alone.summary)
    unproven = replace(CASE, claims=claims, proofs=proofs).verdict()
    assert node.record.name not in unproven.row("replicas").summary


def test_a_client_asks_for_the_piece_indexes_of_its_own_artifact_only() -> None:
    node, held = nodes()[-1], beside(CASE.artifact)
    own = replace(held[0], pieces=SideObject.of(b"another index of the same files"))
    line = sign_content(Holds.of(node.record.node, [own, *held[1:]]), node.online).line
    readings = read_claims((line,), CASE.artifact)
    assert named_indexes(readings, CASE.artifact, None) == [own.pieces.digest]
    assert named_indexes(readings, held[1].artifact, PUBLISHED) == [PUBLISHED, held[1].pieces.digest]


def test_holds_that_another_key_signed_are_a_note() -> None:
    forged = sign_statement(sign_content(Holds.of(OTHER.record.node, some(2)), OTHER.online).statement, NODE.online)
    subjects = sorted((Subject("", CASE.artifact), forged.statement.subjects[0]), key=lambda subject: subject.digest)
    about = replace(forged.statement, subjects=tuple(subjects))
    verdict = CASE.saying(sign_statement(about, NODE.online).line).verdict()
    assert HOLDS in verdict.row("notes").summary
    assert verdict.row("replicas") == CASE.verdict().row("replicas")
