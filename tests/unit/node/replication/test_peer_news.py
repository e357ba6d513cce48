"""News of a peer is kept until it is processed: bounded, the newest of each log, in whatever order it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from comity.node.replication import news as module
from comity.node.replication.news import (
    BURST_SECONDS,
    BYTES_PER_SECOND,
    MAX_LINES,
    MESSAGES_PER_SECOND,
    NewsReader,
    PeerNews,
    ReadingRate,
)
from comity.trust.errors import Malformed
from comity.trust.tlog.note import NoteSignature
from comity.wire.log import LogHead
from comity.wire.news import LogNews, News

ONE, TWO, OTHER = "one.example/log+1+x", "two.example/log+2+y", "unknown.example/log+3+z"
MIRRORED = {ONE, TWO}
LINE = NoteSignature("node.example/cosigner", b"\0\0\0\1", bytes(72))


def told(*logs: LogNews, more: bool = False, position: bytes = b"p") -> News:
    return News(position, more, logs, 0, None)


def taken(*news: News) -> PeerNews:
    kept = PeerNews()
    for item in news:
        kept.take(item, MIRRORED.__contains__)
    return kept


def test_logs_that_are_not_mirrored_here_are_not_kept() -> None:
    invented = [LogNews(f"{number}.example/log+1+x", b"note") for number in range(256)]
    kept = taken(told(*invented), told(LogNews(OTHER, b"note")))
    assert kept.settled
    assert kept.due(0.0, ONE) == []


def test_the_newest_state_of_a_log_replaces_the_one_before() -> None:
    kept = taken(*(told(LogNews(ONE, b"%d" % size, size)) for size in range(1000)))
    assert [item.note for item in kept.due(0.0, ONE)] == [b"999"]


def test_cosignatures_join_the_checkpoint_that_waits() -> None:
    kept = taken(told(LogNews(ONE, b"note", 5)), told(LogNews(ONE, size=5, cosignatures=(LINE,))))
    (item,) = kept.due(0.0, ONE)
    assert (item.note, item.size, item.cosignatures) == (b"note", 5, (LINE,))


def test_a_new_checkpoint_drops_cosignatures_of_the_one_before() -> None:
    kept = taken(told(LogNews(ONE, size=5, cosignatures=(LINE,))), told(LogNews(ONE, b"note", 6)))
    (item,) = kept.due(0.0, ONE)
    assert (item.note, item.cosignatures) == (b"note", ())


def test_only_a_few_cosignatures_are_kept() -> None:
    kept = taken(told(LogNews(ONE, size=5, cosignatures=(LINE,) * 1024)))
    (item,) = kept.due(0.0, ONE)
    assert len(item.cosignatures) == MAX_LINES


def test_the_peers_own_log_is_processed_first() -> None:
    kept = taken(told(LogNews(ONE, b"a"), LogNews(TWO, b"b")))
    assert [item.log for item in kept.due(0.0, TWO)] == [TWO, ONE]


def test_false_news_of_a_peer_about_a_log_stop_its_news_about_it_for_a_time() -> None:
    """Otherwise each of its messages would cost a parsed note and a line in this node's log."""
    kept = taken(told(LogNews(ONE, b"a"), LogNews(TWO, b"a")))
    item = kept.get(ONE)
    assert item is not None
    kept.postpone(item, 600.0, "not signed", invalid=True)
    kept.postpone(item, 5.0, "not signed")
    for note in (b"b", b"c"):
        kept.take(told(LogNews(ONE, note), LogNews(TWO, note), LogNews(ONE + "x", note)), MIRRORED.__contains__)
        assert [each.log for each in kept.due(599.0, ONE)] == [TWO]
    assert kept.error == "not signed"
    assert [each.note for each in kept.due(600.0, ONE)] == [b"c", b"c"]


def test_failed_news_wait_with_the_reason_until_the_log_grows() -> None:
    kept = taken(told(LogNews(ONE, b"a")))
    (item,) = kept.due(0.0, ONE)
    kept.postpone(item, 5.0, "withheld")
    assert (kept.due(4.0, ONE), kept.error) == ([], "withheld")
    assert kept.log_grew(ONE)
    assert [item.note for item in kept.due(4.0, ONE)] == [b"a"]
    assert not kept.log_grew(TWO)


