"""Chains of offers: no instant is granted twice, whatever happens; and every change of a chain is detected."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from comity.rules.offers.log_reader import OfferLogReader
from comity.rules.offers.offer import SliceAllocation, Window
from comity.rules.offers.records import (
    Acceptance,
    Accepted,
    CutOff,
    GivingBack,
    Lapsed,
    Offered,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Withdrawn,
)
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import ComityError, Refused
from comity.trust.statement import Entry, Envelope, parse_entry, sign_payload
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from support.examples import examples
from support.offers import GRANTEE, HOUR, LOG, NODE, ONLINE, START, Written, a_slice, an_offer, hours, to

HOURS = 24
NODES, AMOUNT = 4, 60


def small(**more: Any) -> Any:
    kept = {"slices": (a_slice(nodes=NODES, amount=AMOUNT), a_slice(name="cpu", nodes=2, amount=9))}
    return an_offer(window=Window(START, START + HOURS * HOUR), accept_seconds=3 * HOUR, **(kept | more))


wanted = st.builds(
    lambda first, length, nodes, amount: hours(
        first, min(HOURS, first + length), nodes=nodes, amount=min(amount, 8 * nodes)
    ),
    st.integers(0, HOURS - 1),
    st.integers(1, HOURS),
    st.integers(1, NODES),
    st.integers(1, AMOUNT),
)


class Lending(RuleBasedStateMachine):
    """A provider that tries every record on its chain, and is killed now and then; a second chain state that only reads
    the log; and a separate count of nodes, hour by hour.
    """

    grants = Bundle("grants")

    def __init__(self) -> None:
        super().__init__()
        self.log = Written()
        self.chain = self.log.post(small())
        self.now = START

    @rule(target=grants, allocation=wanted, pact=st.booleans())
    def grant(self, allocation: SliceAllocation, pact: bool) -> Entry | None:
        granted: Entry | None = self._try(lambda: self.log.grant(self.chain, allocation, at=self.now, pact=pact))
        return granted

    @rule(hours=st.integers(0, 5))
    def pass_time(self, hours: int) -> None:
        self.now += hours * HOUR + 1

    @rule(grant=grants)
    def accept(self, grant: Entry | None) -> None:
        if grant:
            said = self.log.say(Acceptance(GRANTEE, self.chain, grant.digest))
            self._try(lambda: self.log.record(Accepted(to(self.chain), grant.digest, said.digest), at=self.now))

    @rule(grant=grants)
    def lapse(self, grant: Entry | None) -> None:
        if grant:
            self._try(lambda: self.log.record(Lapsed(to(self.chain), grant.digest), at=self.now))

    @rule(grant=grants, amount=st.integers(1, 20))
    def redeem(self, grant: Entry | None, amount: int) -> None:
        if grant:
            held = self.log.chain(self.chain).state.grants[grant.digest]
            said = self.log.say(Redemption(GRANTEE, self.chain, grant.digest, (amount,), held.newest))
            cut_off = None
            if held.grant.pact:
                cut_off = self.log.say(CutOff(GRANTEE, self.chain, grant.digest, False, str(self.now))).digest
            record = Redeemed(to(self.chain), grant.digest, said.digest, (amount,), cut_off)
            self._try(lambda: self.log.record(record, at=self.now))

    @rule(grant=grants, asked=st.booleans())
    def release(self, grant: Entry | None, asked: bool) -> None:
        if grant:
            said = self.log.say(GivingBack(GRANTEE, self.chain, grant.digest)).digest if asked else None
            self._try(lambda: self.log.record(Released(to(self.chain), grant.digest, said), at=self.now))

    @rule(allocation=wanted)
    def reject(self, allocation: SliceAllocation) -> None:
        asked = self.log.request(self.chain, allocation)
        self._try(lambda: self.log.record(Rejected(to(self.chain), asked.digest), at=self.now))

    @rule(nodes=st.integers(1, 6), amount=st.integers(20, 80))
    def supersede(self, nodes: int, amount: int) -> None:
        parts = (a_slice(nodes=nodes, amount=amount), a_slice(name="cpu", nodes=2, amount=9))
        newer = small(slices=parts, supersedes=self.log.chain(self.chain).state.offer.id)
        self._try(lambda: self.log.record(Offered(to(self.chain), newer), at=self.now))

    @precondition(lambda self: len(self.log.entries) > 30)
    @rule()
    def withdraw(self) -> None:
        self._try(lambda: self.log.record(Withdrawn(to(self.chain)), at=self.now))

    @rule()
    def die(self) -> None:
        """Everything except the log is lost."""
        log, entries = Written(), self.log.entries
        for index, entry in enumerate(entries):
            log.log.read(index, entry, True)
        log.entries, log.number = entries, self.log.number
        self.log = log

    @invariant()
    def no_instant_is_given_out_twice(self) -> None:
        book = self.log.chain(self.chain).state
        taken: Counter[int] = Counter()
        amount = 0
        for held in book.grants.values():
            (allocation,) = held.grant.allocations
            if held.state in ("granted", "accepted"):
                amount += allocation.amount
                for at in range(allocation.start, allocation.end, HOUR):
                    taken[at] += allocation.nodes
            elif held.state == "released":
                amount += held.redeemed[0]
            assert 0 <= held.redeemed[0] <= allocation.amount
        part = book.offer.slices[0]
        assert all(nodes <= part.nodes for at, nodes in taken.items() if at >= book.at)
        assert amount <= part.amount
        assert book.remaining[0] == part.amount - amount

    @invariant()
    def a_reader_of_the_log_finds_no_fault(self) -> None:
        chain = self.log.chain(self.chain)
        assert chain.fault is None
        assert len(chain.indexes) == chain.state.seq + 1

    def _try(self, act: Any) -> Any:
        size = len(self.log.entries)
        try:
            return act()
        except Refused:
            assert all(entry.statement.by != NODE for entry in self.log.entries[size:])
            return None


Lending.TestCase.settings = settings(max_examples=examples(30), stateful_step_count=40, deadline=None)
TestLending = Lending.TestCase


def _life() -> Written:
    """A chain with a record of every kind."""
    log = Written()
    chain = log.post(small())
    first = log.grant(chain, hours(0, 10, nodes=2, amount=30), at=START)
    said = log.say(Acceptance(GRANTEE, chain, first.digest))
    newest = log.record(Accepted(to(chain), first.digest, said.digest), at=START + 10)
    said = log.say(Redemption(GRANTEE, chain, first.digest, (10,), newest.digest))
    log.record(Redeemed(to(chain), first.digest, said.digest, (10,)), at=START + 20)
    second = log.grant(chain, hours(2, 12, nodes=1, amount=20), at=START + 30)
    log.record(Lapsed(to(chain), second.digest), at=START + 100_000)
    back = log.say(GivingBack(GRANTEE, chain, first.digest))
    log.record(Released(to(chain), first.digest, back.digest), at=START + 100_001)
    log.record(Withdrawn(to(chain), "done"), at=START + 100_002)
    return log


LIFE = _life()
RECORDS = [at for at, entry in enumerate(LIFE.entries) if entry.statement.by == NODE]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [found for at, item in enumerate(value) for found in leaves(item, (*path, at))]
    return [(path, value)]


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if value is None:
        return sha256(b"another")
    if len(value) == 64 and all(digit in "0123456789abcdef" for digit in value):
        return sha256(value.encode())
    return value + "x"


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


def tampered(entry: Entry, data: st.DataObject) -> tuple[dict[str, Any], tuple[Any, ...]]:
    document = json.loads(entry.envelope.payload)
    path, value = data.draw(st.sampled_from(leaves(document)))
    put(document, path, changed(value))
    return document, path


def read(entries: list[bytes]) -> OfferLogReader:
    log = OfferLogReader(str(LOG))
    for index, line in enumerate(entries):
        try:
            entry = parse_entry(line)
        except ComityError:
            continue
        by = entry.statement.by
        genuine = entry.envelope.verified_by(ONLINE.public) if by is not None and by.kind == "node" else True
        log.read(index, entry, genuine)
    return log


def summary(log: OfferLogReader) -> Any:
    chains = list(log.chains.values())
    return [(c.state.chain, c.state.seq, c.state.last, c.state.remaining, c.fault) for c in chains]


WHOLE = summary(read([entry.line for entry in LIFE.entries]))


@settings(max_examples=examples(200))
@given(st.sampled_from(RECORDS), st.data())
def test_a_record_changed_in_one_field_does_not_count(at: int, data: st.DataObject) -> None:
    document, _ = tampered(LIFE.entries[at], data)
    envelope = LIFE.entries[at].envelope
    lines = [entry.line for entry in LIFE.entries]
    lines[at] = Envelope(envelope.payload_type, canonical(document), envelope.signatures).encode()
    assert summary(read(lines)) != WHOLE


@settings(max_examples=examples(200))
@given(st.sampled_from(RECORDS[:-1]), st.data())
def test_a_record_changed_in_one_field_and_signed_again_breaks_its_chain(at: int, data: st.DataObject) -> None:
    document, path = tampered(LIFE.entries[at], data)
    lines = [entry.line for entry in LIFE.entries]
    lines[at] = sign_payload(canonical(document), ONLINE).encode()
    log = read(lines)
    chains = list(log.chains.values())
    whole = [c for c in chains if c.fault is None and c.state.seq == WHOLE[0][1]]
    assert not whole, path


@given(st.sampled_from(RECORDS[1:-1]))
def test_a_record_left_out_breaks_its_chain(at: int) -> None:
    lines = [entry.line for entry in LIFE.entries]
    del lines[at]
    (chain,) = read(lines).chains.values()
    assert chain.fault is not None


@given(st.permutations(range(len(LIFE.entries))))
def test_records_in_another_order_never_give_the_same_chain_state(order: list[int]) -> None:
    log = read([LIFE.entries[at].line for at in order])
    same_order = [at for at in order if at in RECORDS] == RECORDS
    if not same_order:
        assert summary(log) != WHOLE
