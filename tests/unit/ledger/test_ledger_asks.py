"""Requests to join: one list for all, which no caller can fill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger import quotas as asks
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.quotas import EXPIRY
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, OutOfSpace

MAX_ASKS = 40
"""Fewer than in production: each is a commit."""
STRANGERS, ELSEWHERE, MEMBER = "192.0.2.0/24", "198.51.100.0/24", "member 51aa"


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def ledger(
    tmp_path: Path, backing: Backing | None, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ledger]:
    monkeypatch.setattr(asks, "MAX_ASKS", MAX_ASKS)
    opened = Ledger.open(tmp_path, lambda: now[0], backing=backing)
    yield opened
    opened.close()


def who(name: object) -> Digest:
    return sha256(str(name).encode())


def fill(ledger: Ledger, block: str, count: int = MAX_ASKS) -> None:
    for number in range(count):
        ledger.join_requests.put(who((block, number)), (b"card",), block)


def test_a_card_is_replaced_by_a_newer_one_and_keeps_its_place(ledger: Ledger) -> None:
    first, second = who("a"), who("b")
    ledger.join_requests.put(first, (b"inception", b"record"))
    ledger.join_requests.put(second, (b"inception",))
    ledger.join_requests.put(first, (b"inception", b"a new record"))
    assert ledger.join_requests.waiting() == [first, second]
    kept = ledger.join_requests.get(first)
    assert kept is not None and kept.lines == (b"inception", b"a new record")
    ledger.join_requests.drop(first)
    ledger.join_requests.drop(first)
    assert ledger.join_requests.waiting() == [second]


def test_a_block_that_fills_the_list_loses_its_oldest_request(ledger: Ledger) -> None:
    fill(ledger, STRANGERS)
    kept, gone = ledger.join_requests.put(who("honest"), (b"card",), ELSEWHERE)
    assert gone is not None and gone.member == who((STRANGERS, 0)) and kept.block == ELSEWHERE
    fill(ledger, STRANGERS, 3 * MAX_ASKS)
    assert who("honest") in ledger.join_requests.waiting()
    assert ledger.join_requests.count() == MAX_ASKS == len(ledger.join_requests.waiting())


def test_the_block_with_most_requests_loses_one(ledger: Ledger) -> None:
    for block in range(10):
        fill(ledger, f"203.0.{block}.0/24", 3)
    fill(ledger, STRANGERS, MAX_ASKS - 10 * 3)
    _, gone = ledger.join_requests.put(who("honest"), (b"card",), MEMBER)
    assert gone is not None and gone.block == STRANGERS


def test_a_repeated_request_stays_charged_to_the_smaller_block(ledger: Ledger) -> None:
    ledger.join_requests.put(who("honest"), (b"card",), ELSEWHERE)
    fill(ledger, STRANGERS, 5)
    kept, _ = ledger.join_requests.put(who("honest"), (b"card",), STRANGERS)
    assert kept.block == ELSEWHERE
    ledger.join_requests.put(who("copied first"), (b"card",), STRANGERS)
    moved, _ = ledger.join_requests.put(who("copied first"), (b"card",), MEMBER)
    assert moved.block == MEMBER


def test_a_request_kept_by_an_operator_stays(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks, "MAX_KEPT", 1)
    ledger.join_requests.put(who("honest"), (b"card",), STRANGERS)
    ledger.join_requests.keep(who("honest"))
    fill(ledger, STRANGERS, 2 * MAX_ASKS)
    assert ledger.join_requests.waiting()[0] == who("honest")
    with pytest.raises(OutOfSpace) as caught:
        ledger.join_requests.keep(ledger.join_requests.waiting()[1])
    assert caught.value.code == "ASKS-KEPT"
    ledger.join_requests.dismiss(who("honest"))
    assert ledger.join_requests.get(who("honest")) is None
    for decide in (ledger.join_requests.keep, ledger.join_requests.dismiss):
        monkeypatch.setattr(asks, "MAX_KEPT", 2)
        with pytest.raises(NotFound):
            decide(who("honest"))


def test_a_request_that_is_not_repeated_expires(ledger: Ledger, now: list[float]) -> None:
    ledger.join_requests.put(who("gone"), (b"card",), ELSEWHERE)
    ledger.join_requests.put(who("patient"), (b"card",), ELSEWHERE)
    now[0] += EXPIRY - 1
    ledger.join_requests.put(who("patient"), (b"card",), ELSEWHERE)
    now[0] += 2
    assert ledger.join_requests.waiting() == [who("patient")] and ledger.join_requests.count() == 1
    ledger.join_requests.put(who("new"), (b"card",), ELSEWHERE)
    assert ledger.join_requests.get(who("gone")) is None
