"""A node's home, opened: its settings, keys, membership, ledger and blob store. Only the code that puts a node together
takes an `OpenedHome`, or a `ServedHome`; every part of the node takes what it uses."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.bounded_file import read_bounded
from comity.content.audit_log import AuditLog
from comity.content.blobs import BlobStore, FolderStore, blobs_folder
from comity.federation_file import Federation, read_federation
from comity.ledger.database import ReadBacking
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.sqlite import SqliteFile
from comity.node.config import NodeConfig
from comity.node.context import NodeContext
from comity.node.epochs import EpochStore
from comity.node.keys import NodeKeys, load_tls
from comity.node.ledger_damage import explained, report_pages
from comity.node.members import Membership, OwnNode
from comity.node.metrics import LOCATION_SECONDS, LocationProvider, LocationProviders, Metrics, ServedBytes
from comity.node.own_log import FileMark, LedgerMark, RowMark
from comity.node.pull_counts import PullCounts
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.statement import MAX_LINE
from comity.wire.blob import BlobLocation
from comity.wire.tls import TlsIdentity

if TYPE_CHECKING:
    from comity.ledger.postgres import PostgresStandby

SOFTWARE: Final = f"comity {version('comity')}"
"""What is installed here, as a node tells it."""
MAX_OWN_ROTATIONS: Final = 64
SIGNING_KEYS: Final = ("log.pem", "cosigner.pem", "online.pem")
"""Keys of the node that no front end needs."""


@dataclass(frozen=True, slots=True)
class HomeFiles:
    """What the files of a home say: who the node is, its keys, and the pinned federation if it has one yet."""

    own_node: OwnNode
    keys: NodeKeys
    federation: Federation | None

    @classmethod
    def read(cls, config: NodeConfig) -> HomeFiles:
        """`offline/` is never read. Raises NotFound, Refused, Malformed and Untrusted for invalid files."""
        own_node = read_own_node(config)
        return cls(own_node, NodeKeys.load(config.keys, own_node.record), pinned_federation(config))


def read_own_node(config: NodeConfig) -> OwnNode:
    """Who the node is, by the public files of its home. Raises NotFound, Malformed and Untrusted."""
    rotations = _lines(config.path("rotations.lines"))
    return OwnNode.parse(_line(config.path("inception.line")), _line(config.path("node-record.line")), rotations)


def check_blob_folder(config: NodeConfig) -> None:
    """Raises NotFound (BLOBS-NOT-HERE) if the folder of the settings is not one that the writer made, such as the empty
    place of a disk that is not mounted. A front end makes no folder there."""
    if config.storage.s3 is None and not blobs_folder(config.storage.blobs).is_dir():
        raise blobs_not_here(config, f"{blobs_folder(config.storage.blobs)} is not a folder")


def blobs_not_here(config: NodeConfig, why: str) -> NotFound:
    """The error for a store that is not that of the writer."""
    return NotFound(
        "the files of the node are not where this front end looks",
        why=why,
        hint=f"mount the writer's folder here, and set blobs or [storage.s3] in {config.home / 'node.toml'}",
        code="BLOBS-NOT-HERE",
    )


def read_public_files(config: NodeConfig) -> tuple[OwnNode, Federation | None, TlsIdentity | None]:
    """Who the node is, the pinned federation if there is one, and the certificate for the open port if there is one.

    Raises NotFound, Refused, Malformed and Untrusted.
    """
    own_node = read_own_node(config)
    return own_node, pinned_federation(config), load_tls(config.keys, own_node.record) if config.listen.open else None


def signing_keys(config: NodeConfig) -> list[str]:
    """The files in the home that a front end does not need, and should not have."""
    return [name for name in SIGNING_KEYS if (config.keys / name).exists()]


def check_ports(listeners: Mapping[str, str]) -> None:
    """Listen for a moment at each address, by setting. Raises Unavailable (LISTEN) that names the setting."""
    for setting, address in listeners.items():
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        try:
            socket.create_server((host.strip("[]"), int(port)), family=family).close()
        except OSError as error:
            raise Unavailable(
                f"{setting} = {address} cannot be listened on",
                why=error.strerror or str(error),
                hint="choose another address in node.toml, or stop what listens there: this node itself, if it runs",
                code="LISTEN",
            ) from error


AT_ONCE: Final = 1_000
"""Identities in one query."""


def homes_of(members: Sequence[Digest], ledger: Ledger) -> dict[Digest, str]:
    """Blocking. What the verified inceptions of these members name as their home logs."""
    parts = (members[start : start + AT_ONCE] for start in range(0, len(members), AT_ONCE))
    known = (facts for part in parts for facts in ledger.proven.identities(part).values())
    return {facts.id: facts.home for facts in known}


@dataclass(frozen=True, slots=True)
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

    @property
    def context(self) -> NodeContext:
        return NodeContext(self.ledger, self.store, self.pools, self.membership, self.metrics, self.clock)

    def close(self) -> None:
        self.pools.close()
        self.ledger.close()


@dataclass(frozen=True, slots=True)
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
        ledger = Ledger.open(config.storage.ledger.parent, clock, backing=_backing(config))
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
            parts = (membership, epochs, calls, store, pools, metrics, served, locations, clock)
            return cls(config, *parts, keys, pulls)
        except BaseException as error:
            known = explained(ledger, error) if isinstance(error, Exception) else error
            ledger.close()
            raise known from (error if known is not error else error.__cause__)

    def mark(self, name: str) -> LedgerMark:
        """The mark `name`, which identifies the database of the ledger."""
        storage, tables = self.config.storage, self.ledger.tables
        file = storage.ledger.with_name(name)
        return RowMark(tables, name, storage.database, file) if storage.database else FileMark(file, tables.identity)

    @property
    def audit_log(self) -> AuditLog:
        return AuditLog(self.config.home, self.clock)


def _backing(config: NodeConfig) -> Backing:
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
    try:
        from comity.content.s3 import S3Store, open_client
    except ImportError as error:
        why = f"{error.name} is missing"
        raise Unavailable("S3 support is not installed", why=why, hint="pip install 'comity[node,s3]'") from error
    client = open_client(s3.endpoint, s3.region, s3.credentials_file)
    return S3Store(s3.bucket, client, config.storage.blobs, s3.prefix)


def location_providers(config: NodeConfig, store: BlobStore) -> tuple[LocationProvider, ...]:
    """The storage service's own URLs, if the operator enabled them."""
    if config.storage.s3 is None or not config.storage.s3.presigned:
        return ()
    from comity.content.s3 import S3Store

    assert isinstance(store, S3Store)
    return (lambda digest, peer: BlobLocation("s3-presigned", store.presigned(digest, LOCATION_SECONDS)),)


def _line(path: Path) -> bytes:
    line = read_bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def _lines(path: Path) -> tuple[bytes, ...]:
    """The lines of an optional file."""
    return tuple(read_bounded(path, MAX_OWN_ROTATIONS * (MAX_LINE + 1)).splitlines()) if path.exists() else ()


def pinned_federation(config: NodeConfig) -> Federation | None:
    """The pinned federation; None if this node has none yet. Raises Malformed, Untrusted."""
    file = config.federation.file
    return read_federation(file) if file.exists() else None
