"""Who signs when machines are requested: a member by m of k keys, each of whose holders sees what it signs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.rules.offers.records import GrantRequest, read_party_statement
from comity.trust.encoding import sha256
from comity.trust.errors import Refused
from comity.trust.identity import KeySet
from comity_client.charter.proposals import plan_carried
from comity_client.identity_signer import IdentitySigner
from support.offers import hours
from support.world import found, node, seat, signer

SEAT = seat("ES")
SIGNERS = tuple(signer(f"governance {n}") for n in range(3))
KEYS = KeySet(tuple(each.public for each in SIGNERS), 2)
SAID = GrantRequest(SEAT.id, sha256(b"offer"), (hours(0, 10),), 7, text="for a \u202emodel")


def signer_with(*signers: int) -> IdentitySigner:
    return IdentitySigner(SEAT.id, "Institute ES", tuple(SIGNERS[n] for n in signers), KEYS, ())


def test_keys_up_to_the_members_threshold_sign_together() -> None:
    entry = signer_with(0, 2).sign(SAID)
    assert read_party_statement(entry.statement) == SAID
    assert KEYS.signed(entry.envelope)


def test_fewer_keys_than_the_threshold_make_no_statement() -> None:
    with pytest.raises(Refused) as refused:
        signer_with(1).sign(SAID)
    assert refused.value.code == "NOT-A-SIGNER"


def test_the_next_signer_sees_the_request_and_completes_it() -> None:
    charter = found((node(seat("CH")), node(SEAT))).body
    carried = signer_with(1).begin_ceremony(SAID, charter.data)
    assert not carried.complete
    shown = plan_carried(carried.encode())
    facts = dict(shown.facts)
    assert shown.title == "REQUEST: Institute ES (ES) makes a statement about a compute offer"
    assert (facts["offer"], shown.text) == (SAID.offer, SAID.text)
    assert '"nodes": 1' in facts["allocations"]
    whole = shown.ceremony.with_signature(SIGNERS[2])
    assert read_party_statement(whole.entry().statement) == SAID
    assert replace(shown, ceremony=whole).material.lines == {whole.entry().line}
