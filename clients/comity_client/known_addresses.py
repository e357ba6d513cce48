"""Where nodes are reached beyond the addresses of the pinned federation files: what they announced since.

A node says where it is reached in signed statements (`addresses`), which are in its log and so at every other node. A
session reads them where the addresses that it knows do not lead to the node, and where it lasts longer than a moment.
Only the node's key says what it announced, and only the pinned certificate in a handshake proves an address: one that
leads elsewhere costs a connection over which nothing was sent.

    addresses/<id of the node>.line     in the folder of the pins: the newest statement that was of use; empty if it
                                        names nothing beyond the pin. Verified each time it is read.

    grows with                          bound
    connections to one node             MAX_ADDRESSES announced ones, and those of the federation file
    questions about one node            once in ASK_AGAIN seconds, at ASKED others
    files                               one for each pinned node
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Refused, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.node_records import MAX_ADDRESSES, Addresses, NodeRecord, newest_first, read_addresses
from comity.wire.addresses import Address, Network, callable_host, network_of
from comity.wire.limits import LINE
from comity.wire.messages import LocatedEntry

ASK_AGAIN: Final = 60.0
"""Seconds after which a session asks again where a node is."""


class KeptAddresses:
    """The statements in `folder`, which is made at the first one; without a folder, none is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder / "addresses" if folder else None

    def line(self, node: Digest) -> bytes:
        """The kept statement of a node, unverified; empty if there is none. Raises Malformed, Unavailable."""
        try:
            return read_bounded(self._path(node), LINE) if self._folder else b""
        except NotFound:
            return b""

    def keep(self, node: Digest, line: bytes) -> None:
        """Keep a statement in place of the one before. Raises OutOfSpace, Unavailable."""
        if self._folder is not None and self.line(node) != line:
            with durable.disk_errors(f"{self._folder} was not written"):
                durable.make_folders(self._folder, mode=0o700)
            durable.write_file(self._path(node), line, mode=0o600, point="trust")

    def _path(self, node: Digest) -> Path:
        assert self._folder is not None
        return self._folder / f"{node}.line"


class KnownAddresses:
    """The addresses that one node announced beyond those of the federation file. Not thread-safe.

    Args:
        own: the addresses of the node in the federation file.
        listed: those of all nodes.
        ask_others: what other nodes have about it, as they answer.
    """

    def __init__(
        self,
        record: NodeRecord,
        own: Sequence[str],
        listed: Sequence[str],
        kept: KeptAddresses,
        reader: EvidenceReader,
        ask_others: Callable[[], Awaitable[Iterable[LocatedEntry]]],
    ) -> None:
        self._record = record
        self._own, self._listed = own, listed
        self._kept = kept
        self._reader = reader
        self._ask_others = ask_others
        self._lines = dict[str, bytes]()
        """Each address, and the statement that announced it; those of the newest one first."""
        self._targets = dict[str, Address]()
        self._asked_at = -math.inf
        self._asking = asyncio.Lock()
        with contextlib.suppress(ComityError):  # what was kept is for convenience
            line = kept.line(record.node.id)
            if line and (read := self._read(line)) is not None:
                self._take([(line, read)])

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those of the newest statement first."""
        return tuple(self._lines)

    def target(self, address: str) -> Address:
        """Where to connect for an address: that of `permit`, if it was announced."""
        return self._targets.get(address) or Address.parse(address)

    async def look(self) -> None:
        """Ask other nodes for newer addresses, if that was not done lately. Raises what `ask_others` raises."""
        async with self._asking:
            if time.monotonic() < self._asked_at + ASK_AGAIN:
                return
            self._asked_at = time.monotonic()
            own = {str(self._record.log), self._record.origin}
            places = dict[bytes, int]()
            for located in await self._ask_others():
                if located.origin in own:
                    places[located.line] = max(located.index, places.get(located.line, 0))
            lines = sorted(places, key=places.__getitem__, reverse=True)
            self._take(newest_first([(line, read) for line in lines if (read := self._read(line)) is not None]))

    def told(self, line: bytes) -> None:
        """The node itself told its newest statement. Raises OutOfSpace, Unavailable."""
        if (addresses := self._read(line)) is not None:
            self._take([(line, addresses)])
            self._kept.keep(self._record.node.id, line if self._beyond(addresses) else b"")

    async def permit(self, address: str) -> None:
        """Decide where to connect for an address that was announced. Raises Refused (PRIVATE-ADDRESS), Unavailable."""
        if address not in self._own and address not in self._targets:
            self._targets[address] = await permitted(Address.parse(address), self._own, self._listed)

    def reached(self, address: str) -> None:
        """The node was reached at an address: what announced it is kept, if the disk allows it."""
        if address not in self._own:
            with contextlib.suppress(OutOfSpace, Unavailable):
                self._kept.keep(self._record.node.id, self._lines[address])

    def _read(self, line: bytes) -> Addresses | None:
        entry = self._reader.readable(line)
        return read_addresses(entry, self._record) if entry else None

    def _beyond(self, addresses: Addresses) -> list[str]:
        return [text for text in addresses.open if text not in self._own and _is_address(text)]

    def _take(self, found: Iterable[tuple[bytes, Addresses]]) -> None:
        lines = [(text, line) for line, read in found for text in self._beyond(read)]
        newest = dict[str, bytes]()
        for text, line in (*lines, *self._lines.items()):
            newest.setdefault(text, line)
        self._lines = dict(islice(newest.items(), MAX_ADDRESSES))


async def permitted(address: Address, own: Sequence[str], listed: Iterable[str]) -> Address:
    """Where to connect for an address that a node announced: the IP address that was looked up here, so that a name
    cannot lead elsewhere later. No node can make this machine knock at its own doors, or at those of its network, if
    no pinned address is there.

    Args:
        own: the addresses of this node in the federation file.
        listed: those of all nodes.

    Raises Refused (PRIVATE-ADDRESS), Unavailable.
    """
    from urllib.request import getproxies  # it loads an HTTP client, which few sessions need

    if "https" in getproxies() and not address.is_loopback:
        return address  # the proxy looks it up
    networks = _networks([Address.parse(text).host for text in listed])
    for text in own:
        networks += _networks(await _looked_up(Address.parse(text)))
    host = callable_host(await _looked_up(address), networks)
    if host is None:
        why = "it is not of the public internet, and no pinned address is in its network"
        raise Refused(f"{address} is not called", why=why, code="PRIVATE-ADDRESS")
    return Address(host, address.port)


async def _looked_up(address: Address) -> list[str]:
    """The IP addresses of a host. Raises Unavailable."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{address} is not called", why=f"the name is not known: {error}") from error
    return list(dict.fromkeys(str(item[4][0]).partition("%")[0] for item in found))


def _networks(hosts: Iterable[str]) -> list[Network]:
    return [network for host in hosts if (network := network_of(host)) is not None]


def _is_address(text: str) -> bool:
    """Whether an announced address is one that can be called."""
    try:
        Address.parse(text)
    except Malformed:
        return False
    return True
