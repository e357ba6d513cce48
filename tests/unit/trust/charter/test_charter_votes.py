"""Votes and consents as signed statements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.trust.charter.votes import (
    Intent,
    Ratify,
    RoundBody,
    adopted_statement,
    consent_statement,
    draft_statement,
    left_statement,
    parse_body_statement,
    parse_vote,
    void_reason,
)
from comity.trust.encoding import canonical, parse_json, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import (
    Author,
    Entry,
    SideObject,
    Statement,
    Subject,
    parse_entry,
    sign_payload,
    sign_statement,
)
from support.assembly import change, found, members

SEATS = members(4)
ME = SEATS[0]
BODY = found(SEATS)
NEXT = change(BODY)
B, H = sha256(b"b"), sha256(b"h")
INTENT = Intent(ME.id, BODY.digest, 1, 3, B, RoundBody(1, H), 2)
RATIFY = Ratify(ME.id, BODY.digest, 1, 3, B)


def signed(statement: Statement) -> Entry:
    return sign_statement(statement, ME.signer)


@pytest.mark.parametrize("reading", [INTENT, replace(INTENT, last_ratified=None, unlock=None), RATIFY])
def test_a_vote_reads_back(reading: Intent | Ratify) -> None:
    assert parse_vote(signed(reading.statement())) == reading


def test_the_subject_of_a_vote_is_the_body() -> None:
    assert INTENT.statement().subjects == (Subject("charter", B),)


@pytest.mark.parametrize("signer", [1, 2])
def test_m_of_k_sign_identical_bytes(signer: int) -> None:
    entries = [sign_statement(INTENT.statement(), who.signer) for who in (SEATS[0], SEATS[signer])]
    assert len({entry.envelope.payload for entry in entries}) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"round": 0}, id="round zero"),
        pytest.param({"round": True}, id="a round that is no number"),
        pytest.param({"epoch": 0}, id="epoch zero"),
        pytest.param({"unlock": 0}, id="unlock zero"),
        pytest.param({"unlock": "1"}, id="unlock as text"),
        pytest.param({"last_ratified": {"round": 0, "body": H}}, id="ratified in round zero"),
        pytest.param({"last_ratified": {"round": 1}}, id="ratified no body"),
        pytest.param({"last_ratified": {"round": 1, "body": H, "unless": 1}}, id="an additional member"),
        pytest.param({"prev": None}, id="no body before"),
        pytest.param({"body": "b"}, id="no digest"),
        pytest.param({"unless": "paid"}, id="a condition"),
    ],
)
def test_a_malformed_intent_is_no_vote(change: dict[str, Any]) -> None:
    statement = INTENT.statement()
    with pytest.raises(Malformed):
        parse_vote(signed(replace(statement, body={**statement.body, **change})))


@pytest.mark.parametrize("missing", ["prev", "epoch", "round", "body", "last_ratified", "unlock"])
def test_an_intent_leaves_nothing_out(missing: str) -> None:
    statement = INTENT.statement()
    body = {name: value for name, value in statement.body.items() if name != missing}
    with pytest.raises(Malformed):
        parse_vote(signed(replace(statement, body=body)))


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(replace(RATIFY.statement(), by=Author("node", ME.id)), id="by a node"),
        pytest.param(replace(RATIFY.statement(), predicate="vouched"), id="another predicate"),
        pytest.param(replace(RATIFY.statement(), subjects=(Subject("charter", H),)), id="another subject"),
        pytest.param(replace(RATIFY.statement(), subjects=(Subject("my charter", B),)), id="another name"),
        pytest.param(replace(RATIFY.statement(), objects=(SideObject(B, 1),)), id="a side object"),
        pytest.param(
            replace(RATIFY.statement(), body={**RATIFY.statement().body, "unlock": None}), id="an additional member"
        ),
    ],
)
def test_a_second_spelling_of_a_vote_is_refused(statement: Statement) -> None:
    with pytest.raises(Malformed):
        parse_vote(signed(statement))


def test_white_space_makes_a_second_spelling() -> None:
    payload = RATIFY.statement().encode()
    assert canonical(parse_json(payload + b" ", limit=10_000)) == payload
    with pytest.raises(Malformed, match="not the canonical encoding"):
        parse_vote(parse_entry(sign_payload(payload + b" ", ME.signer).encode()))


@pytest.mark.parametrize(
    ("round_", "body", "last", "unlock", "counts"),
    [
        (1, B, None, None, True),
        (9, B, None, None, True),
        (2, B, None, 1, False),
        (3, B, (1, H), None, False),
        (3, B, (1, H), 1, False),
        (3, B, (1, H), 2, True),
        (3, B, (1, H), 3, False),
        (3, B, (1, H), 4, False),
        (3, B, (2, H), 2, False),
        (3, B, (2, H), 1, False),
        (3, H, (1, H), None, False),
        (3, H, (1, H), 1, True),
        (3, H, (1, H), 2, True),
        (3, H, (2, H), 1, False),
        (3, H, (3, H), None, False),
        (3, H, (3, H), 3, False),
        (3, H, (3, B), 2, False),
        (3, H, (4, H), 4, False),
    ],
)
def test_an_intent_is_void_unless_its_unlock_covers_its_lock(
    round_: int, body: Any, last: tuple[int, Any] | None, unlock: int | None, counts: bool
) -> None:
    locked = RoundBody(*last) if last else None
    assert (void_reason(Intent(ME.id, BODY.digest, 1, round_, body, locked, unlock)) is None) is counts


def test_drafts_and_requests_to_leave_read_back_with_their_texts() -> None:
    draft = parse_body_statement(signed(draft_statement(NEXT, ME.id, "Because\nwe must.")))
    assert (draft.predicate, draft.by, draft.prev, draft.body, draft.text) == (
        "draft",
        ME.id,
        BODY.digest,
        NEXT.digest,
        "Because\nwe must.",
    )
    left = parse_body_statement(signed(left_statement(BODY, ME.id, "Farewell.")))
    assert (left.predicate, left.prev, left.body, left.text) == ("left", None, BODY.digest, "Farewell.")


def test_a_statement_that_names_a_body_has_it_as_a_side_object() -> None:
    for statement in (draft_statement(NEXT, ME.id, ""), adopted_statement(NEXT, ME.id), consent_statement(NEXT, ME.id)):
        assert statement.objects == (SideObject.of(NEXT.data),)


def test_a_node_adopts_and_does_nothing_else() -> None:
    adopted = adopted_statement(NEXT, ME.id)
    assert parse_body_statement(signed(adopted)).by == ME.id
    for statement in (
        replace(adopted, by=Author("identity", ME.id)),
        replace(draft_statement(NEXT, ME.id, ""), by=Author("node", ME.id)),
        replace(left_statement(BODY, ME.id), by=Author("node", ME.id)),
    ):
        with pytest.raises(Malformed):
            parse_body_statement(signed(statement))


@pytest.mark.parametrize("objects", [(), (SideObject.of(BODY.data),), (SideObject.of(NEXT.data),) * 2])
def test_a_draft_brings_its_body_and_nothing_else(objects: tuple[SideObject, ...]) -> None:
    with pytest.raises(Malformed, match="side object"):
        parse_body_statement(signed(replace(draft_statement(NEXT, ME.id, ""), objects=objects)))


def test_a_statement_of_another_type_is_no_vote_and_no_draft() -> None:
    for statement, parse in (
        (replace(RATIFY.statement(), predicate="advisory"), parse_vote),
        (replace(INTENT.statement(), predicate="advisory"), parse_vote),
        (replace(draft_statement(NEXT, ME.id, ""), predicate="misbehaviour"), parse_body_statement),
        (replace(consent_statement(NEXT, ME.id), predicate="misbehaviour"), parse_body_statement),
    ):
        with pytest.raises(Malformed, match="not a"):
            parse(signed(statement))


def test_a_draft_is_about_the_body_that_it_names() -> None:
    with pytest.raises(Malformed, match="another body"):
        parse_body_statement(
            signed(replace(draft_statement(NEXT, ME.id, ""), subjects=(Subject("charter", BODY.digest),)))
        )
    with pytest.raises(Malformed):
        parse_body_statement(signed(RATIFY.statement()))
    with pytest.raises(Malformed):
        parse_body_statement(signed(draft_statement(NEXT, ME.id, "x" * 4001)))
