"""A node's home, opened: its settings, keys, membership, ledger and blob store. Only the code that puts a node together
takes an `OpenedHome`, or a `ServedHome`; every part of the node takes what it uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from comity.content.audit_log import AuditLog
from comity.content.blobs import BlobStore, FolderStore
from comity.ledger.database import ReadBacking
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.sqlite import SqliteFile
from comity.node.config import NodeConfig
from comity.node.context import NodeContext
from comity.node.epochs import EpochStore
from comity.node.home_files import HomeFiles, bucket_client
from comity.node.keys import NodeKeys
from comity.node.ledger_damage import explained, report_pages
from comity.node.ledger_mark import FileMark, LedgerMark, RowMark
from comity.node.members import Membership
from comity.node.metrics import LOCATION_SECONDS, LocationProvider, LocationProviders, Metrics, ServedBytes
from comity.node.pull_counts import PullCounts
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.wire.blob import BlobLocation
from comity.wire.draining import Draining

if TYPE_CHECKING:
    from comity.ledger.postgres import PostgresStandby

AT_ONCE: Final = 1_000
"""Identities in one query."""


def homes_of(members: Sequence[Digest], ledger: Ledger) -> dict[Digest, str]:
    """Blocking. What the verified inceptions of these members name as their home logs."""
    parts = (members[start : start + AT_ONCE] for start in range(0, len(members), AT_ONCE))
    known = (facts for part in parts for facts in ledger.proven.identities(part).values())
    return {facts.id: facts.home for facts in known}


def draining_of(config: NodeConfig) -> Draining:
    """What tells callers where else they find the node: at another one of its addresses, if it has several."""
    addresses = config.advertise.open
    if len(addresses) < 2:
        return Draining()
    return Draining(f"use another address of this node ({', '.join(addresses)}), or another node")


@frozen
class ServedHome:
    """What serves the readers of a node, whether this process writes the ledger or only reads it."""

    config: NodeConfig
    membership: Membership
    epochs: EpochStore | None
    ledger: AsyncLedger
    store: BlobStore
    pools: Pools
    metrics: Metrics
    served: ServedBytes
    locations: LocationProviders
    clock: Clock
    draining: Draining

    @property
    def context(self) -> NodeContext:
        return NodeContext(self.ledger, self.store, self.pools, self.membership, self.metrics, self.clock)

    def close(self) -> None:
        self.pools.close()
        self.ledger.close()


@frozen
class OpenedHome(ServedHome):
    """The opened home of a node that writes its ledger. `open` makes one; `close` writes the last counts of pulls, and
    releases the ledger's lock."""

    keys: NodeKeys
    pulls: PullCounts

    def close(self) -> None:
        self.pulls.close()
        ServedHome.close(self)  # a class with slots is made twice: `super()` names the first one

    @classmethod
    def open(cls, config: NodeConfig, clock: Clock) -> OpenedHome:
        """Read keys and records, open ledger and blobs, create the own log if it is missing. Blocking.

        Raises as `HomeFiles.read` does, Conflict (LEDGER-LOCKED) if another process uses the home, and Malformed
        (CONFIG) for the home of a front end.
        """
        if config.is_front_end:
            why = 'node.toml has role = "front-end"'
            raise Malformed("this home is of a front end, which writes no ledger", why=why, code="CONFIG")
        files = HomeFiles.read(config)
        own_node, keys, federation = files.own_node, files.keys, files.federation
        ledger = Ledger.open(config.storage.ledger.parent, clock, backing=ledger_backing(config))
        try:
            report_pages(ledger)
            epochs = EpochStore(ledger.epochs, federation, config.federation.branch) if federation else None
            membership = Membership(own_node, federation, epochs.bodies() if epochs else ())
            membership.name_homes(homes_of(membership.known, ledger))
            ledger.logs.create(own_node.record.origin, str(own_node.record.log), own=True)
            metrics = Metrics()
            store = open_store(config)
            pools, locations = Pools(), LocationProviders(*location_providers(config, store))
            pulls = PullCounts(config.storage.ledger.parent, pools, clock)
            served, calls = ServedBytes(metrics, pulls.count), AsyncLedger(ledger)
            parts = (membership, epochs, calls, store, pools, metrics, served, locations, clock, draining_of(config))
            return cls(config, *parts, keys, pulls)
        except BaseException as error:
            known = explained(ledger, error) if isinstance(error, Exception) else error
            ledger.close()
            raise known from (error if known is not error else error.__cause__)

    def mark(self, name: str) -> LedgerMark:
        """The mark `name`, which identifies the database of the ledger."""
        return ledger_mark(self.config, self.ledger.tables, name)

    @property
    def audit_log(self) -> AuditLog:
        return AuditLog(self.config.home, self.clock)


def ledger_mark(config: NodeConfig, ledger: Ledger, name: str) -> LedgerMark:
    """The mark `name`, which identifies the database of the ledger in the settings."""
    storage = config.storage
    file = storage.ledger.with_name(name)
    return RowMark(ledger, name, storage.database, file) if storage.database else FileMark(file, ledger.identity)


def ledger_backing(config: NodeConfig) -> Backing:
    """The database of the settings, for the process that writes it. Raises as `read_backing`."""
    if not config.storage.database:
        return SqliteFile(config.storage.ledger)
    with _needs_postgres():
        from comity.ledger.postgres import PostgresDatabase
    return PostgresDatabase(config.storage.database, config.storage.password_file)


def read_backing(config: NodeConfig) -> ReadBacking:
    """The database of the settings, for a process that only reads it. Raises Unavailable, Malformed and Refused."""
    with _needs_postgres():
        from comity.ledger.postgres import PostgresReader
    return PostgresReader(config.storage.database, config.storage.password_file)


def standby_database(config: NodeConfig) -> PostgresStandby:
    """The database of the settings, for a process that waits to write it. Raises as `read_backing`."""
    with _needs_postgres():
        from comity.ledger.postgres import PostgresStandby
    return PostgresStandby(config.storage.database, config.storage.password_file)


@contextmanager
def _needs_postgres() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        why = f"{error.name or 'libpq'} is missing"
        raise Unavailable(
            "PostgreSQL support is not installed", why=why, hint="pip install 'comity[node,postgres]'"
        ) from error


def open_store(config: NodeConfig) -> BlobStore:
    """The blob store of the settings: a folder, or a bucket."""
    s3 = config.storage.s3
    if s3 is None:
        return FolderStore(config.storage.blobs)
    client = bucket_client(s3)
    from comity.content.s3 import S3Store

    return S3Store(s3.bucket, client, config.storage.blobs, s3.prefix)


def location_providers(config: NodeConfig, store: BlobStore) -> tuple[LocationProvider, ...]:
    """The storage service's own URLs, if the operator enabled them."""
    if config.storage.s3 is None or not config.storage.s3.presigned:
        return ()
    from comity.content.s3 import S3Store

    assert isinstance(store, S3Store)
    return (lambda digest, peer: BlobLocation("s3-presigned", store.presigned(digest, LOCATION_SECONDS)),)
