"""The scrub of a ledger finds damage, repairs what a peer can prove, and reports the rest."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.quotas import OutsideAmount, OutsideQuota
from comity.ledger.stored_lines import pack_line
from comity.node.members import PeerKey
from comity.node.metrics import Metrics
from comity.node.replication.link import CopySource, PeerState
from comity.node.replication.questions import PeerQuestions
from comity.node.scrub import PASS_SECONDS, LedgerScrub
from comity.node.settings import Storage
from comity.node.supervisor import Supervisor
from comity.node.threads import AsyncLedger
from comity.trust.encoding import sha256
from structlog.testing import capture_logs
from support.logs import LogKeys, statement_lines

FAR = LogKeys.generate("far.example/log")
LINES = statement_lines(0, 300)
STORED = pack_line(LINES[7])
"""An entry as it is in the file."""
WHOLE_PASS = 1 << 40


PEER = PeerKey(sha256(b"member"), "a.example/log")


@dataclass(frozen=True)
class Batch:
    lines: Sequence[bytes]


@dataclass
class PeerWithLines:
    """A peer that answers with these lines, a few in each answer."""

    lines: Sequence[bytes]
    name: str = "a peer"
    asked: int = 0
    address: str = "a.example:1"
    state: PeerState = field(default_factory=lambda: PeerState(reachable=True))
    peer_key: PeerKey = PEER

    __hash__ = object.__hash__

    @property
    def client(self) -> PeerWithLines:
        return self

    async def entries(self, log: str, start: int, end: int) -> AsyncIterator[Batch]:
        self.asked += 1
        yield Batch(self.lines[start : min(end, start + 100)])


@dataclass
class Scrubbed:
    """A ledger, and the scrub that reads it."""

    ledger: Ledger
    folder: Path
    now: float = 1_000.0

    def scrub(self, *peers: PeerWithLines, among: list[PeerWithLines] | None = None) -> LedgerScrub:
        settings = Storage(blobs=self.folder / "blobs", ledger=self.folder / DATABASE_FILE)
        sources = cast(list[CopySource], list(peers) if among is None else among)
        self.metrics = Metrics()
        return LedgerScrub(
            settings, AsyncLedger(self.ledger), lambda: self.now, self.metrics, PeerQuestions(lambda: sources)
        )

    def damage(self) -> float | None:
        return self.metrics.registry.get_sample_value("comity_ledger_damage")


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder, lambda: 1_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(opened(tmp_path)) as ledger:
        ledger.logs.create(FAR.origin, FAR.vkey)
        ledger.logs.advance(FAR.origin, 0, LINES, FAR.note_over(LINES))
    return tmp_path


def change(folder: Path, statement: str) -> None:
    """Change the file outside of the ledger."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as database, database:
        assert database.execute(statement).rowcount == 1


def flip(folder: Path, text: bytes, at: int = 0) -> None:
    """Flip a bit at the only position of `text`, in its byte `at`, and one beside it: two bytes are not written again
    from the sum of their page."""
    file = folder / DATABASE_FILE
    data = bytearray(file.read_bytes())
    place = data.index(text)
    for each in (at, at + 1 if at >= 0 else at - 1):
        data[place + each % len(text)] ^= 1
    with file.open("r+b") as opened_file:
        opened_file.write(data)


async def test_an_undamaged_ledger_has_no_findings_and_is_read_once_a_day(folder: Path) -> None:
    with closing(opened(folder)) as ledger:
        parts = Scrubbed(ledger, folder)
        scrub = parts.scrub()
        await scrub.read(WHOLE_PASS)
        assert (scrub.damage, parts.damage()) == ((), 0)
        version = ledger.version
        parts.now += PASS_SECONDS + 1
        await scrub.read(1)  # begins the next pass
        assert (scrub.damage, ledger.version) == ((), version)


@pytest.mark.parametrize("at", [0, 1, -1], ids=["another form", "unreadable", "another line"])
async def test_a_bit_in_an_entry_is_repaired_from_the_peer_that_has_it(folder: Path, at: int) -> None:
    flip(folder, STORED, at)
    liar, honest = PeerWithLines([*LINES[:9], *LINES[10:], LINES[9]], "a liar"), PeerWithLines(LINES)
    with closing(opened(folder)) as ledger:
        parts = Scrubbed(ledger, folder)
        scrub = parts.scrub(liar, honest)
        await scrub.read(WHOLE_PASS)
        assert (liar.asked, honest.asked) == (3, 3)
        assert ledger.history.entries(FAR.origin, 0, 300) == LINES
        ledger.history.verify_all(FAR.origin)
        assert (scrub.damage, parts.damage()) == ((), 0)
    with closing(opened(folder)) as ledger:
        scrub = Scrubbed(ledger, folder).scrub()
        await scrub.read(WHOLE_PASS)
        assert scrub.damage == ()


