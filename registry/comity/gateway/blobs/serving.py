"""The blob servers of a running node: one for stock clients, one for peers, over the same verified blobs."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal
from urllib.parse import urlsplit

import structlog

from comity.gateway.blobs.checked import Checked
from comity.gateway.blobs.connection import Delivery, Site
from comity.gateway.blobs.cut import Records
from comity.gateway.blobs.server import BlobServer
from comity.gateway.blobs.urls import Urls
from comity.gateway.server import tls_context
from comity.ledger.piece_index import PieceIndex
from comity.node.core import Core
from comity.node.descriptors import connection_limits
from comity.node.places import LIFETIME
from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.pieces import FIXED, TENSOR
from comity.wire.https import server_context
from comity.wire.values import Location

DIGITS: Final = 12
"""Of a blob's digest, in the log: enough to find it, too few for a URL."""

_log: Final = structlog.get_logger("comity.gateway.blobs")


@dataclass(frozen=True, slots=True)
class Blobs:
    """Verified bytes for the gateway's routes.

    `checked` gives them to a route that answers by itself; `urls` opens them at the file server, whose address is
    `address`: scheme and authority, without a host where it is the one that the client has come to (`https://:7481`);
    empty where there is none.
    """

    checked: Checked
    urls: Urls
    address: str

    def location(self, digest: Digest, *, host: str, name: str = "", seconds: float = LIFETIME) -> str:
        """Where to redirect a client that has come to `host` (a name or address, IPv6 in brackets)."""
        where = urlsplit(self.address)
        authority = f"{host}:{where.port}" if not where.hostname else where.netloc
        return f"{where.scheme}://{authority}{self.urls.sign(digest, seconds=seconds, name=name)}"


@asynccontextmanager
async def serving(core: Core, lost: Callable[[], None]) -> AsyncIterator[Blobs]:
    """Serve the node's blobs at the addresses that its settings name, while the block lasts.

    `lost` is told, on this event loop, that a damaged blob was put aside.

    Raises Unavailable (LISTEN); NotFound and Malformed for the gateway's certificate and key.
    """
    settings = core.config.gateway
    loop = asyncio.get_running_loop()

    def damaged(digest: Digest, why: str) -> None:
        core.metrics.verify_failures.labels("blob").inc()
        _log.error("a blob is damaged and was put aside", blob=digest, why=why)
        with suppress(RuntimeError):  # the loop has ended, and the node with it
            loop.call_soon_threadsafe(lost)

    def hashed(what: Literal["piece", "whole"], count: int) -> None:
        core.metrics.hashed_bytes.labels(what).inc(count)

    checked = Checked(core.store, LedgerRecords(core.ledger.pieces), damaged, hashed)
    urls = Urls(secrets.token_bytes(32), core.clock)
    async with AsyncExitStack() as stack:

        def begin(address: str, door: str, tls: ssl.SSLContext | None) -> str:
            """Gives the authority at which the server listens."""
            host, _, port = address.rpartition(":")
            server = BlobServer(
                Site(urls, checked, partial(_delivered, core, loop, door)),
                (host.strip("[]"), int(port)),
                tls=tls,
                connections=connection_limits().blobs,
            )
            stack.push_async_callback(asyncio.to_thread, server.close)
            return f"{host}:{server.port}"

        files = ""
        if settings.files:
            tls = tls_context(settings)
            port = begin(settings.files, "files", tls).rpartition(":")[2]
            files = settings.files_url or f"{'https' if tls else 'http'}://:{port}"
        if settings.ranges:
            here = begin(settings.ranges, "ranges", server_context(core.keys.tls))
            base = settings.ranges_url or f"https://{_reached(core, here)}"
            stack.enter_context(
                core.places.offered(
                    lambda digest, peer: Location("https-range", base + urls.sign(digest, seconds=LIFETIME, peer=peer))
                )
            )
        yield Blobs(checked, urls, files)


def _reached(core: Core, here: str) -> str:
    """The authority by which others reach a server that listens at `here`: the host that the node advertises."""
    host = next((address.rpartition(":")[0] for address in core.config.advertise.open), here.rpartition(":")[0])
    return f"{host}:{here.rpartition(':')[2]}"


class LedgerRecords(Records):
    """Those that the ledger has, in whichever layout."""

    def __init__(self, pieces: PieceIndex) -> None:
        self._pieces = pieces

    def of(self, digest: Digest) -> bytes | None:
        found = (self._pieces.records(digest, layout) for layout in (TENSOR, FIXED))
        return next((records for records in found if records is not None), None)

    def keep(self, digest: Digest, size: int, records: bytes) -> None:
        _log.info("a blob without piece records was hashed", blob=digest, size=size)
        try:
            self._pieces.remember_records(digest, size, FIXED, records)
        except ComityError as error:
            _log.warning("piece records were not kept", blob=digest, why=str(error))


def _delivered(core: Core, loop: asyncio.AbstractEventLoop, door: str, delivery: Delivery) -> None:
    """A line in the log, and sums. From any thread; neither the URL nor all of the digest gets into the log."""
    core.metrics.served_bytes.labels(delivery.peer or door).inc(delivery.sent)
    if delivery.blob and delivery.sent:
        with suppress(RuntimeError):  # the loop has ended, and the node with it
            loop.call_soon_threadsafe(core.served.count, delivery.peer or delivery.host, delivery.blob, delivery.sent)
    _log.info(
        "blob served",
        door=door,
        peer=delivery.peer,
        host=delivery.host,
        blob=(delivery.blob or "")[:DIGITS],
        status=delivery.status,
        asked=delivery.asked,
        sent=delivery.sent,
        code=delivery.code,
    )
