"""The proof against a provider: it convicts by itself, and nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.offers.fault_proof import FaultProof, ProvenRecord, verify_fault_proof
from comity.trust.offers.records import Grant, record_statement
from comity.trust.statement import Entry
from comity.trust.tlog.merkle import MemoryTree, inclusion_proof, leaf_hash
from comity.trust.tlog.note import Checkpoint
from comity.trust.tlog.proof import TlogProof
from support.offers import GRANTEE, HOLDER, LOG, LOG_KEY, NODE, ONLINE, START, Written, hours, to

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
    log.add(record_statement(Grant(link, asked.digest, GRANTEE, (hours(5, 6),), START + DAY), NODE), ONLINE)
    return log


def two_books() -> tuple[Written, Written]:
    """One chain, gone on with in two ways."""
    first, second = Written(), Written()
    for log, hour in ((first, 0), (second, 50)):
        chain = log.post()
        log.grant(chain, hours(hour, hour + 10, nodes=4))
    return first, second


def test_i11_whoever_overbooks_is_convicted_by_the_chain_alone() -> None:
    log = overbooked()
    fault_proof = FaultProof.parse(shown(log.entries, by_node(log)).encode())
    assert verify_fault_proof(fault_proof, LOG, ONLINE.public) == "overbooked"


def test_i11_two_records_of_one_number_convict_in_whichever_branches_they_stand() -> None:
    first, second = two_books()
    proofs = []
    for fault_proof in (shown(first.entries, [2]), shown(second.entries, [2])):
        (exhibit,) = fault_proof.records
        proofs.append((exhibit.line, TlogProof(exhibit.index, exhibit.hashes, fault_proof.notes[0])))
    both = FaultProof.of(proofs)
    assert len(both.notes) == 2
    assert verify_fault_proof(FaultProof.parse(both.encode()), LOG, ONLINE.public) == "forked"


def test_an_honest_chain_convicts_nobody_however_it_is_cut() -> None:
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


def test_a_chain_cut_short_does_not_convict() -> None:
    log = overbooked()
    for kept in (by_node(log)[1:], by_node(log)[:-1], by_node(log)[::2]):
        with pytest.raises(Untrusted):
            verify_fault_proof(shown(log.entries, kept), LOG, ONLINE.public)


def test_a_record_that_does_not_stand_in_the_log_convicts_nobody() -> None:
    log = overbooked()
    stranger = PrivateKey.generate("ed25519")
    with pytest.raises(ComityError):
        verify_fault_proof(shown(log.entries, by_node(log), key=stranger), LOG, ONLINE.public)
    fault_proof = shown(log.entries, by_node(log))
    moved = replace(fault_proof, records=(*fault_proof.records[:-1], replace(fault_proof.records[-1], index=0)))
    with pytest.raises(ComityError):
        verify_fault_proof(moved, LOG, ONLINE.public)


def test_what_another_key_signed_convicts_nobody() -> None:
    log = overbooked()
    with pytest.raises(Untrusted):
        verify_fault_proof(shown(log.entries, by_node(log)), LOG, HOLDER.public)
