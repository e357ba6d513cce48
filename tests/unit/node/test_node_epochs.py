"""Which epochs a node holds, and which branch of them it follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.federation_file import Federation
from comity.ledger.ledger import Ledger
from comity.node.epochs import EpochStore
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.votes import consent
from comity.trust.errors import NotFound, Unavailable, Untrusted
from support.assembly import Assembly, change


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1000.0)
    yield opened
    opened.close()


def file_of(assembly: Assembly, *certificates: Certificate) -> Federation:
    """The federation file of the assembly's genesis, and of epochs after it."""
    genesis = assembly.body
    lines = [line for who in assembly.seats for line in (who.entry.line, consent(genesis, who.id, who.signer).line)]
    chain = [genesis, *(certificate.body for certificate in certificates)]
    return Federation.assemble(chain, [lines, *(certificate.lines for certificate in certificates)], [])


def decided(number: int) -> tuple[Assembly, Certificate]:
    assembly = Assembly.of(4)
    return assembly, assembly.decide(change(assembly.body, number))


def test_a_node_starts_from_the_file_and_continues_from_the_ledger(ledger: Ledger) -> None:
    assembly, certificate = decided(1)
    epoch_store = EpochStore(ledger.epochs, file_of(assembly))
    assert (epoch_store.newest, epoch_store.digests) == (assembly.body, [assembly.body.digest])
    assert epoch_store.keep(certificate)
    again = EpochStore(ledger.epochs, file_of(assembly))
    assert again.newest == certificate.body
    assert again.certificate(1) == certificate
    assert [body.epoch for body in again.bodies()] == [0, 1]
    with pytest.raises(NotFound):
        again.certificate(2)


def test_a_newer_file_brings_its_epochs(ledger: Ledger) -> None:
    assembly, certificate = decided(1)
    assert EpochStore(ledger.epochs, file_of(assembly, certificate)).newest == certificate.body


def test_the_branch_that_was_first_is_followed_and_its_rival_kept(ledger: Ledger) -> None:
    (assembly, first), (_, second) = decided(1), decided(2)
    epoch_store = EpochStore(ledger.epochs, file_of(assembly))
    assert epoch_store.keep(first) and not epoch_store.keep(second)
    again = EpochStore(ledger.epochs, file_of(assembly))
    assert again.newest == first.body
    assert again.rivals() == [(first, second)]
    assert not again.decided(1)


def test_a_file_of_another_branch_is_refused_until_the_operator_names_one(ledger: Ledger) -> None:
    (assembly, first), (_, second) = decided(1), decided(2)
    EpochStore(ledger.epochs, file_of(assembly)).keep(first)
    with pytest.raises(Untrusted) as caught:
        EpochStore(ledger.epochs, file_of(assembly, second))
    assert caught.value.code == "CHARTER-BRANCH" and "branch" in caught.value.hint
    chosen = EpochStore(ledger.epochs, file_of(assembly, second), second.body.digest)
    assert chosen.newest == second.body and chosen.decided(1)


def test_a_branch_that_is_not_known_yet_decides_nothing(ledger: Ledger) -> None:
    assembly, first = decided(1)
    epoch_store = EpochStore(ledger.epochs, file_of(assembly), change(assembly.body, 9).digest)
    assert epoch_store.keep(first)
    assert not epoch_store.decided(1)


def test_a_later_epoch_as_branch_names_all_epochs_that_lead_to_it(ledger: Ledger) -> None:
    (assembly, first), (_, second) = decided(1), decided(2)
    later = Assembly(assembly.seats)
    later.body = second.body
    third = later.decide(change(second.body, 3))
    epoch_store = EpochStore(ledger.epochs, file_of(assembly))
    for certificate in (first, second, third):
        epoch_store.keep(certificate)
    assert epoch_store.newest == first.body
    chosen = EpochStore(ledger.epochs, file_of(assembly), third.body.digest)
    assert list(chosen.digests) == [assembly.body.digest, second.body.digest, third.body.digest]


def test_another_federation_begins_from_its_genesis(ledger: Ledger) -> None:
    assembly, first = decided(1)
    EpochStore(ledger.epochs, file_of(assembly)).keep(first)
    other = Assembly.of(3)
    assert EpochStore(ledger.epochs, file_of(other)).newest == other.body


def test_a_process_that_does_not_write_stores_no_epoch_of_its_file(ledger: Ledger) -> None:
    assembly, certificate = decided(1)
    with pytest.raises(Unavailable) as caught:
        EpochStore(ledger.epochs, file_of(assembly), writes=False)
    assert caught.value.code == "CHARTER-NOT-STORED"
    assert ledger.epochs.all(file_of(assembly).id) == []
    EpochStore(ledger.epochs, file_of(assembly))
    assert EpochStore(ledger.epochs, file_of(assembly), writes=False).newest == assembly.body
    with pytest.raises(Unavailable):
        EpochStore(ledger.epochs, file_of(assembly, certificate), writes=False)


def test_epochs_that_another_process_stores_are_followed_once(ledger: Ledger) -> None:
    assembly, certificate = decided(1)
    writing = EpochStore(ledger.epochs, file_of(assembly))
    reading = EpochStore(ledger.epochs, file_of(assembly), writes=False)
    assert reading.reread() == []
    writing.keep(certificate)
    assert reading.reread() == [certificate.body]
    assert (reading.newest, reading.certificate(1)) == (certificate.body, certificate)
    assert reading.reread() == []


def test_a_process_that_only_reads_ends_when_the_writer_follows_another_branch(ledger: Ledger) -> None:
    (assembly, first), (_, second) = decided(1), decided(2)
    writing = EpochStore(ledger.epochs, file_of(assembly))
    writing.keep(first)
    reading = EpochStore(ledger.epochs, file_of(assembly), writes=False)
    writing.keep(second)
    assert reading.reread() == []
    reading.branch = second.body.digest
    with pytest.raises(Untrusted) as caught:
        reading.reread()
    assert caught.value.code == "CHARTER-BRANCH"
    assert reading.newest == first.body
