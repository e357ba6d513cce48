"""The order of the claims to a name is compared with what is proven, where a database was changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attackers.forging import Identity, Release
from comity.ledger.ledger import Backing, Ledger
from comity.trust.errors import Untrusted
from sqlalchemy import text
from support.logs import LogKeys

LOG, OTHER = LogKeys.generate("node.example/log"), LogKeys.generate("other.example/log")
HONEST, RIVAL = Identity.made("honest"), Identity.made("rival")


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    for log in (LOG, OTHER):
        opened.logs.create(log.origin, log.vkey, own=True)
    yield opened
    opened.close()


def claim(ledger: Ledger, who: Identity, *names: str, log: LogKeys = LOG) -> None:
    lines = [who.publish(name, Release(f"{who.label} {name}".encode())) for name in names]
    ledger.logs.append(log.vkey, [who.inception, *lines])


def order(ledger: Ledger) -> list[str]:
    return [claimant.publisher for claimant in ledger.proven.claimants("a/b").found]


def change(ledger: Ledger, sql: str, **values: object) -> None:
    with ledger._database.writing("test") as connection:
        connection.execute(text(sql), values)


def test_claims_are_in_the_order_in_which_they_were_proven(ledger: Ledger) -> None:
    claim(ledger, HONEST, "a/b@v1")
    claim(ledger, RIVAL, "a/b@v1", "a/b@v2")
    assert order(ledger) == [HONEST.id, RIVAL.id]


def test_a_changed_number_of_a_claim_is_found(ledger: Ledger) -> None:
    """One changed row would serve the bytes of the rival under an unbound name."""
    claim(ledger, HONEST, "a/b@v1")
    claim(ledger, RIVAL, "a/b@v1")
    for number in (0, 1, 2, 3):  # of no statement, of another's, of the rival's inception
        changed = "UPDATE claimants SET number = :number WHERE publisher = :who"
        change(ledger, changed, number=number, who=bytes.fromhex(RIVAL.id))
        with pytest.raises(Untrusted, match="the order of the claims"):
            order(ledger)


def test_claims_in_one_log_whose_statements_were_given_other_numbers_are_found(ledger: Ledger) -> None:
    claim(ledger, HONEST, "a/b@v1")
    claim(ledger, RIVAL, "a/b@v1")
    for old, new in ((2, 99), (4, 2), (99, 4)):
        for table in ("statements", "claimants"):
            change(ledger, f"UPDATE {table} SET number = :new WHERE number = :old", old=old, new=new)
    with pytest.raises(Untrusted, match="listed after its entry") as found:
        order(ledger)
    assert found.value.code == "LEDGER-CORRUPT"


def test_claims_in_different_logs_have_no_proven_order(ledger: Ledger) -> None:
    claim(ledger, HONEST, "a/b@v1")
    claim(ledger, RIVAL, "a/b@v1", log=OTHER)
    assert order(ledger) == [HONEST.id, RIVAL.id]


def test_a_claim_that_waited_for_the_keys_of_its_author_is_later_than_its_place(ledger: Ledger) -> None:
    """Its line came first, its inception last: a claimant that was proven meanwhile stays the first."""
    early = RIVAL.publish("a/b@v1", Release(b"early"))
    ledger.logs.append(LOG.vkey, [HONEST.inception, early])
    claim(ledger, HONEST, "a/b@v1")
    ledger.logs.append(LOG.vkey, [RIVAL.inception])
    for table in ("statements", "claimants"):  # as if the line had been verified after all others
        change(ledger, f"UPDATE {table} SET number = 99 WHERE number = 2")
    assert order(ledger) == [HONEST.id, RIVAL.id]
