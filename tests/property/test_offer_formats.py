"""Statements about compute offers: every valid one reads back, and changed bytes raise only ComityError."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from comity.rules.offers.amounts import FAULTS, DefaultAnswer, Profile, Usage
from comity.rules.offers.fault_proof import OfferFault
from comity.rules.offers.log_reader import read_offer_statement
from comity.rules.offers.offer import Offer
from comity.rules.offers.records import PartyStatement, Record, read_party_statement, read_record
from comity.rules.signing import statement_of
from comity.trust.errors import ComityError, Malformed
from comity.trust.statement import Statement
from comity.trust.tlog.note import VerifierKey
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.offer_strategies import answers, digests, offers, records, said, usages
from support.offers import LOG, NODE


def again(statement: Statement) -> Statement:
    return Statement.parse(statement.encode())


@given(offers())
def test_an_offer_has_one_spelling_that_reads_back(offer: Offer) -> None:
    assert Offer.parse(offer.encode()) == offer


@given(records)
def test_every_record_reads_back(record: Record) -> None:
    statement = again(statement_of(record, NODE))
    assert read_record(statement) == read_offer_statement(statement) == record


@given(said)
def test_every_statement_of_a_grantee_reads_back(what: PartyStatement) -> None:
    statement = again(statement_of(what))
    assert read_party_statement(statement) == read_offer_statement(statement) == what


@given(usages, answers)
def test_usage_and_answers_read_back(usage: Usage, answer: DefaultAnswer) -> None:
    assert Usage.parse(again(statement_of(usage, NODE))) == usage
    assert DefaultAnswer.parse(again(statement_of(answer, NODE))) == answer


@given(st.builds(OfferFault, digests, st.just(str(LOG)), st.integers(0, 2**53 - 1), digests, st.sampled_from(FAULTS)))
def test_an_accusation_reads_back(accused: OfferFault) -> None:
    assert OfferFault.parse(again(statement_of(accused, NODE))) == accused
    assert VerifierKey.parse(accused.log) == LOG


@settings(max_examples=examples(60))
@given(st.one_of(records.map(lambda r: statement_of(r, NODE)), said.map(statement_of)), st.data())
def test_a_member_that_is_missing_strange_or_of_another_type_is_refused(
    statement: Statement, data: st.DataObject
) -> None:
    body: dict[str, Any] = json.loads(json.dumps(dict(statement.body)))
    name = data.draw(st.sampled_from(sorted(body)))
    for changed in (
        {key: value for key, value in body.items() if key != name},
        {**body, "strange": 1},
        {**body, name: {"no": "such"}},
    ):
        refused = Statement(statement.predicate, statement.subjects, statement.by, changed)
        with suppress(ComityError):
            read_offer_statement(refused)
            raise AssertionError(f"{name} of {statement.predicate} may be {changed.get(name)!r}")


@given(st.binary(max_size=300))
def test_noise_is_no_offer(data: bytes) -> None:
    with suppress(Malformed):
        Offer.parse(data)
        raise AssertionError("noise was read")


steps = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 5))


@given(added=st.lists(steps, max_size=30), data=st.data())
def test_a_profile_is_the_sum_at_every_instant(added: list[tuple[int, int, int]], data: st.DataObject) -> None:
    profile, levels = Profile(), [0] * 41
    standing: list[tuple[int, int, int]] = []
    for start, end, nodes in added:
        ends: bool = data.draw(st.booleans())
        if standing and ends:
            gone = standing.pop(data.draw(st.integers(0, len(standing) - 1)))
            profile.add(gone[0], gone[1], -gone[2])
            levels[gone[0] : max(gone[:2])] = [at - gone[2] for at in levels[gone[0] : max(gone[:2])]]
        profile.add(start, end, nodes)
        levels[start : max(start, end)] = [at + nodes for at in levels[start : max(start, end)]]
        standing.append((start, end, nodes))
    for first, last, _ in added:
        assert profile.peak(first, last) == max(levels[first:last], default=0)
    assert len(profile.steps()) <= 2 * len(standing)
