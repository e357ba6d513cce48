"""Invariants I3, I5 and I10: what neither a charter nor a fork of one changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comity.rules.charter_drafts import assemble, draft
from comity.rules.tally import compute_tally
from comity.trust.charter.certificate import certify
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry, sign_statement
from comity.trust.verify import verify
from hypothesis import given
from hypothesis import strategies as st
from support.case import case, nodes
from support.charters import cheaply_signed, drafts, founded, intent, ratify, seated, votes

PEOPLE = [seated(f"Institute {number}") for number in range(4)]
NAMES = {"swiss-ai": sha256(b"one"), "allen-ai": sha256(b"two")}


@given(st.dictionaries(st.sampled_from([*NAMES, "qwen"]), st.sampled_from([*NAMES.values(), sha256(b"three")])))
def test_i5_no_vote_gives_the_name_of_a_publisher_to_another(names: dict[str, Digest]) -> None:
    previous = draft(founded(PEOPLE), namespaces=NAMES)
    body = draft(previous, namespaces=names)
    made = assemble(previous, body, votes(PEOPLE, previous, body), signed=cheaply_signed)
    assert (made is not None) == (names.items() >= NAMES.items())


GOOD = case()
JUDGES, GONE = [node.seat for node in nodes()[1:]], nodes()[0].seat
ROWS = ("artifact", "bytes", "signatures", "transparency", "cosigners")


def states(claims: Sequence[bytes], pin: Body) -> dict[str, str]:
    verdict = verify(replace(GOOD.evidence, claims=tuple(claims)), replace(GOOD.policy, pins=(pin,)))
    return {row: verdict.row(row).state for row in ROWS}


def test_i3_members_that_block_every_vote_change_no_verdict() -> None:
    previous = GOOD.federation.body
    quarrel = [
        sign_statement(intent(previous, each.id, round_, body).statement(), each.signer).line
        for round_ in range(1, 6)
        for each, body in zip(JUDGES[:2], drafts(previous), strict=True)
    ]
    assert compute_tally(previous, map(parse_entry, quarrel), {}).current == previous
    assert set(states(GOOD.claims, previous).values()) == {"pass"}
    assert states([*quarrel, *GOOD.claims], previous) == states(GOOD.claims, previous)


def test_i10_a_removed_member_loses_its_vote_and_none_of_its_statements() -> None:
    """Its log still holds the publication, for every reader that pins a charter that lists it."""
    previous = GOOD.federation.body
    rest = [seat for seat in previous.members if seat.id != GONE.id]
    removal = draft(previous, members=rest, policy=replace(previous.policy, quorum_change=3))
    said = [
        sign_statement(reading.statement(), each.signer)
        for each in JUDGES
        for reading in (intent(previous, each.id, 1, removal), ratify(previous, each.id, 1, removal))
    ]
    removed = certify(previous, removal, [entry.line for entry in said])
    assert states([*removed.lines, *GOOD.claims], previous) == states(GOOD.claims, previous)
    assert states(GOOD.claims, removal)["signatures"] == "pass"
    last_word = sign_statement(intent(removal, GONE.id, 1, drafts(removal)[0]).statement(), GONE.signer)
    tally = compute_tally(previous, [*said, last_word], {removal.digest: removal.data})
    assert tally.current == removal
    assert GONE.id not in {duty.member for duty in tally.duties} | set().union(*tally.voters_by_round.values())
