"""The keys that a running node uses, from `keys/` in its home. The member's own keys are elsewhere, and never read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from comity.content.keyfile import read_keys, read_signer
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.statements.node_record import NodeRecord, certificate_key
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.cosignature import cosign
from comity.trust.tlog.note import NoteSignature, sign_note
from comity.wire.certs import TlsIdentity


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The online keys of the node that `record` describes: they are exactly the ones that it binds."""

    record: NodeRecord
    log: PrivateKey
    cosigners: tuple[PrivateKey, ...]
    online: HybridSigner
    tls: TlsIdentity

    @classmethod
    def load(cls, folder: Path, record: NodeRecord) -> Self:
        """Read `log.pem`, `cosigner.pem`, `online.pem` and `tls.pem`.

        Raises what `read_keys` raises, and Untrusted (KEY-MISMATCH) for keys that the node record does not bind.
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
                raise Untrusted("the node's keys are not its record's", why=why, code="KEY-MISMATCH")
        return cls(record, log, cosigners, online, TlsIdentity(record.tls, tls))

    def sign_checkpoint(self, checkpoint: Checkpoint) -> NoteSignature:
        """The log's own signature. The caller answers for the root."""
        return sign_note(checkpoint.text, self.record.origin, self.log)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """One cosignature by each cosigner key. The caller answers for every entry being here."""
        name, now = self.record.cosigners[0].name, int(clock())
        return tuple(cosign(checkpoint, name, key, now) for key in self.cosigners)


def _single(path: Path) -> PrivateKey:
    keys = read_keys(path)
    if len(keys) != 1:
        raise Malformed(f"{path} is no key file of one key", why=f"it holds {len(keys)}")
    return keys[0]
