"""`NewsService`: what changes in the logs of a node, told to its peers. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Final, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.tlog.note import NoteSignature
from comity.v1 import news_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call, collected
from comity.wire.codec import LOG, At, Data, Exact, Items, MessageCodec, Read, Unchanged
from comity.wire.fields import read_integer
from comity.wire.rpc import Rpcs

rpc = Rpcs(news_pb2)
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


@frozen
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


@frozen
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


@frozen
class KnownCosignatures:
    """The cosignatures of one checkpoint that a node has: key ids and times."""

    log: Annotated[str, LOG]
    size: int
    known: Annotated[tuple[tuple[bytes, int], ...], Items(limits.COSIGNATURES, _KNOWN_TIME)]


def _check_news(news: News) -> None:
    if len({item.log for item in news.logs}) != len(news.logs):
        raise Malformed("news name a log twice", why="each log has one item in a message")


NEWS: Final = MessageCodec(News, news_pb2.News, _check_news)
_Position: TypeAlias = Annotated[bytes, Data(limits.POSITION)]
_Keys: TypeAlias = Annotated[Sequence[bytes], Items(limits.OWN_KEYS, Data(KEY_ID))]
"""Key ids of the caller's cosigner keys."""


def _clamped(seconds: int) -> int:
    least, most = HEARTBEAT_SECONDS
    return min(max(seconds, least), most)


class NewsService(Protocol):
    @rpc("ReadNews", items=limits.NEWS_MESSAGES, size=limits.NEWS_BYTES)
    def read(
        self,
        position: _Position,
        heartbeat: Annotated[int, At("heartbeat_seconds"), Read(_clamped)],
        own_keys: _Keys = (),
    ) -> AsyncGenerator[Annotated[News, NEWS], None]:
        """What changed since `position`, then each change, until the call's deadline. After `heartbeat` seconds the
        node sends a message without changes: less than the client's timeout. Raises Refused (NEWS-PEERS-ONLY)."""

    @rpc("GetNews")
    async def page(self, position: _Position, own_keys: _Keys = ()) -> Annotated[News, NEWS]:
        """What changed since `position`, or the first page of it."""

    @rpc("GetCosignatures", items=limits.ASKED_LOGS)
    def cosignatures(
        self, known: Annotated[Sequence[KnownCosignatures], At("logs"), Items(limits.ASKED_LOGS)]
    ) -> AsyncGenerator[LogNews, None]:
        """Cosignatures that the node keeps and that are not `known`; for at most `limits.ASKED_LOGS` logs."""


class NewsCalls(ServiceCalls):
    read = call(NewsService.read)
    page = call(NewsService.page)
    cosignatures = collected(NewsService.cosignatures)
