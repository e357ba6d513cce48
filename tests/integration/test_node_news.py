"""Nodes that tell one another what has changed, with nodes of an older version and with nodes that send false news."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from comity.node.listeners import Listeners
from comity.node.members import Membership
from comity.node.replication.news import BURST_SECONDS, MESSAGES_PER_SECOND, PeerNews
from comity.node.services.news import NewsFeed
from comity.node.settings import Limits, Listen
from comity.trust.encoding import sha256
from comity.trust.tlog.note import NoteSignature
from comity.wire.client import NodeClient
from comity.wire.draining import Draining
from comity.wire.log import LogHead
from comity.wire.news import KnownCosignatures, LogNews, News
from comity.wire.services import Services
from comity.wire.tls import TlsIdentity
from support.federation import Founded, converged, found, serving
from support.impostor import Shown, impostor
from support.publisher import Publisher
from support.short_form import cases

pytestmark = pytest.mark.slow


async def the_others_go_on(founded: Founded) -> None:
    """The two honest nodes still copy and cosign each other's new entries."""
    first, second, _ = founded.homes
    publisher = Publisher.generate()
    async with first.client() as client:
        receipt = (await client.submit([publisher.announcement])).receipts[0]
    await converged((first, second), first, least=receipt.index + 1)


async def test_nodes_copy_and_cosign_beside_one_without_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    founded = found(tmp_path, 3)
    third = founded.homes[2]
    make, heads = Listeners.__init__, NodeClient.logs
    asked = list[NodeClient]()

    def listening(
        self: Listeners,
        listen: Listen,
        limits: Limits,
        tls: TlsIdentity,
        members: Membership,
        services: Services,
        draining: Draining,
    ) -> None:
        told = None if members.own_node.record.origin == third.origin else services.news
        make(self, listen, limits, tls, members, replace(services, news=told), draining)

    async def listing(self: NodeClient) -> tuple[LogHead, ...]:
        asked.append(self)
        return await heads(self)

    monkeypatch.setattr(Listeners, "__init__", listening)
    monkeypatch.setattr(NodeClient, "logs", listing)
    async with serving(*founded.homes):
        for home in founded.homes:
            await converged(founded.homes, home, least=3)
        publisher = Publisher.generate()
        async with third.client() as client:
            receipt = (await client.submit([publisher.announcement])).receipts[0]
        await converged(founded.homes, third, least=receipt.index + 1)
    assert asked


async def test_missing_cosignatures_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    founded = found(tmp_path, 3)
    silent = tuple(key.key_id for key in founded.homes[2].record.cosigners)
    page = NewsFeed.page

    async def omitting(self: NewsFeed, position: bytes, own_keys: Sequence[bytes]) -> News:
        told = await page(self, position, own_keys)
        if self._own_keys != silent:
            return told
        return replace(told, logs=tuple(replace(item, cosignatures=()) for item in told.logs))

    monkeypatch.setattr(NewsFeed, "page", omitting)
    async with serving(*founded.homes):
        for home in founded.homes:
            await converged(founded.homes, home, least=3)


@dataclass
class LyingNews:
    """News about the lying node's own log, as a test writes them."""

    tell: Callable[[LyingNews], AsyncGenerator[News, None]]
    shown: Shown | None = None
    asked: list[bytes] = field(default_factory=list)
    """The positions that the callers named."""

    def news(self, *logs: LogNews, position: bytes = b"here", more: bool = False) -> News:
        return News(position, more, logs, 0, None)

    def own(self, size: int | None = None) -> LogNews:
        """The lying node's own log, cut to its first `size` entries."""
        assert self.shown is not None
        lines = self.shown.lines if size is None else self.shown.lines[:size]
        head = replace(self.shown, lines=lines).head()
        return LogNews(head.vkey, head.note, len(lines))

    async def read(
        self, position: bytes, heartbeat: float, own_keys: Sequence[bytes] = ()
    ) -> AsyncGenerator[News, None]:
        self.asked.append(position)
        async for news in self.tell(self):
            yield news

    async def page(self, position: bytes, own_keys: Sequence[bytes] = ()) -> News:
        return self.news(more=True)

    async def cosignatures(self, known: Sequence[KnownCosignatures]) -> AsyncGenerator[LogNews, None]:
        for item in list[LogNews]():
            yield item


async def without_end(liar: LyingNews) -> AsyncGenerator[News, None]:
    while True:
        yield liar.news(liar.own(), more=True)


async def repeated(liar: LyingNews) -> AsyncGenerator[News, None]:
    while True:
        yield liar.news(liar.own())


async def reordered(liar: LyingNews) -> AsyncGenerator[News, None]:
    while True:
        for size in (2, 1, 2):
            yield liar.news(liar.own(size))
            await asyncio.sleep(0.05)


async def invented(liar: LyingNews) -> AsyncGenerator[News, None]:
    count = 0
    while True:
        logs = [LogNews(f"invented-{count + at}.example/log+1+x", b"note", 1) for at in range(256)]
        count += len(logs)
        yield liar.news(*logs)


async def forged(liar: LyingNews) -> AsyncGenerator[News, None]:
    """Invalid cosignatures, a new one each time, and a charter and proofs that do not exist."""
    own, count = liar.own(), 0
    yield liar.news(own)
    while True:
        count += 1
        line = NoteSignature("node.example/cosigner", count.to_bytes(4, "big"), bytes(72))
        told = liar.news(LogNews(own.log, size=own.size, cosignatures=(line,) * 1024))
        yield replace(told, misbehaviour=count, charter=sha256(b"%d" % count))


async def silent(liar: LyingNews) -> AsyncGenerator[News, None]:
    """Never any news of any log."""
    yield liar.news()
    await asyncio.sleep(3600)


async def ended(liar: LyingNews) -> AsyncGenerator[News, None]:
    """One message, and the end of the call, with a position that is too large to send back."""
    yield liar.news(liar.own(), position=bytes(4096))


@pytest.mark.parametrize(
    "tell",
    cases([without_end, repeated, reordered, invented, forged, silent, ended], [without_end, reordered, silent]),
    ids=lambda tell: tell.__name__,
)
async def test_a_peer_with_false_news_delays_no_other_and_is_read_at_a_bounded_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[LyingNews], AsyncGenerator[News, None]]
) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    liar, take, taken = LyingNews(tell), PeerNews.take, list[News]()

    def taking(self: PeerNews, news: News, is_mirrored: Callable[[str], bool]) -> None:
        taken.append(news)
        take(self, news, is_mirrored)

    monkeypatch.setattr(PeerNews, "take", taking)
    async with impostor(founded, third, liar) as liar.shown:
        began = asyncio.get_running_loop().time()
        async with serving(first, second):
            await the_others_go_on(founded)
            await the_others_go_on(founded)
        seconds = asyncio.get_running_loop().time() - began
    assert liar.asked
    assert all(len(position) <= 64 for position in liar.asked)
    lies = [news for news in taken if news.position == b"here"]
    assert len(lies) <= 2 * (BURST_SECONDS + seconds) * MESSAGES_PER_SECOND
