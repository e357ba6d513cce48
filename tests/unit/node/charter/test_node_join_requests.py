"""Requests to join: what a card has to prove, and how often one may ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.charter.admission import JoinRequests, check_card
from comity.node.members import Membership, OwnNode
from comity.node.threads import AsyncLedger, Pools
from comity.rules.signing import sign_content
from comity.trust.errors import ComityError, Conflict, Refused
from comity.trust.identity import KeySet
from comity.trust.node_records import Addresses
from comity.trust.rotation import KeyState, Rotation, rotate
from comity.trust.statement import Entry
from comity.wire.access import Caller
from support.world import Identity, Node, found, identity, node, seat, signer

CLASSICAL = ("ed25519",)
CH, SG, BR = (seat(code, CLASSICAL) for code in ("CH", "SG", "BR"))


def at(who: Identity) -> Node:
    return node(who, "", CLASSICAL)


def addresses(of: Node) -> Entry:
    return sign_content(Addresses.of(of.record, ["br.example:1"], []), of.online)


def rotation(who: Identity, name: str = "after") -> Entry:
    state, new = KeyState.of_inception(who.inception), signer(name, CLASSICAL)
    change = Rotation(who.id, 1, state.digest, KeySet((new.public,), 1), ())
    return rotate(state, change, [signer(f"{who.inception.label} recovery", CLASSICAL)], [new])


def lines(*entries: Entry) -> list[bytes]:
    return [entry.line for entry in entries]


CARD = lines(BR.entry, at(BR).entry, addresses(at(BR)))


def test_a_card_names_its_member() -> None:
    assert check_card(CARD) == BR.id
    assert check_card([*reversed(CARD), CARD[0]]) == BR.id
    assert check_card(lines(BR.entry, at(BR).entry)) == BR.id


def test_after_a_rotation_the_record_is_signed_by_the_new_keys() -> None:
    new = signer("after", CLASSICAL)
    renewed = sign_content(at(BR).record, new, *at(BR).bound)
    assert check_card(lines(BR.entry, rotation(BR), renewed)) == BR.id


PUBLISHER = identity("Somebody", algs=CLASSICAL)
UK = seat("UK", CLASSICAL)
"""The correct code is GB."""


@pytest.mark.parametrize(
    "card",
    [
        lines(at(BR).entry),
        lines(BR.entry),
        lines(BR.entry, CH.entry, at(BR).entry),
        lines(BR.entry, at(CH).entry),
        lines(BR.entry, at(BR).entry, at(CH).entry),
        lines(BR.entry, at(BR).entry, addresses(at(CH))),
        lines(BR.entry, rotation(BR), at(BR).entry),
        lines(BR.entry, rotation(BR), rotation(BR, "another"), at(BR).entry),
        lines(BR.entry, rotation(CH), at(BR).entry),
        lines(PUBLISHER.entry, at(BR).entry),
        lines(UK.entry, at(UK).entry),
        [b"{}"],
        [],
    ],
)
def test_a_card_that_does_not_prove_itself_is_refused(card: list[bytes]) -> None:
    with pytest.raises(ComityError) as caught:
        check_card(card)
    assert caught.value.exit_status == 3


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[AsyncLedger]:
    opened = AsyncLedger(Ledger.open(tmp_path, lambda: 1000.0))
    yield opened
    opened.close()


@pytest.fixture
def asks(ledger: AsyncLedger) -> JoinRequests:
    members = Membership(OwnNode.parse(CH.entry.line, at(CH).entry.line), found([at(CH), at(SG)]))
    return JoinRequests(ledger, Pools(), members, lambda: 0.0)


async def test_a_repeated_request_waits_once(asks: JoinRequests) -> None:
    for _ in range(2):
        receipt = await asks.put(Caller("192.0.2.1"), CARD)
        assert (receipt.member, receipt.since, receipt.waiting) == (BR.id, 1000, 1)
    assert [ask.lines async for ask in asks.all()] == [tuple(CARD)]


async def test_one_caller_asks_a_few_times_only(asks: JoinRequests) -> None:
    for _ in range(5):
        await asks.put(Caller("192.0.2.1"), CARD)
    with pytest.raises(Refused) as caught:
        await asks.put(Caller("192.0.2.1"), CARD)
    assert caught.value.code == "RATE"
    await asks.put(Caller("192.0.2.2"), CARD)
    for _ in range(10):
        await asks.put(Caller("operator", operator=True), CARD)


async def test_a_member_cannot_ask_to_join(asks: JoinRequests) -> None:
    with pytest.raises(Conflict) as caught:
        await asks.put(Caller("192.0.2.1"), lines(SG.entry, at(SG).entry))
    assert caught.value.code == "MEMBER-ALREADY"


async def test_requests_are_counted_for_the_caller_that_brings_them(asks: JoinRequests, ledger: AsyncLedger) -> None:
    for caller, block in (
        (Caller("198.51.100.7"), "198.51.100.0/24"),
        (Caller("operator", operator=True), "operator"),
    ):
        await asks.put(caller, CARD)
        kept = ledger.tables.join_requests.get(BR.id)
        assert kept is not None and kept.block == block
        ledger.tables.join_requests.drop(BR.id)


async def test_an_operator_keeps_or_deletes_a_request(asks: JoinRequests, ledger: AsyncLedger) -> None:
    await asks.put(Caller("192.0.2.1"), CARD)
    await asks.decide(BR.id, keep=True)
    kept = ledger.tables.join_requests.get(BR.id)
    assert kept is not None and kept.kept
    await asks.decide(BR.id, keep=False)
    assert [ask async for ask in asks.all()] == []
