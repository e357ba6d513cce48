"""The files of a node's home: who the node is, its keys, the pinned federation; nothing is opened for writing."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.bounded_file import read_bounded
from comity.content.blobs import blobs_folder
from comity.federation_file import Federation, read_federation
from comity.node.config import NodeConfig
from comity.node.keys import NodeKeys, load_tls
from comity.node.members import OwnNode
from comity.node.settings import S3
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.statement import MAX_LINE
from comity.wire.tls import TlsIdentity

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SOFTWARE: Final = f"comity {version('comity')}"
"""What is installed here, as a node tells it."""
MAX_OWN_ROTATIONS: Final = 64
SIGNING_KEYS: Final = ("log.pem", "cosigner.pem", "online.pem")
"""Keys of the node that no front end needs."""
IMPORT_QUEUE_FILE: Final = "import-queue.json"
"""Imports that the operator queued; beside the ledger."""


@frozen
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


def bucket_client(s3: S3, *, patient: bool = True) -> S3Client:
    """The client for the bucket of the settings; one that is not `patient` tries each request once.

    Nothing is sent yet. Raises Unavailable if its library is not installed, and as `make_client`."""
    try:
        from comity.content.s3_client import ATTEMPTS, make_client
    except ImportError as error:
        why = f"{error.name} is missing"
        raise Unavailable("S3 support is not installed", why=why, hint="pip install 'comity[node,s3]'") from error
    return make_client(s3.endpoint, s3.region, s3.credentials_file, attempts=ATTEMPTS if patient else 1)


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
