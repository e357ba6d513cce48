"""The position up to which side objects were checked is kept: a start reads only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.replication import side_objects as repair_module
from comity.node.replication.side_objects import SideObjectRepair
from comity.node.supervisor import Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.statement import SideObject
from support.logs import LogKeys, statement_lines

OWN = LogKeys.generate("own.example/log")
BODY = b"a side object"


class Bench:
    """The side object repair of one log with an entry that names an object."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger, self.store = Ledger.open(folder, lambda: 1_000), FolderStore(folder / "blobs")
        self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.looked_at: list[tuple[int, int]] = []
        self.asked: list[SideObject] = []
        monkeypatch.setattr(repair_module, "_named", self._named)
        self.repair = SideObjectRepair(AsyncLedger(self.ledger), self.store, Pools(), 1.0, self.fetch_objects)
        self.loops: Any = SimpleNamespace(loop=lambda *rest: None, wake=lambda name: None)

    def _named(self, ledger: Ledger, log: str, start: int, end: int) -> list[SideObject]:
        self.looked_at.append((start, end))
        return [SideObject.of(BODY)] if start == 0 else []

    async def fetch_objects(self, items: Sequence[SideObject]) -> dict[SideObject, ComityError]:
        self.asked += items
        return dict.fromkeys(items, NotFound("nobody has it"))

    async def turn(self, *, recheck: bool = False) -> None:
        await self.repair.begin(cast(Supervisor, self.loops), recheck=recheck)
        await self.repair._step()


async def test_a_start_checks_new_entries_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an earlier version a start read every line of every log again."""
    first = Bench(tmp_path, monkeypatch)
    first.store.put(sha256(BODY), BODY)
    first.ledger.logs.append(OWN.vkey, statement_lines(0, 300))
    await first.turn()
    assert first.looked_at == [(0, 256), (256, 300)]
    first.ledger.close()
    second = Bench(tmp_path, monkeypatch)
    second.ledger.logs.append(OWN.vkey, statement_lines(300, 301))
    await second.turn()
    assert second.looked_at == [(300, 301)]
    second.ledger.close()


async def test_missing_objects_are_looked_for_after_a_start_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        bench = Bench(tmp_path, monkeypatch)
        bench.ledger.logs.append(OWN.vkey, statement_lines(0, 10))
        with pytest.raises(Unavailable):
            await bench.turn()
        assert list(bench.repair.missing) == [SideObject.of(BODY)]
        bench.ledger.close()


async def test_a_copied_ledger_and_a_lost_blob_start_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.store.put(sha256(BODY), BODY)
    bench.ledger.logs.append(OWN.vkey, statement_lines(0, 10))
    await bench.turn()
    await bench.turn(recheck=True)
    assert bench.looked_at == [(0, 10)]  # nothing was lost since this node looked
    bench.repair.recheck_all()
    await bench.repair._step()
    assert bench.looked_at == [(0, 10), (0, 10)]
    bench.ledger.close()
    copy = Bench(tmp_path, monkeypatch)
    await copy.turn(recheck=True)
    assert copy.looked_at == [(0, 10)]
    copy.ledger.close()


async def test_a_log_with_unavailable_objects_delays_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    ours, theirs = (SideObject.of(b"ours"), [SideObject.of(b"withheld %d" % number) for number in range(300)])
    far = LogKeys.generate("far.example/log")
    bench.ledger.logs.create(far.origin, far.vkey)
    lines = statement_lines(100, 101)
    bench.ledger.logs.advance(far.origin, 0, lines, far.note_over(lines))
    bench.ledger.logs.append(OWN.vkey, statement_lines(0, 10))
    monkeypatch.setattr(repair_module, "MAX_MISSING", 100)
    monkeypatch.setattr(repair_module, "_named", lambda ledger, log, start, end: theirs if log == OWN.vkey else [ours])
    with pytest.raises(Unavailable):
        await bench.turn()
    assert bench.asked.index(ours) <= 1
    assert len(bench.asked) == 301
    bench.ledger.close()
