"""Charters in a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.records import StoredEpoch
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound

FEDERATION = sha256(b"a genesis")


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1000.0, backing=backing)
    yield opened
    opened.close()


def epoch(number: int, body: bytes, prev: Digest | None = None) -> StoredEpoch:
    return StoredEpoch(FEDERATION, number, sha256(body), prev, body, (b"one line", b"another"))


def test_an_epoch_reads_back_unchanged(ledger: Ledger) -> None:
    kept = epoch(1, b"{}", FEDERATION)
    assert ledger.epochs.add(kept)
    assert ledger.epochs.get(FEDERATION, kept.digest) == kept
    with pytest.raises(NotFound):
        ledger.epochs.get(FEDERATION, sha256(b"elsewhere"))
    with pytest.raises(NotFound):
        ledger.epochs.get(kept.digest, kept.digest)


def test_an_epoch_is_kept_once_and_never_changed(ledger: Ledger) -> None:
    kept = epoch(1, b"{}", FEDERATION)
    ledger.epochs.add(kept)
    assert not ledger.epochs.add(StoredEpoch(FEDERATION, 1, kept.digest, FEDERATION, b"{}", (b"other lines",)))
    assert ledger.epochs.get(FEDERATION, kept.digest).certificate == kept.certificate


def test_rival_epochs_are_listed_in_the_order_in_which_they_were_found(ledger: Ledger) -> None:
    for body in (b"second in order", b"first in order"):
        ledger.epochs.add(epoch(1, body, FEDERATION))
    found = [name.digest for name in ledger.epochs.all(FEDERATION)]
    assert found == [sha256(b"second in order"), sha256(b"first in order")]
