"""A blob server on loopback over a store in a folder, and a client that reads answers byte by byte."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import os
import random
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from comity.content.blobs import BlobStore, FolderStore
from comity.gateway.fileserver.http1 import SignedUrls
from comity.gateway.fileserver.server import CONNECTIONS, BlobServer, FileSite, RequestRecord, SignedAddresses
from comity.gateway.fileserver.verified import PieceRecords, VerifiedBlobs
from comity.rules.pieces import encode_records
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import Digest, sha256

YEAR = 365 * 86_400


def records_of(data: bytes) -> bytes:
    parts = (data[at : at + PIECE_SIZE] for at in range(0, len(data), PIECE_SIZE))
    return encode_records(PieceRecord(len(part), hashlib.sha256(part).digest()) for part in parts)


@functools.cache
def content(size: int) -> tuple[bytes, Digest, bytes]:
    """A blob of a size, the same each time, with its digest and piece records."""
    data = random.Random(size).randbytes(size)
    return data, sha256(data), records_of(data)


@dataclass
class Kept(PieceRecords):
    """Piece records that outlive a `Checked`, with the lookups."""

    known: dict[Digest, bytes] = field(default_factory=dict)
    asked: list[Digest] = field(default_factory=list)

    def of(self, digest: Digest) -> bytes | None:
        self.asked.append(digest)
        return self.known.get(digest)

    def keep(self, digest: Digest, size: int, records: bytes) -> None:
        self.known[digest] = records


@dataclass
class BlobSite:
    """A blob store, with the lookups and messages about it. `hashed` counts bytes, by the reason for hashing them."""

    store: FolderStore
    records: Kept = field(default_factory=Kept)
    hashed: Counter[str] = field(default_factory=Counter)
    damaged: list[Digest] = field(default_factory=list)
    deliveries: list[RequestRecord] = field(default_factory=list)
    urls: SignedUrls = field(default_factory=lambda: SignedUrls(secrets.token_bytes(32), time.time))

    def __post_init__(self) -> None:
        self.verified = self.fresh()

    def fresh(self) -> VerifiedBlobs:
        """A `Checked` that has verified nothing yet, as after a restart."""
        return self.opened(self.store)

    def opened(self, store: BlobStore, **clocks: Callable[[], float]) -> VerifiedBlobs:
        return VerifiedBlobs(store, self.records, self._damaged, self._hashed, **{"wall": _much_later, **clocks})  # type: ignore[arg-type]

    def add(self, size: int, *, cut: bool = True) -> tuple[Digest, bytes]:
        data, digest, records = content(size)
        path = self.store.partial_path(digest)
        path.write_bytes(data)
        self.store.admit(path, digest, size)
        if cut:
            self.records.known[digest] = records
        return digest, data

    def flip(self, digest: Digest, at: int) -> None:
        """Change a byte on the disk, as a faulty program or disk may."""
        path = self.store.path(digest)
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 0xFF]))
        path.chmod(0o444)

    def flip_unseen(self, digest: Digest, at: int) -> None:
        """The same, with the modification time restored. Only the change time shows it."""
        before = self.store.path(digest).stat()
        self.flip(digest, at)
        os.utime(self.store.path(digest), ns=(before.st_atime_ns, before.st_mtime_ns))

    def path(self, digest: Digest) -> str:
        return self.urls.sign(digest, seconds=600)

    @contextlib.contextmanager
    def serving(self, *, tls: ssl.SSLContext | None = None, connections: int = CONNECTIONS) -> Iterator[int]:
        """The port of a server over these blobs."""
        site = FileSite(SignedAddresses(self.urls), self.verified, self.deliveries.append)
        server = BlobServer(site, ("127.0.0.1", 0), tls=tls, connections=connections)
        try:
            yield server.port
        finally:
            server.close()

    def _damaged(self, digest: Digest, why: str) -> None:
        self.damaged.append(digest)

    def _hashed(self, what: str, count: int) -> None:
        self.hashed[what] += count


def blob_site(folder: Path) -> BlobSite:
    return BlobSite(FolderStore(folder / "store"))


def get(port: int, target: str, method: str = "GET", **fields: str) -> tuple[int, dict[str, str], bytes]:
    """One request. Raises http.client.IncompleteRead where the answer is cut off."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, target, headers={name.replace("_", "-"): text for name, text in fields.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def exchange(port: int, sent: bytes) -> bytes:
    """All bytes that the server answers to these, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65_536):
                received += data
        return bytes(received)


def _much_later() -> float:
    """A clock for which all files are old: tests of fresh files bring their own."""
    return time.time() + YEAR
