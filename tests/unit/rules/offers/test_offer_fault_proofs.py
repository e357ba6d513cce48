"""The fault proof against a provider: it is complete by itself, and proves nothing against others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.offers.amounts import Usage
from comity.rules.offers.fault_proof import MAX_NOTES, FaultProof, OfferFault, ProvenRecord, verify_fault_proof
from comity.rules.offers.offer import Window
from comity.rules.offers.records import Grant, Withdrawn
from comity.rules.signing import statement_of
from comity.rules.tree_proofs import MemoryTree, inclusion_proof
from comity.trust.encoding import b64encode, canonical, sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.statement import Entry, SideObject, Subject
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint
from comity.trust.tlog.proof import TlogProof
from support.offers import GRANTEE, HOLDER, LOG, LOG_KEY, NODE, ONLINE, START, Written, an_offer, hours, to

DAY = 86_400


def shown(entries: list[Entry], indexes: list[int], *, key: PrivateKey = LOG_KEY) -> FaultProof:
    """These entries of a log, under its newest checkpoint."""
    tree = MemoryTree(leaf_hash(entry.line) for entry in entries)
    note = Checkpoint(LOG.name, tree.size, tree.root()).signed(key)
    records = [ProvenRecord(entries[at].line, at, inclusion_proof(at, tree.size, tree.node), 0) for at in indexes]
    return FaultProof((note,), tuple(records))


def by_node(log: Written) -> list[int]:
    return [at for at, entry in enumerate(log.entries) if entry.statement.by == NODE]


def overbooked() -> Written:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 10, nodes=4, amount=8))
    asked = log.request(chain, hours(5, 6))
    link = replace(to(chain), seq=2, prev=log.chain(chain).state.last, at=START, remaining=(984,))
    log.add(statement_of(Grant(link, asked.digest, GRANTEE, (hours(5, 6),), START + DAY), NODE), ONLINE)
    return log


def two_books() -> tuple[Written, Written]:
    """One chain, continued in two ways."""
    first, second = Written(), Written()
    for log, hour in ((first, 0), (second, 50)):
        chain = log.post()
        log.grant(chain, hours(hour, hour + 10, nodes=4))
    return first, second


def test_i11_the_chain_alone_proves_overbooking() -> None:
    log = overbooked()
    fault_proof = FaultProof.parse(shown(log.entries, by_node(log)).encode())
    assert verify_fault_proof(fault_proof, LOG, ONLINE.public) == "overbooked"


def test_i11_two_records_of_one_number_are_a_fault_in_any_branches() -> None:
    first, second = two_books()
    proofs = []
    for fault_proof in (shown(first.entries, [2]), shown(second.entries, [2])):
        (exhibit,) = fault_proof.records
        proofs.append((exhibit.line, TlogProof(exhibit.index, exhibit.hashes, fault_proof.notes[0])))
    both = FaultProof.of(proofs)
    assert len(both.notes) == 2
    assert verify_fault_proof(FaultProof.parse(both.encode()), LOG, ONLINE.public) == "forked"


def test_an_honest_chain_proves_no_fault_at_any_cut() -> None:
    log = Written()
    chain = log.post()
    for hour in (0, 10, 20):
        log.grant(chain, hours(hour, hour + 10, nodes=4))
    records = by_node(log)
    for last in range(1, len(records) + 1):
        for first in range(last):
            for left_out in (None, *records[first:last]):
                kept = [at for at in records[first:last] if at != left_out]
                if kept:
                    with pytest.raises(Untrusted):
                        verify_fault_proof(shown(log.entries, kept), LOG, ONLINE.public)


def refused(log: Written, kept: list[int], why: str) -> None:
    with pytest.raises(Untrusted, match=why) as caught:
        verify_fault_proof(shown(log.entries, kept), LOG, ONLINE.public)
    assert caught.value.code == "NO-MISBEHAVIOUR"


def test_a_truncated_chain_proves_no_fault() -> None:
    log = overbooked()
    refused(log, by_node(log)[1:2], "records before the last one are missing")
    refused(log, by_node(log)[::2], "records before the last one are missing")
    refused(log, by_node(log)[:-1], "the rules allow each record")
    refused(log, by_node(log)[:1], "the rules allow each record")
    with pytest.raises(Untrusted):
        verify_fault_proof(shown(log.entries, by_node(log)[1:]), LOG, ONLINE.public)


def test_two_honest_chains_do_not_convict_their_provider() -> None:
    log = Written()
    for title in ("one", "two"):
        log.post(an_offer(title=title))
    refused(log, by_node(log), "several chains")


@pytest.mark.parametrize("change", [{"seq": 2}, {"seq": 5}, {"prev": sha256(b"another record")}, {"prev": None}])
def test_a_last_record_that_does_not_follow_those_that_are_shown_does_not_convict(change: dict[str, Any]) -> None:
    log = Written()
    chain = log.post()
    link = replace(to(chain), seq=1, prev=log.chain(chain).state.last, at=START, remaining=(1,))
    log.add(statement_of(Withdrawn(link), NODE), ONLINE)
    assert verify_fault_proof(shown(log.entries, by_node(log)), LOG, ONLINE.public) == "broken"
    log.add(statement_of(Withdrawn(replace(link, **change)), NODE), ONLINE)
    refused(log, [0, 2], "records before the last one are missing")


def test_another_statement_of_the_node_does_not_convict() -> None:
    log = Written()
    used = Usage(log.post(), sha256(b"a grant"), Window(START, START + 1), (1,))
    log.add(statement_of(used, NODE), ONLINE)
    refused(log, [1], "not a record signed by this node")


NOTE = shown(overbooked().entries, [0]).notes[0]


def changed(**change: Any) -> bytes:
    document = json.loads(shown(overbooked().entries, [0]).encode())
    return canonical({**document, **change})


def exhibits(count: int = 1, **change: Any) -> dict[str, Any]:
    (item,) = json.loads(changed())["exhibits"]
    return {"exhibits": [{**item, **change}] * count}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(changed(schema="comity/offer-dossier/v2"), id="another schema"),
        pytest.param(changed(notes=[]), id="no note"),
        pytest.param(changed(notes=[b64encode(NOTE.encode())] * (MAX_NOTES + 1)), id="many notes"),
        pytest.param(changed(more=1), id="an unknown member"),
        pytest.param(changed(exhibits=[]), id="no record"),
        pytest.param(changed(**exhibits(more=1)), id="an unknown member of a record"),
        pytest.param(changed(**exhibits(note=1)), id="a note that is not there"),
        pytest.param(changed(**exhibits(note=-1)), id="a negative number of a note"),
        pytest.param(changed(**exhibits(hashes=[b64encode(bytes(31))])), id="a short hash"),
        pytest.param(changed() + b"\n", id="another form"),
    ],
)
def test_a_malformed_proof_is_refused(data: bytes) -> None:
    assert FaultProof.parse(changed()).records
    assert len(FaultProof.parse(changed(notes=[b64encode(NOTE.encode())] * MAX_NOTES)).notes) == MAX_NOTES
    with pytest.raises(Malformed):
        FaultProof.parse(data)


FAULT = OfferFault(sha256(b"a chain"), str(LOG), 7, sha256(b"a line"), "broken")
STATEMENT = statement_of(FAULT, NODE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "offer"}, id="another predicate"),
        pytest.param({"by": None}, id="no author"),
        pytest.param({"by": replace(NODE, kind="identity")}, id="by an identity"),
        pytest.param({"subjects": (Subject("an offer", FAULT.chain),)}, id="another name of its subject"),
        pytest.param({"subjects": STATEMENT.subjects * 2}, id="two subjects"),
        pytest.param({"objects": (SideObject.of(b"x"),)}, id="a side object"),
        pytest.param({"body": {**STATEMENT.body, "more": 1}}, id="an unknown member"),
        pytest.param({"body": {**STATEMENT.body, "kind": "late"}}, id="an unknown kind"),
        pytest.param({"body": {**STATEMENT.body, "index": -1}}, id="a negative index"),
        pytest.param({"body": {**STATEMENT.body, "log": "node-ch/log"}}, id="a log without its key"),
    ],
)
def test_a_malformed_fault_statement_is_refused(change: dict[str, Any]) -> None:
    assert OfferFault.parse(STATEMENT) == FAULT
    with pytest.raises(Malformed):
        OfferFault.parse(replace(STATEMENT, **change))


def test_a_fault_that_nobody_could_read_is_not_stated() -> None:
    for change in ({"kind": "late"}, {"index": -1}, {"log": "node-ch/log"}):
        with pytest.raises(Malformed):
            statement_of(replace(FAULT, **change), NODE)


def test_a_record_outside_of_the_log_proves_no_fault() -> None:
    log = overbooked()
    stranger = PrivateKey.generate("ed25519")
    with pytest.raises(ComityError):
        verify_fault_proof(shown(log.entries, by_node(log), key=stranger), LOG, ONLINE.public)
    fault_proof = shown(log.entries, by_node(log))
    moved = replace(fault_proof, records=(*fault_proof.records[:-1], replace(fault_proof.records[-1], index=0)))
    with pytest.raises(ComityError):
        verify_fault_proof(moved, LOG, ONLINE.public)


def test_records_signed_by_another_key_prove_no_fault() -> None:
    log = overbooked()
    with pytest.raises(Untrusted):
        verify_fault_proof(shown(log.entries, by_node(log)), LOG, HOLDER.public)
