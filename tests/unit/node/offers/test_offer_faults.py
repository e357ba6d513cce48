"""Lenders at fault: one with many offers at fault hides none of another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from comity.node.offers.index import OfferIndex
from comity.rules.offers.log_reader import OfferLogReader
from comity.trust.encoding import Digest, sha256


def log(name: str, faults: int, well: int = 0) -> OfferLogReader:
    chains = {
        sha256(f"{name} {number}".encode()): SimpleNamespace(fault="a fault" if number < faults else None)
        for number in range(faults + well)
    }
    return cast(OfferLogReader, SimpleNamespace(chains=cast(dict[Digest, Any], chains)))


def test_logs_with_offers_at_fault_take_turns() -> None:
    unused: Any = None
    index = OfferIndex(unused, unused, unused, 1)
    index._logs = {"many": log("many", 50, well=3), "well": log("well", 0, well=2), "one": log("one", 1)}
    faulty = index.faulty()
    assert [name for name, _ in faulty[:4]] == ["many", "one", "many", "many"]
    assert len(faulty) == 51
