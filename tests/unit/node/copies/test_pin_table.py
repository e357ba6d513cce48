"""What a ledger keeps of pins, and a node of those that its ledger keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.ledger import copy_tables
from comity.ledger.ledger import Backing, Ledger
from comity.node.copies.pins import PinRepair
from comity.rules.artifact_pins import Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import sha256
from comity.trust.errors import OutOfSpace

FIRST, SECOND, THIRD = (
    Pin(artifact, "a/b@v1", CopyPolicy(3, 2, 1)) for artifact in sorted(map(sha256, [b"1", b"2", b"3"]))
)


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1000.0, backing=backing)
    yield opened
    opened.close()


def test_pins_come_back_in_order_until_they_are_removed(ledger: Ledger) -> None:
    ledger.pins.put(SECOND)
    ledger.pins.put(FIRST)
    assert ledger.pins.all() == [FIRST, SECOND]
    changed = Pin(FIRST.artifact, "", CopyPolicy(1, 1))
    ledger.pins.put(changed)
    assert ledger.pins.all() == [changed, SECOND]
    assert ledger.pins.remove(FIRST.artifact)
    assert not ledger.pins.remove(FIRST.artifact)
    assert ledger.pins.all() == [SECOND]


def test_a_pin_above_the_bound_is_refused_and_a_known_one_may_change(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_tables, "MAX_WANTED", 2)
    ledger.pins.put(FIRST)
    ledger.pins.put(SECOND)
    with pytest.raises(OutOfSpace, match="too many artifacts"):
        ledger.pins.put(THIRD)
    ledger.pins.put(SECOND)
    assert ledger.pins.all() == [FIRST, SECOND]


async def test_a_pin_that_could_not_be_ended_stays(ledger: Ledger) -> None:
    """Else the node would ask nobody for copies any more, until its next start finds the pin again."""
    ledger.pins.put(FIRST)

    async def run(work: object, *arguments: object) -> None:
        raise OutOfSpace("the disk is full")

    pins, tables = {FIRST.artifact: FIRST}, SimpleNamespace(pins=ledger.pins)
    repair = SimpleNamespace(pins=pins, _ledger=SimpleNamespace(run=run, tables=tables), _wake=lambda: None)
    with pytest.raises(OutOfSpace):
        await PinRepair.end(cast(PinRepair, repair), FIRST.artifact)
    assert pins == {FIRST.artifact: FIRST}
