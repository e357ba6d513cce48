"""`NewsService`: what changes in the logs of a node, told to its peers. Values, codec, calls, protocol and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.tlog.note import NoteSignature
from comity.v1 import news_pb2
from comity.v1.news_pb2_grpc import NewsServiceServicer, NewsServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.codec import LOG, Data, Exact, Items, MessageCodec, Read, Unchanged
from comity.wire.fields import read_data, read_integer, read_many
from comity.wire.messages import Context

if TYPE_CHECKING:
    from comity.v1.news_pb2_grpc import NewsServiceAsyncStub

HEARTBEAT_SECONDS: Final = (1, 60)
"""The least and the largest time between two messages of `ReadNews`."""
KEY_ID: Final = 4
"""Bytes of a key id."""
TIME: Final = 2**63 - 1
"""The largest time in a cosignature."""


_COSIGNATURE: Final = MessageCodec(
    NoteSignature,
    news_pb2.Cosignature,
    name=Exact(limits.NAME),
    key_id=Unchanged(),
    signature=Data(limits.COSIGNATURE),
)


def _read_time(message: news_pb2.CosignatureTime) -> tuple[bytes, int]:
    return message.key_id.to_bytes(KEY_ID, "big"), read_integer(message.time, "time", most=TIME)


def _write_time(known: tuple[bytes, int]) -> news_pb2.CosignatureTime:
    return news_pb2.CosignatureTime(key_id=int.from_bytes(known[0], "big"), time=known[1])


_KNOWN_TIME: Final = Read(_read_time, _write_time)


@dataclass(frozen=True, slots=True)
class LogNews:
    """What has changed in one log, named by its verifier key.

    Attributes:
        note: its newest checkpoint, signed by the log alone; empty if it has not changed.
        size: of the checkpoint that `cosignatures` sign.
    """

    log: Annotated[str, LOG]
    note: Annotated[bytes, Data(limits.CHECKPOINT)] = b""
    size: int = 0
    cosignatures: Annotated[tuple[NoteSignature, ...], Items(limits.COSIGNATURES, _COSIGNATURE)] = ()


@dataclass(frozen=True, slots=True)
class News:
    """What has changed since a position.

    Attributes:
        position: the next position; only the node that made it can read it.
        more: whether another message follows at once.
        misbehaviour: number of proofs of misbehaviour that the node keeps.
        charter: digest of the newest charter body that the node follows; None without a federation.
    """

    position: Annotated[bytes, Data(limits.POSITION)]
    more: bool
    logs: Annotated[tuple[LogNews, ...], Items(limits.NEWS_LOGS)]
    misbehaviour: int
    charter: Digest | None


@dataclass(frozen=True, slots=True)
class KnownCosignatures:
    """The cosignatures of one checkpoint that a node has: key ids and times."""

    log: Annotated[str, LOG]
    size: int
    known: Annotated[tuple[tuple[bytes, int], ...], Items(limits.COSIGNATURES, _KNOWN_TIME)]


def _check_news(news: News) -> None:
    if len({item.log for item in news.logs}) != len(news.logs):
        raise Malformed("news name a log twice", why="each log has one item in a message")


LOG_NEWS: Final = MessageCodec(LogNews, news_pb2.LogNews)
NEWS: Final = MessageCodec(News, news_pb2.News, _check_news)
KNOWN: Final = MessageCodec(KnownCosignatures, news_pb2.KnownCosignatures)


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
                yield NEWS.decode(message)

    async def page(self, position: bytes, own_keys: Sequence[bytes] = ()) -> News:
        """Returns what changed since `position`, or the first page of it."""
        request = news_pb2.GetNewsRequest(position=position, own_keys=own_keys)
        return NEWS.decode(await self._calls.unary(self._news.GetNews, request))

    async def cosignatures(self, known: Sequence[KnownCosignatures]) -> tuple[LogNews, ...]:
        """Returns cosignatures that the node keeps and that are not `known`; for at most `limits.ASKED_LOGS` logs."""
        request = news_pb2.GetCosignaturesRequest(logs=map(KNOWN.encode, known))
        return await self._calls.all(self._news.GetCosignatures, request, LOG_NEWS.decode, limits.ASKED_LOGS)


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
                yield NEWS.encode(news)

    async def GetNews(self, request: news_pb2.GetNewsRequest, context: Context) -> news_pb2.News:
        position = read_data(request.position, "position", limits.POSITION)
        return NEWS.encode(await self._news.page(position, _read_keys(request.own_keys)))

    async def GetCosignatures(
        self, request: news_pb2.GetCosignaturesRequest, context: Context
    ) -> AsyncIterator[news_pb2.LogNews]:
        for known in read_many(request.logs, "logs", limits.ASKED_LOGS, KNOWN.decode):
            if found := await self._news.cosignatures(known):
                yield LOG_NEWS.encode(found)
