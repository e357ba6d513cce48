"""Bytes of a ledger change on the disk, of a running node and before a start: each change is named and repaired.

The short form changes a few bytes; `-m long` changes a hundred at rest and a hundred before a start.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.ledger.page_check import examine_pages
from comity.ledger.page_sums import check_pages
from comity.node.app import RunningNode
from comity.trust.errors import ComityError
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.federation import Founded, NodeHome, converged, found, serving, until
from support.publisher import Publisher, model, release, send

pytestmark = pytest.mark.slow

PAGE = 4096
WHOLE_PASS = 1 << 40


@asynccontextmanager
async def running(home: NodeHome) -> AsyncIterator[RunningNode]:
    parts = list[RunningNode]()

    @asynccontextmanager
    async def companion(node: RunningNode) -> AsyncIterator[str]:
        parts.append(node)
        yield ""

    async with serving(home, companion=companion):
        yield parts[0]


async def grown(folder: Path) -> Founded:
    """Two nodes that have some publications of each other, stopped; all pages of their ledgers have sums."""
    federation = found(folder, 2)
    async with serving(*federation):
        for number, home in enumerate(federation):
            files = model(folder / str(number), weights=9_000)
            what = release(Publisher.generate(f"p{number}"), files, f"a/b{number}@1")
            async with home.operator() as operator:
                await send(operator, what)
        for home in federation:
            await converged(federation.homes, home, least=6)
    for home in federation:
        ledger = ledger_of(home)
        with closing(Ledger.open(ledger.parent, lambda: 0)) as opened:
            assert opened.pages is not None and check_pages(opened.pages) == ()
    return federation


def ledger_of(home: NodeHome) -> Path:
    return home.config().storage.ledger


def flip(file: Path, page: int, chance: random.Random) -> None:
    with file.open("r+b") as opened:
        at = (page - 1) * PAGE + chance.randrange(PAGE)
        opened.seek(at)
        (byte,) = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte ^ chance.randrange(1, 256)]))


def chosen_pages(file: Path, count: int) -> list[int]:
    pages = file.stat().st_size // PAGE
    return [1 + nth * pages // count % pages for nth in range(count)]


def named(said: Sequence[EventDict], page: int) -> bool:
    words = (f"{event.get('named') or event.get('pages')}" for event in said if event.get("code") == "LEDGER-CORRUPT")
    return any(f"{page} (" in each or each == str(page) for each in words)


def tracebacks(said: Sequence[EventDict]) -> list[EventDict]:
    return [event for event in said if event.get("exc_info")]


async def flips_before_a_start(folder: Path, count: int) -> None:
    first, _ = (await grown(folder)).homes
    file, chance = ledger_of(first), random.Random(31)
    for page in chosen_pages(file, count):
        flip(file, page, chance)
        with capture_logs() as said:
            async with serving(first):
                pass
        assert named(said, page) and tracebacks(said) == []
        assert not (left := examine_pages(file, mend=False)).damaged and not left.mended
    with closing(Ledger.open(file.parent, lambda: 0)) as ledger:
        for log in ledger.logs.all():
            ledger.history.verify_all(log.vkey)


async def flips_at_rest(folder: Path, count: int) -> None:
    first, _ = (await grown(folder)).homes
    file, chance = ledger_of(first), random.Random(32)
    async with running(first) as node:
        scrub, sums = node.status.ledger_scrub, node.home.ledger.tables.pages
        assert sums is not None
        for page in chosen_pages(file, count):
            flip(file, page, chance)
            scrub._begun, scrub._over = None, True  # a pass is due
            with capture_logs() as said:
                await scrub.read(WHOLE_PASS)
            assert named(said, page) and tracebacks(said) == []
            assert scrub.damage == () and check_pages(sums) == ()
        for log in node.home.ledger.tables.logs.all():
            node.home.ledger.tables.history.verify_all(log.vkey)


async def test_bytes_that_change_before_a_start_are_named_and_written_again(tmp_path: Path) -> None:
    await flips_before_a_start(tmp_path, 4)


async def test_bytes_that_change_under_a_running_node_are_named_and_written_again(tmp_path: Path) -> None:
    await flips_at_rest(tmp_path, 12)


@pytest.mark.long
async def test_a_hundred_bytes_that_change_before_a_start(tmp_path: Path) -> None:
    await flips_before_a_start(tmp_path, 100)


@pytest.mark.long
async def test_a_hundred_bytes_that_change_under_a_running_node(tmp_path: Path) -> None:
    await flips_at_rest(tmp_path, 100)


async def test_lost_entries_of_the_own_log_come_from_the_peer_before_anything_is_signed(tmp_path: Path) -> None:
    first, second = (await grown(tmp_path)).homes
    file = ledger_of(first)
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as database:
        leaves = "SELECT pageno FROM dbstat WHERE name = 'entries' AND pagetype = 'leaf'"
        pages = [page for (page,) in database.execute(leaves)]
    with file.open("r+b") as opened:
        for page in pages:
            opened.seek((page - 1) * PAGE)
            opened.write(bytes(PAGE))
    async with serving(second), running(first) as node:
        tables, own_log = node.home.ledger.tables, node.replication.own_log

        def whole() -> bool:
            try:
                for log in tables.logs.all():
                    tables.history.verify_all(log.vkey)
            except ComityError as error:
                assert error.code == "LEDGER-CORRUPT"
                return False
            return own_log.refusal is None

        assert not whole()
        await until(whole, what="the entries of both logs")
