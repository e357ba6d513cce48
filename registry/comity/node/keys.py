"""The online keys of a node, in `keys/`. The member's own keys are never read.

`NodeKeys.load` reads them; `NodeSigner` is what signs the node's own statements.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from comity.content.secrets import read_keys, read_signer
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.node_records import NodeRecord, certificate_key
from comity.trust.tlog.note import Checkpoint, NoteSignature, cosign, sign_note
from comity.wire.tls import TlsIdentity


@frozen
class NodeSigner:
    """The node as author of its own statements: its record, and the online key that the record binds."""

    record: NodeRecord
    online: HybridSigner


@frozen
class NodeKeys:
    """The online keys of the node that `record` describes: exactly the keys that it binds."""

    record: NodeRecord
    log: PrivateKey
    cosigners: tuple[PrivateKey, ...]
    online: HybridSigner
    tls: TlsIdentity

    @classmethod
    def load(cls, folder: Path, record: NodeRecord) -> Self:
        """Read `log.pem`, `cosigner.pem`, `online.pem` and `tls.pem`.

        Raises what `read_keys` raises, and Untrusted (KEY-MISMATCH) if the node record does not bind a key.
        """
        log, tls = _single(folder / "log.pem"), _single(folder / "tls.pem")
        cosigners, online = read_keys(folder / "cosigner.pem"), read_signer(folder / "online.pem")
        bound = {
            "log.pem": log.public == record.log.public_key,
            "cosigner.pem": {key.public for key in cosigners} == {key.public_key for key in record.cosigners},
            "online.pem": online.public == record.online,
            "tls.pem": tls.public == certificate_key(record.tls),
        }
        for name, matches in bound.items():
            if not matches:
                why = f"{folder / name} does not hold the key that node-record.line binds"
                raise Untrusted("the node's keys do not match its record", why=why, code="KEY-MISMATCH")
        return cls(record, log, cosigners, online, TlsIdentity(record.tls, tls))

    @property
    def signer(self) -> NodeSigner:
        return NodeSigner(self.record, self.online)

    def sign_checkpoint(self, checkpoint: Checkpoint) -> NoteSignature:
        """The log's signature. The caller is responsible for the root."""
        return sign_note(checkpoint.text, self.record.origin, self.log)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """One cosignature by each cosigner key. The caller must hold every entry of the checkpoint."""
        name, now = self.record.cosigners[0].name, int(clock())
        return tuple(cosign(checkpoint, name, key, now) for key in self.cosigners)


def load_tls(folder: Path, record: NodeRecord) -> TlsIdentity:
    """Read `tls.pem` alone: what a process needs that serves under the node's certificate and signs nothing.

    Raises what `read_keys` raises, and Untrusted (KEY-MISMATCH) if the node record does not bind the key.
    """
    key = _single(folder / "tls.pem")
    if key.public != certificate_key(record.tls):
        why = f"{folder / 'tls.pem'} does not hold the key that node-record.line binds"
        raise Untrusted("the node's TLS key does not match its record", why=why, code="KEY-MISMATCH")
    return TlsIdentity(record.tls, key)


def _single(path: Path) -> PrivateKey:
    keys = read_keys(path)
    if len(keys) != 1:
        raise Malformed(f"{path} must hold one key", why=f"it holds {len(keys)}")
    return keys[0]
