"""The parsed documents of own copies: what takes long for one artifact delays no question about another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from comity.node.copies import own_copies
from comity.node.copies.own_copies import OwnPieces
from comity.rules.pieces import PieceIndex
from comity.trust.artifact import Manifest
from comity.trust.statement import SideObject

SLOW, QUICK, INDEX = (SideObject.of(data) for data in (b"slow", b"quick", b"index"))


def test_a_large_document_that_is_parsed_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, free = threading.Event(), threading.Event()

    def read(store: object, manifest: SideObject, pieces: SideObject) -> tuple[Manifest, PieceIndex]:
        if manifest == SLOW:
            begun.set()
            assert free.wait(60)
        return Manifest.of([]), PieceIndex(())

    monkeypatch.setattr(own_copies, "read_artifact", read)
    own = OwnPieces(*cast(Any, (None,) * 4))
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(own.numbers, SLOW, INDEX)
        assert begun.wait(60)
        quick = threads.submit(own.numbers, QUICK, INDEX)
        try:
            assert quick.result(60) is own.numbers(QUICK, INDEX)
        finally:
            free.set()
        assert slow.result(60) is own.numbers(SLOW, INDEX)
