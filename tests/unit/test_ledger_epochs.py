"""What a ledger keeps of charters and of those who ask to join."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.epochs import MAX_ASKS, KeptEpoch
from comity.ledger.ledger import Backing, Ledger
from comity.trust.digest import Digest, sha256
from comity.trust.errors import NotFound, OutOfSpace

FEDERATION = sha256(b"a genesis")


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1000.0, backing=backing)
    yield opened
    opened.close()


def epoch(number: int, body: bytes, prev: Digest | None = None) -> KeptEpoch:
    return KeptEpoch(FEDERATION, number, sha256(body), prev, body, (b"one line", b"another"))


def test_an_epoch_comes_back_as_it_was_kept(ledger: Ledger) -> None:
    kept = epoch(1, b"{}", FEDERATION)
    assert ledger.epochs.keep(kept)
    assert ledger.epochs.get(FEDERATION, kept.digest) == kept
    with pytest.raises(NotFound):
        ledger.epochs.get(FEDERATION, sha256(b"elsewhere"))
    with pytest.raises(NotFound):
        ledger.epochs.get(kept.digest, kept.digest)


def test_an_epoch_is_kept_once_and_never_changed(ledger: Ledger) -> None:
    kept = epoch(1, b"{}", FEDERATION)
    ledger.epochs.keep(kept)
    assert not ledger.epochs.keep(KeptEpoch(FEDERATION, 1, kept.digest, FEDERATION, b"{}", (b"other lines",)))
    assert ledger.epochs.get(FEDERATION, kept.digest).certificate == kept.certificate


def test_rivals_stand_side_by_side_in_the_order_of_their_finding(ledger: Ledger) -> None:
    for body in (b"second in order", b"first in order"):
        ledger.epochs.keep(epoch(1, body, FEDERATION))
    found = [name.digest for name in ledger.epochs.all(FEDERATION)]
    assert found == [sha256(b"second in order"), sha256(b"first in order")]


def test_a_card_is_replaced_by_a_newer_one_and_keeps_its_place(ledger: Ledger) -> None:
    first, second = sha256(b"a"), sha256(b"b")
    ledger.asks.put(first, (b"inception", b"record"))
    ledger.asks.put(second, (b"inception",))
    ledger.asks.put(first, (b"inception", b"a new record"))
    assert [(ask.member, ask.lines) for ask in ledger.asks.all()] == [
        (first, (b"inception", b"a new record")),
        (second, (b"inception",)),
    ]
    ledger.asks.drop(first)
    ledger.asks.drop(first)
    assert [ask.member for ask in ledger.asks.all()] == [second]


def test_the_list_of_those_who_ask_is_bounded(ledger: Ledger) -> None:
    for number in range(MAX_ASKS):
        ledger.asks.put(sha256(b"%d" % number), (b"card",))
    with pytest.raises(OutOfSpace) as caught:
        ledger.asks.put(sha256(b"one too many"), (b"card",))
    assert caught.value.code == "ASKS-FULL"
    ledger.asks.put(sha256(b"0"), (b"who waits already may ask again",))
    assert len(ledger.asks.all()) == MAX_ASKS
