"""`NewsService`: what changes in the logs of a node, told to its peers. Values, codec, calls, protocol and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.tlog.note import NoteSignature
from comity.v1 import news_pb2
from comity.v1.news_pb2_grpc import NewsServiceServicer, NewsServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.messages import (
    Context,
    encode_digest,
    read_data,
    read_digest,
    read_integer,
    read_log,
    read_many,
    read_text,
)

if TYPE_CHECKING:
    from comity.v1.news_pb2_grpc import NewsServiceAsyncStub

HEARTBEAT_SECONDS: Final = (1, 60)
"""The least and the largest time between two messages of `ReadNews`."""
KEY_ID: Final = 4
"""Bytes of a key id."""
TIME: Final = 2**63 - 1
"""The largest time in a cosignature."""


@dataclass(frozen=True, slots=True)
class LogNews:
    """What has changed in one log, named by its verifier key.

    Attributes:
        note: its newest checkpoint, signed by the log alone; empty if it has not changed.
        size: of the checkpoint that `cosignatures` sign.
    """

    log: str
    note: bytes = b""
    size: int = 0
    cosignatures: tuple[NoteSignature, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """What has changed since a position.

    Attributes:
        position: the next position; only the node that made it can read it.
        more: whether another message follows at once.
        misbehaviour: number of proofs of misbehaviour that the node keeps.
        charter: digest of the newest charter body that the node follows; None without a federation.
    """

    position: bytes
    more: bool
    logs: tuple[LogNews, ...]
    misbehaviour: int
    charter: Digest | None


@dataclass(frozen=True, slots=True)
class KnownCosignatures:
    """The cosignatures of one checkpoint that a node has: key ids and times."""

    log: str
    size: int
    known: tuple[tuple[bytes, int], ...]


def encode_log_news(news: LogNews) -> news_pb2.LogNews:
    lines = [
        news_pb2.Cosignature(name=line.name, key_id=line.key_id, signature=line.signature) for line in news.cosignatures
    ]
    return news_pb2.LogNews(log=news.log, note=news.note, size=news.size, cosignatures=lines)


def decode_log_news(message: news_pb2.LogNews) -> LogNews:
    return LogNews(
        log=read_log(message.log),
        note=read_data(message.note, "checkpoint", limits.CHECKPOINT),
        size=read_integer(message.size, "size"),
        cosignatures=read_many(message.cosignatures, "cosignatures", limits.COSIGNATURES, _decode_cosignature),
    )


def _decode_cosignature(message: news_pb2.Cosignature) -> NoteSignature:
    signature = read_data(message.signature, "cosignature", limits.COSIGNATURE)
    return NoteSignature(read_text(message.name, "name of a cosigner", limits.NAME), message.key_id, signature)


def encode_news(news: News) -> news_pb2.News:
    return news_pb2.News(
        position=news.position,
        more=news.more,
        logs=map(encode_log_news, news.logs),
        misbehaviour=news.misbehaviour,
        charter=encode_digest(news.charter) if news.charter else b"",
    )


def decode_news(message: news_pb2.News) -> News:
    logs = read_many(message.logs, "logs", limits.NEWS_LOGS, decode_log_news)
    if len({item.log for item in logs}) != len(logs):
        raise Malformed("news name a log twice", why="each log has one item in a message")
    return News(
        position=read_data(message.position, "position", limits.POSITION),
        more=message.more,
        logs=logs,
        misbehaviour=read_integer(message.misbehaviour, "number of proofs"),
        charter=read_digest(message.charter) if message.charter else None,
    )


def encode_known(known: KnownCosignatures) -> news_pb2.KnownCosignatures:
    times = [news_pb2.CosignatureTime(key_id=int.from_bytes(key_id, "big"), time=time) for key_id, time in known.known]
    return news_pb2.KnownCosignatures(log=known.log, size=known.size, known=times)


def decode_known(message: news_pb2.KnownCosignatures) -> KnownCosignatures:
    times = read_many(
        message.known,
        "known cosignatures",
        limits.COSIGNATURES,
        lambda item: (item.key_id.to_bytes(KEY_ID, "big"), read_integer(item.time, "time", most=TIME)),
    )
    return KnownCosignatures(read_log(message.log), read_integer(message.size, "size"), times)


def _read_keys(keys: Sequence[bytes]) -> tuple[bytes, ...]:
    return read_many(keys, "own keys", limits.OWN_KEYS, lambda key: read_data(key, "key id", KEY_ID))


class NewsCalls(ServiceCalls):
    """The calls of `NewsService`."""

    @cached_property
    def _news(self) -> NewsServiceAsyncStub:
        return NewsServiceStub(self._calls.connection.channel)

    async def read(self, position: bytes, heartbeat: int, own_keys: Sequence[bytes] = ()) -> AsyncGenerator[News, None]:
        """Yields what changed since `position`, then each change, until the call's deadline.

        Args:
            heartbeat: seconds after which the node sends a message without changes; less than the client's timeout.
            own_keys: key ids of the caller's cosigner keys.
        """
        request = news_pb2.ReadNewsRequest(position=position, heartbeat_seconds=heartbeat, own_keys=own_keys)
        messages = self._calls.stream(
            self._news.ReadNews,
            request,
            items=limits.NEWS_MESSAGES,
            size=limits.NEWS_BYTES,
            deadline=limits.LONGEST_CALL,
        )
        async with aclosing(messages):
            async for message in messages:
                yield decode_news(message)

    async def page(self, position: bytes, own_keys: Sequence[bytes] = ()) -> News:
        """Returns what changed since `position`, or the first page of it."""
        request = news_pb2.GetNewsRequest(position=position, own_keys=own_keys)
        return decode_news(await self._calls.unary(self._news.GetNews, request))

    async def cosignatures(self, known: Sequence[KnownCosignatures]) -> tuple[LogNews, ...]:
        """Returns cosignatures that the node keeps and that are not `known`; for at most `limits.ASKED_LOGS` logs."""
        request = news_pb2.GetCosignaturesRequest(logs=map(encode_known, known))
        return await self._calls.all(self._news.GetCosignatures, request, decode_log_news, limits.ASKED_LOGS)


class NewsReads(Protocol):
    def read(self, position: bytes, heartbeat: float, own_keys: Sequence[bytes]) -> AsyncGenerator[News, None]:
        """Yields until the caller closes it. Raises Refused (NEWS-PEERS-ONLY)."""

    async def page(self, position: bytes, own_keys: Sequence[bytes]) -> News: ...

    async def cosignatures(self, known: KnownCosignatures) -> LogNews | None:
        """Returns the cosignatures that are kept here and not known; None if there are none."""


class NewsServicer(NewsServiceServicer):
    def __init__(self, news: NewsReads) -> None:
        self._news = news

    async def ReadNews(self, request: news_pb2.ReadNewsRequest, context: Context) -> AsyncIterator[news_pb2.News]:
        position = read_data(request.position, "position", limits.POSITION)
        least, most = HEARTBEAT_SECONDS
        heartbeat = min(max(request.heartbeat_seconds, least), most)
        async with aclosing(self._news.read(position, heartbeat, _read_keys(request.own_keys))) as pages:
            async for news in pages:
                yield encode_news(news)

    async def GetNews(self, request: news_pb2.GetNewsRequest, context: Context) -> news_pb2.News:
        position = read_data(request.position, "position", limits.POSITION)
        return encode_news(await self._news.page(position, _read_keys(request.own_keys)))

    async def GetCosignatures(
        self, request: news_pb2.GetCosignaturesRequest, context: Context
    ) -> AsyncIterator[news_pb2.LogNews]:
        for known in read_many(request.logs, "logs", limits.ASKED_LOGS, decode_known):
            if found := await self._news.cosignatures(known):
                yield encode_log_news(found)