def test_news_that_arrive_during_the_processing_of_earlier_ones_are_processed_too() -> None:
    kept = taken(told(LogNews(ONE, b"a")))
    (item,) = kept.due(0.0, ONE)
    kept.take(told(LogNews(ONE, b"b")), MIRRORED.__contains__)
    kept.settle(item)
    kept.postpone(item, 9.0, "late")
    assert [item.note for item in kept.due(0.0, ONE)] == [b"b"]


def test_a_peer_has_answered_when_no_more_follows() -> None:
    kept = taken(told(more=True))
    assert not kept.answered
    kept.take(told(), MIRRORED.__contains__)
    assert kept.answered


def test_asking_again_forgets_the_position_and_the_heads() -> None:
    kept = taken(told(position=b"there"))
    head = LogHead("one.example/log", ONE, b"note")
    kept.take_heads([head], MIRRORED.__contains__)
    kept.settle(kept.due(0.0, ONE)[0])
    kept.begin_again()
    assert kept.position == b""
    kept.take_heads([head], MIRRORED.__contains__)
    assert not kept.settled


def test_heads_of_an_older_peer_are_processed_when_they_change() -> None:
    kept, head = PeerNews(), LogHead("one.example/log", ONE, b"note")
    for shown, waiting in ((head, 1), (head, 0), (replace(head, note=b"other"), 1), (replace(head, note=b""), 0)):
        kept.take_heads([shown], MIRRORED.__contains__)
        found = kept.due(0.0, ONE)
        assert len(found) == waiting
        for item in found:
            kept.settle(item)


def test_heads_that_an_older_peer_shows_no_more_are_dropped() -> None:
    kept = PeerNews()
    kept.take_heads([LogHead("one.example/log", ONE, b"note")], MIRRORED.__contains__)
    kept.take_heads([LogHead("two.example/log", TWO, b"note")], MIRRORED.__contains__)
    assert [item.log for item in kept.due(0.0, ONE)] == [TWO]


@pytest.mark.parametrize(
    ("size", "most"),
    [
        pytest.param(10, MESSAGES_PER_SECOND, id="small messages"),
        pytest.param(1 << 20, BYTES_PER_SECOND / (1 << 20), id="large messages"),
    ],
)
def test_a_peer_that_sends_without_end_is_read_at_a_steady_rate(size: int, most: float) -> None:
    now = 1000.0
    rate = ReadingRate(lambda: now)
    began, count = now, 0
    while now - began < 600:
        count += 1
        now += rate.delay(size)
    assert count == pytest.approx(most * (600 + BURST_SECONDS), rel=0.02)


def test_a_peer_that_sends_little_is_read_without_delay() -> None:
    now = 1000.0
    rate = ReadingRate(lambda: now)
    for _ in range(100):
        assert rate.delay(400) == 0.0
        now += 1 / MESSAGES_PER_SECOND


class EndlessClient:
    """A peer that always announces more."""

    @property
    def news(self) -> EndlessClient:
        return self

    def with_timeout(self, timeout: float) -> EndlessClient:
        return self

    async def read(self, position: bytes, heartbeat: int, own_keys: Sequence[bytes]) -> AsyncGenerator[News, None]:
        while True:
            yield told(more=True)


@dataclass
class EndlessPeer:
    news: PeerNews
    client: Any


async def test_a_peer_that_never_finishes_its_first_answer_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a node that waits for the first answers of all peers would never continue."""
    monkeypatch.setattr(module, "COMPLETE_SECONDS", 0.0)
    peer = EndlessPeer(PeerNews(), EndlessClient())
    reader: NewsReader[EndlessPeer] = NewsReader(1, (), MIRRORED.__contains__, lambda link, client: None)
    with pytest.raises(Malformed) as caught:
        await reader.step(peer)
    assert caught.value.code == "UNBOUNDED"
