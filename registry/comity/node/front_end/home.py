"""The home of a front end, opened: public files of the node, its database and its blobs.

A front end has a home of its own with the node's `node.toml`, `inception.line`, `node-record.line`, `rotations.lines`
and federation file. Of the node's keys it reads `keys/tls.pem` alone, and that only for the open port. What it keeps is
in the folder `front-end` beside the setting `storage.ledger`: lists that can be deleted. One front end uses a home.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import structlog
from filelock import Timeout

from comity.content.blobs import BlobStore, blobs_folder
from comity.content.durable import disk_errors, file_lock
from comity.ledger.ledger import Ledger, LedgerFollower
from comity.node.config import NodeConfig
from comity.node.epochs import EpochStore
from comity.node.home import (
    ServedHome,
    homes_of,
    location_providers,
    open_store,
    pinned_federation,
    read_backing,
    read_seat,
)
from comity.node.keys import load_tls
from comity.node.members import Membership, Seat
from comity.node.metrics import LocationProviders, Metrics, ServedBytes
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.trust.charter.federation import Federation
from comity.trust.errors import Conflict, NotFound
from comity.wire.tls import TlsIdentity

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER: Final = "front-end"
LOCK_FILE: Final = "front-end.lock"
TRIED: Final = 8
"""Artifacts whose manifests are looked for at a start."""
SIGNING_KEYS: Final = ("log.pem", "cosigner.pem", "online.pem")
"""Keys of the node that no front end needs."""

_log: Final = structlog.get_logger("comity.node.front_end")


def front_end_settings(config: NodeConfig) -> NodeConfig:
    """The settings as a front end uses them: the gateway fetches nothing, has no console and no second address, and
    what it keeps is in a folder of its own."""
    gateway = config.gateway.model_copy(update={"cold": "off", "console": False, "files": "", "ranges": ""})
    file = config.storage.ledger
    storage = config.storage.model_copy(update={"ledger": file.parent / FOLDER / file.name})
    return config.model_copy(update={"gateway": gateway, "storage": storage})


@dataclass(frozen=True, slots=True)
class FrontEndHome(ServedHome):
    """The opened home of a front end. `open` makes one. `tls` is None without an open port."""

    tls: TlsIdentity | None
    follower: LedgerFollower
    lock: BaseFileLock

    @classmethod
    def open(cls, config: NodeConfig, clock: Clock) -> Self:
        """Read the public files, open the ledger for reading, and the blobs. Blocking.

        Args:
            config: the result of `front_end_settings`.

        Raises Conflict (FRONT-END-RUNS) if another front end uses the home, NotFound (BLOBS-NOT-HERE) if the blobs of
        the node are not where the settings say, what `Ledger.read_only`, `EpochStore` and `load_tls` raise, and
        NotFound, Malformed and Untrusted for invalid files.
        """
        seat, federation, tls = read_public_files(config)
        if found := signing_keys(config):
            hint = f"remove them from {config.keys}: a front end signs nothing"
            _log.warning("signing keys are in the home of a front end", files=found, hint=hint)
        lock = _lock(config)
        try:
            backing = read_backing(config)
            ledger = Ledger.read_only(backing, clock)
            try:
                branch = config.federation.branch
                epochs = EpochStore(ledger.epochs, federation, branch, writes=False) if federation else None
                membership = Membership(seat, federation, epochs.bodies() if epochs else ())
                membership.name_homes(homes_of(membership.known, ledger))
                check_blob_folder(config)
                metrics, store = Metrics(), open_store(config)
                _check_blobs(config, ledger, store)
                served, locations = ServedBytes(metrics), LocationProviders(*location_providers(config, store))
                calls, follower = AsyncLedger(ledger), LedgerFollower(ledger, backing)
                parts = (membership, epochs, calls, store, Pools(), metrics, served, locations, clock)
                return cls(config, *parts, tls, follower, lock)
            except BaseException:
                ledger.close()
                raise
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        self.pools.close()
        self.ledger.close()
        self.lock.release()


def _lock(config: NodeConfig) -> BaseFileLock:
    folder = config.storage.ledger.parent
    with disk_errors("the folder of the front end cannot be used"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = file_lock(folder / LOCK_FILE)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            hint = "give each front end a home of its own: it needs the public files of the node only"
            why = f"it holds {folder / LOCK_FILE}"
            raise Conflict("another front end uses this home", why=why, hint=hint, code="FRONT-END-RUNS") from error
    return lock


def check_blob_folder(config: NodeConfig) -> None:
    """Raises NotFound (BLOBS-NOT-HERE) if the folder of the settings is not one that the writer made, such as the empty
    place of a disk that is not mounted. A front end makes no folder there."""
    if config.storage.s3 is None and not blobs_folder(config.storage.blobs).is_dir():
        raise _blobs_not_here(config, f"{blobs_folder(config.storage.blobs)} is not a folder")


def _check_blobs(config: NodeConfig, ledger: Ledger, store: BlobStore) -> None:
    """Some artifacts that the node claims to hold are in the store: a store without any of them is of another node."""
    held = ledger.replicas.standing(None, TRIED)
    if held and not any(store.has(artifact) for artifact in held):
        raise _blobs_not_here(config, f"no manifest of {len(held)} artifacts that the node holds is there")


def _blobs_not_here(config: NodeConfig, why: str) -> NotFound:
    return NotFound(
        "the files of the node are not where this front end looks",
        why=why,
        hint=f"mount the writer's folder here, and set blobs or [storage.s3] in {config.home / 'node.toml'}",
        code="BLOBS-NOT-HERE",
    )


def read_public_files(config: NodeConfig) -> tuple[Seat, Federation | None, TlsIdentity | None]:
    """Who the node is, the pinned federation if there is one, and the certificate for the open port if there is one.

    Raises NotFound, Refused, Malformed and Untrusted.
    """
    seat = read_seat(config)
    return seat, pinned_federation(config), load_tls(config.keys, seat.record) if config.listen.open else None


def signing_keys(config: NodeConfig) -> list[str]:
    """The files in the home that a front end does not need, and should not have."""
    return [name for name in SIGNING_KEYS if (config.keys / name).exists()]