async def test_entries_that_no_peer_can_prove_stay_damaged_and_are_named(folder: Path) -> None:
    with closing(opened(folder)) as ledger:
        flip(folder, STORED)
        parts = Scrubbed(ledger, folder)
        scrub = parts.scrub(PeerWithLines(LINES[:9]))
        await scrub.read(WHOLE_PASS)
        assert {error.code for error in scrub.damage} == {"LEDGER-CORRUPT"}
        assert parts.damage() == 2  # the entries, and the page
        assert "entries 0 to 255" in scrub.damage[0].why
        assert all(error.hint for error in scrub.damage)


async def test_an_unrepaired_part_is_repaired_when_a_peer_answers(folder: Path) -> None:
    peers = list[PeerWithLines]()
    with closing(opened(folder)) as ledger:
        flip(folder, STORED)
        parts = Scrubbed(ledger, folder)
        scrub = parts.scrub(among=peers)
        await scrub.read(WHOLE_PASS)
        assert parts.damage() == 2
        peers.append(PeerWithLines(LINES))
        await scrub.read(WHOLE_PASS)
        assert ledger.history.entries(FAR.origin, 0, 300) == LINES
        assert (scrub.damage, parts.damage()) == ((), 0)


async def test_damage_of_a_table_that_no_tree_covers_is_named_with_the_next_step(folder: Path) -> None:
    change(folder, "UPDATE writer SET number = number + 0")  # another program wrote, and left every sum as it is
    change(folder, "INSERT INTO outside_shares VALUES ('author', 'somebody', 1, 1)")
    with closing(opened(folder)) as ledger:
        scrub = Scrubbed(ledger, folder).scrub(PeerWithLines(LINES))
        await scrub.read(WHOLE_PASS)
        (error,) = scrub.damage
        assert error.code == "LEDGER-CORRUPT"
        assert "comity backup restore" in error.hint


async def test_a_changed_byte_is_written_again_where_nothing_else_could_repair_it(folder: Path) -> None:
    with closing(opened(folder)) as ledger:
        ledger.outside_usage.charge(FAR.origin, LINES[:1], [OutsideQuota("author", "somebody", OutsideAmount(9, 9999))])
    sound = (folder / DATABASE_FILE).read_bytes()
    with closing(opened(folder)) as ledger:
        data = bytearray(sound)
        data[sound.index(b"somebody")] ^= 0x20
        with (folder / DATABASE_FILE).open("r+b") as file:
            file.write(data)
        parts = Scrubbed(ledger, folder)
        scrub = parts.scrub()
        with capture_logs() as said:
            await scrub.read(WHOLE_PASS)
        assert (scrub.damage, parts.damage()) == ((), 0)
        assert "(outside_shares)" in next(
            str(event["pages"]) for event in said if event.get("code") == "LEDGER-CORRUPT"
        )
        assert ledger.outside_usage.used("author", "somebody").entries == 1
    assert b"somebody" in (folder / DATABASE_FILE).read_bytes()


async def test_a_pass_continues_where_its_budget_ended(folder: Path) -> None:
    with closing(opened(folder)) as ledger:
        flip(folder, STORED)
        scrub = Scrubbed(ledger, folder).scrub(PeerWithLines(LINES))
        steps = 0
        while ledger.history.entry(FAR.origin, 7) != LINES[7]:
            await scrub.read(1)
            steps += 1
        assert steps > 1


async def test_a_clock_that_was_ahead_stops_no_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, begin = list[float](), LedgerScrub._begin_pass

    async def noted(self: LedgerScrub) -> None:
        begun.append(parts.now)
        await begin(self)

    monkeypatch.setattr(LedgerScrub, "_begin_pass", noted)
    with closing(opened(folder)) as ledger:
        parts = Scrubbed(ledger, folder, now=1_000 * PASS_SECONDS)
        scrub = parts.scrub()
        for now in (2_000.0, 900 * PASS_SECONDS, 3_000.0, 4_000.0):
            parts.now = now
            await scrub._step()
    assert begun == [2_000.0, 900 * PASS_SECONDS, 3_000.0]


async def test_an_error_that_damage_may_have_caused_begins_a_pass_at_most_once_an_hour(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, begin = list[float](), LedgerScrub._begin_pass

    async def noted(self: LedgerScrub) -> None:
        begun.append(parts.now)
        await begin(self)

    async def fails() -> None:
        raise ValueError("a line of other bytes")

    monkeypatch.setattr(LedgerScrub, "_begin_pass", noted)
    with closing(opened(folder)) as ledger:
        parts = Scrubbed(ledger, folder)
        scrub = parts.scrub()
        supervisor = Supervisor(parts.metrics)
        monkeypatch.setattr(supervisor, "loop", lambda *_: None)  # its steps are those below, one after the other
        scrub.begin(supervisor)
        for now in (2_000.0, 2_001.0, 5_700.0):
            parts.now = now
            await supervisor._step("a loop", fails, 9.0)
            await scrub._step()
    assert begun == [2_000.0, 5_700.0]
