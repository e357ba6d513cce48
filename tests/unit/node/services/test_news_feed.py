"""A node tells each change once to a caller that names a known position, and everything to any other caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.services import news as module
from comity.node.services.news import NewsFeed
from comity.node.supervisor import Supervisor
from comity.node.threads import AsyncLedger
from comity.trust.encoding import sha256
from comity.trust.errors import Refused
from comity.trust.keys import PrivateKey
from comity.trust.tlog.note import Checkpoint, NoteSignature, cosign, cosigner_key
from comity.wire.access import CALLER, Caller, require_allowed
from comity.wire.news import KnownCosignatures, LogNews, News
from comity.wire.services import CALL_RULES
from support.logs import LogKeys, statement_lines

COSIGNER, OTHER = PrivateKey.generate("ed25519"), PrivateKey.generate("ed25519")
OWN_KEY = cosigner_key("own.example/cosigner", COSIGNER.public)
OTHER_KEY = cosigner_key("other.example/cosigner", OTHER.public)
LOGS = [LogKeys.generate(f"log-{number}.example/log") for number in range(3)]
LINES = statement_lines(0, 20)
PEER = Caller("peer", b"certificate")
UNTOLD = set[str]()
"""Logs for which the node does not tell its cosignatures."""


@asynccontextmanager
async def feeding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[NewsFeed, Ledger]]:
    monkeypatch.setattr(module, "MIN_PAUSE", 0.0)
    tables = Ledger.open(folder, lambda: 1_000)
    ledger, supervisor = AsyncLedger(tables), Supervisor(Metrics())
    feed = NewsFeed(ledger, [OWN_KEY.key_id], lambda: sha256(b"body"), lambda log: log not in UNTOLD)
    CALLER.set(PEER)
    for log in LOGS:
        tables.logs.create(log.origin, log.vkey)
    monkeypatch.setattr(feed, "look_again", feed.begin(supervisor), raising=False)
    try:
        yield feed, tables
    finally:
        UNTOLD.clear()
        feed.close()
        await supervisor.stop()
        ledger.close()


def grow(tables: Ledger, log: LogKeys, size: int) -> None:
    before = tables.logs.get(log.origin).size
    tables.logs.advance(log.origin, before, LINES[before:size], log.note_over(LINES[:size]))


def sign(tables: Ledger, log: LogKeys, key: PrivateKey, name: str, now: int = 1_000) -> NoteSignature:
    state = tables.logs.get(log.origin)
    made = cosign(Checkpoint(log.origin, state.size, state.root), name, key, now)
    assert tables.cosignatures.add(log.origin, state.size, state.root, [made]) == 1
    return made


async def everything(
    feed: NewsFeed, position: bytes = b"", own_keys: Sequence[bytes] = ()
) -> tuple[list[LogNews], bytes]:
    logs, more = list[LogNews](), True
    while more:
        page = await feed.page(position, own_keys)
        logs += page.logs
        position, more = page.position, page.more
    return logs, position


async def next_news(pages: AsyncIterator[News]) -> News:
    """The next page that tells of a log."""
    async with asyncio.timeout(20):
        while not (page := await anext(pages)).logs:
            pass
        return page


async def test_each_change_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, tables), aclosing(feed.read(b"", 60, ())) as pages:
        assert (await anext(pages)).logs == ()
        grow(tables, LOGS[0], 5)
        first = await next_news(pages)
        assert [(item.log, item.size, item.cosignatures) for item in first.logs] == [(LOGS[0].vkey, 5, ())]
        assert first.logs[0].note == LOGS[0].note_over(LINES[:5]).encode()
        made = sign(tables, LOGS[0], COSIGNER, OWN_KEY.name)
        assert (await next_news(pages)).logs == (LogNews(LOGS[0].vkey, b"", 5, (made,)),)
        sign(tables, LOGS[0], OTHER, OTHER_KEY.name)  # told by the node that made it
        later = sign(tables, LOGS[0], COSIGNER, OWN_KEY.name, 2_000)
        assert (await next_news(pages)).logs == (LogNews(LOGS[0].vkey, b"", 5, (later,)),)


async def test_an_answer_continues_from_a_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, tables):
        async with aclosing(feed.read(b"", 60, ())) as pages:
            for log in LOGS:
                grow(tables, log, 4)
                position = (await next_news(pages)).position
            grow(tables, LOGS[1], 6)
            await next_news(pages)
        found, _ = await everything(feed, position)
        assert [(item.log, item.size) for item in found] == [(LOGS[1].vkey, 6)]
        assert await everything(feed, (await feed.page(position, ())).position) == (
            [],
            (await feed.page(position, ())).position,
        )


@pytest.mark.parametrize("strange", ["", "00", "ff" * 16, "00" * 64])
async def test_a_strange_position_is_answered_with_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strange: str
) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, tables):
        async with aclosing(feed.read(b"", 60, ())) as pages:
            for log in LOGS:
                grow(tables, log, 4)
                await next_news(pages)
        found, position = await everything(feed, bytes.fromhex(strange))
        assert {item.log for item in found} == {log.vkey for log in LOGS}
        ahead = position[:8] + (2**63).to_bytes(8, "big")
        assert {item.log for item in (await everything(feed, ahead))[0]} == {log.vkey for log in LOGS}


async def test_everything_is_told_in_bounded_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_LOGS", 1)
    async with feeding(tmp_path, monkeypatch) as (feed, tables):
        async with aclosing(feed.read(b"", 60, ())) as pages:
            for log in LOGS:
                grow(tables, log, 4)
                await next_news(pages)
        async with aclosing(feed.read(b"", 60, ())) as pages:
            told = [await anext(pages) for _ in LOGS]
        assert [len(page.logs) for page in told] == [1, 1, 1]
        assert [page.more for page in told] == [True, True, False]
        assert len({page.position for page in told}) == 3
        assert all(one.position < two.position for one, two in pairwise(told))


async def test_a_first_answer_has_what_the_caller_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, tables):
        async with aclosing(feed.read(b"", 60, ())) as pages:
            grow(tables, LOGS[0], 4)
            made = sign(tables, LOGS[0], OTHER, OTHER_KEY.name)
            position = (await next_news(pages)).position
        found, _ = await everything(feed, b"", [OTHER_KEY.key_id])
        assert [item.cosignatures for item in found] == [(made,)]
        assert await everything(feed, position, ()) == ([], position)


async def test_nothing_is_kept_for_a_caller_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        feeding(tmp_path, monkeypatch) as (feed, tables),
        aclosing(feed.read(b"", 60, ())) as slow,
        aclosing(feed.read(b"", 60, ())) as pages,
    ):
        await anext(slow)
        await anext(pages)
        for size in range(1, 20):
            grow(tables, LOGS[0], size)
            await next_news(pages)
        assert [(item.log, item.size) for item in (await next_news(slow)).logs] == [(LOGS[0].vkey, 19)]


async def test_a_third_call_of_a_caller_ends_its_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, _):
        calls = [feed.read(b"", 60, ()) for _ in range(3)]
        for call in calls:
            await anext(call)
        async with asyncio.timeout(20):
            with pytest.raises(StopAsyncIteration):
                await anext(calls[0])
        CALLER.set(Caller("another", b"certificate"))
        await anext(feed.read(b"", 60, ()))
        for call in calls:
            await call.aclose()


async def test_a_caller_without_a_certificate_asks_for_single_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, _):
        CALLER.set(Caller("192.0.2.1"))
        with pytest.raises(Refused) as caught:
            require_allowed(CALL_RULES["/comity.v1.NewsService/ReadNews"], CALLER.get())
        assert caught.value.code == "NEWS-PEERS-ONLY"
        require_allowed(CALL_RULES["/comity.v1.NewsService/GetNews"], CALLER.get())
        assert (await feed.page(b"", ())).charter == sha256(b"body")


async def kept(feed: NewsFeed, *known: KnownCosignatures) -> list[LogNews]:
    return [item async for item in feed.cosignatures(known)]


async def test_only_cosignatures_that_the_caller_lacks_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, tables):
        grow(tables, LOGS[0], 4)
        own, other = sign(tables, LOGS[0], COSIGNER, OWN_KEY.name), sign(tables, LOGS[0], OTHER, OTHER_KEY.name, 2_000)

        async def answered(*known: tuple[bytes, int]) -> set[NoteSignature]:
            found = await kept(feed, KnownCosignatures(LOGS[0].vkey, 4, known))
            return {cosignature for item in found for cosignature in item.cosignatures}

        assert await answered() == {own, other}
        assert await answered((OWN_KEY.key_id, 1_000)) == {other}
        assert await answered((OWN_KEY.key_id, 1_000), (OTHER_KEY.key_id, 1_999)) == {other}
        assert await answered((OWN_KEY.key_id, 1_000), (OTHER_KEY.key_id, 2_000)) == set()
        assert await kept(feed, KnownCosignatures(LOGS[0].vkey, 3, ()), KnownCosignatures(LOGS[1].vkey, 4, ())) == []


async def test_cosignatures_of_a_log_are_told_only_while_this_node_is_assigned_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feeding(tmp_path, monkeypatch) as (feed, tables), aclosing(feed.read(b"", 60, ())) as pages:
        assert (await anext(pages)).logs == ()
        UNTOLD.add(LOGS[0].vkey)
        grow(tables, LOGS[0], 5)
        first = sign(tables, LOGS[0], COSIGNER, OWN_KEY.name)
        grow(tables, LOGS[1], 5)
        found = list[LogNews]()
        while {item.log for item in found} != {LOGS[0].vkey, LOGS[1].vkey}:
            found.extend((await next_news(pages)).logs)
        assert not any(item.cosignatures for item in found)
        (lacking,) = await kept(feed, KnownCosignatures(LOGS[0].vkey, 5, ()))
        assert lacking.cosignatures == (first,), "every caller gets them"
        UNTOLD.clear()
        vars(feed)["look_again"]()
        page = await next_news(pages)
        while not any(item.cosignatures for item in page.logs):
            page = await next_news(pages)
        assert [item.cosignatures for item in page.logs if item.log == LOGS[0].vkey] == [(first,)]
