"""What every part of a node has at hand: settings, keys, who is who, the ledger, the blobs, threads, time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content.folder import FolderStore
from comity.content.store import BlobStore
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.sqlite import SqliteFile
from comity.node.annals import Annals
from comity.node.config import NodeConfig
from comity.node.continuity import Mark
from comity.node.keys import NodeKeys
from comity.node.membership import Membership, Seat
from comity.node.metrics import Metrics
from comity.node.places import LIFETIME, Places, Way
from comity.node.pools import Pools
from comity.node.served import Served
from comity.trust.dsse import MAX_LINE
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.federation import MAX_BYTES as MAX_FEDERATION
from comity.trust.federation import Federation
from comity.wire.values import Location

MAX_ROTATIONS: Final = 64

Clock = Callable[[], float]
"""POSIX seconds."""


@dataclass(frozen=True, slots=True)
class Core:
    """An opened node home. `open` makes one; `close` gives the ledger's lock back."""

    config: NodeConfig
    keys: NodeKeys
    membership: Membership
    annals: Annals | None
    ledger: Ledger
    store: BlobStore
    pools: Pools
    metrics: Metrics
    served: Served
    places: Places
    clock: Clock

    @classmethod
    def open(cls, config: NodeConfig, clock: Clock) -> Core:
        """Read keys and records, open ledger and blobs, make sure of the own log. Blocking.

        `offline/` is never looked at. Raises NotFound, Refused, Malformed and Untrusted for what lies in the home, and
        Conflict (LEDGER-LOCKED) where another process runs on it.
        """
        rotations = _lines(config.path("rotations.lines"))
        seat = Seat.parse(_line(config.path("inception.line")), _line(config.path("node-record.line")), rotations)
        keys = NodeKeys.load(config.keys, seat.record)
        federation = _federation(config.federation.file)
        ledger = Ledger.open(config.storage.ledger.parent, clock, backing=_backing(config))
        try:
            annals = Annals(ledger.epochs, federation, config.federation.branch) if federation else None
            membership = Membership(seat, federation, annals.bodies() if annals else ())
            ledger.logs.create(seat.record.origin, str(seat.record.log), own=True)
            metrics = Metrics()
            store = _open_store(config)
            served, places = Served(metrics), Places(*_ways(config, store))
            return cls(config, keys, membership, annals, ledger, store, Pools(), metrics, served, places, clock)
        except BaseException:
            ledger.close()
            raise

    @property
    def seat(self) -> Seat:
        return self.membership.seat

    @property
    def origin(self) -> str:
        """The log that this node writes."""
        return self.seat.record.origin

    @property
    def log(self) -> str:
        """The verifier key of the log that this node writes: its name in the ledger."""
        return str(self.seat.record.log)

    def mark(self, name: str) -> Mark:
        """The file beside the ledger that says which database it was."""
        return Mark(self.config.storage.ledger.with_name(name), self.ledger.identity)

    def close(self) -> None:
        self.pools.close()
        self.ledger.close()


def _backing(config: NodeConfig) -> Backing:
    if not config.storage.database:
        return SqliteFile(config.storage.ledger)
    try:
        from comity.ledger.postgres import PostgresDatabase
    except ImportError as error:
        why = f"{error.name or 'libpq'} is missing"
        raise Unavailable(
            "this installation has no PostgreSQL", why=why, hint="pip install 'comity[node,postgres]'"
        ) from error
    return PostgresDatabase(config.storage.database, config.storage.password_file)


def _open_store(config: NodeConfig) -> BlobStore:
    s3 = config.storage.s3
    if s3 is None:
        return FolderStore(config.storage.blobs)
    try:
        from comity.content.s3 import S3Store
        from comity.content.s3_client import open_client
    except ImportError as error:
        why = f"{error.name} is missing"
        raise Unavailable("this installation has no S3", why=why, hint="pip install 'comity[node,s3]'") from error
    client = open_client(s3.endpoint, s3.region, s3.credentials_file)
    return S3Store(s3.bucket, client, config.storage.blobs, s3.prefix)


def _ways(config: NodeConfig, store: BlobStore) -> tuple[Way, ...]:
    """The service's own URLs, where the operator wants them given out."""
    if config.storage.s3 is None or not config.storage.s3.presigned:
        return ()
    from comity.content.s3 import S3Store

    assert isinstance(store, S3Store)
    return (lambda digest, peer: Location("s3-presigned", store.presigned(digest, LIFETIME)),)


def _line(path: Path) -> bytes:
    line = _bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def _lines(path: Path) -> tuple[bytes, ...]:
    """The lines of a file that need not be there."""
    return tuple(_bounded(path, MAX_ROTATIONS * (MAX_LINE + 1)).splitlines()) if path.exists() else ()


def _federation(file: Path) -> Federation | None:
    """The pinned federation; None in a node that was not founded into one yet."""
    return Federation.parse(_bounded(file, MAX_FEDERATION)) if file.exists() else None


def _bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFound(f"{path} is missing", hint="comity init --help") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read", why=error.strerror or "") from error
    if len(data) > limit:
        raise Malformed(f"{path} is too large", why=f"at most {limit} bytes are read")
    return data
