"""The keys that stay on a node's machine: of its log, its cosigner, its own statements and its TLS certificate.

    keys/log.pem  cosigner.pem  online.pem  tls.pem

None of them decides about the seat. They countersign the node record that binds them, again after each rotation of the
member's governance keys.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from comity.content.keyfile import read_signer, write_keys
from comity.trust.keys import HybridSigner


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """All of them; each field is the name of its file."""

    log: HybridSigner
    cosigner: HybridSigner
    online: HybridSigner
    tls: HybridSigner

    @classmethod
    def generate(cls) -> NodeKeys:
        return cls(
            log=HybridSigner.generate(("ed25519",)),
            cosigner=HybridSigner.generate(("ed25519", "ml-dsa-44")),
            online=HybridSigner.generate(("ed25519", "ml-dsa-65")),
            tls=HybridSigner.generate(("ecdsa-p256",)),
        )

    @classmethod
    def read(cls, folder: Path) -> NodeKeys:
        """Raises NotFound, Refused, Malformed."""
        return cls(**{name: read_signer(folder / f"{name}.pem") for name in _NAMES})

    def write(self, folder: Path) -> None:
        """Raises Conflict (KEY-EXISTS), OutOfSpace, Unavailable."""
        for name in _NAMES:
            write_keys(folder / f"{name}.pem", getattr(self, name).keys)

    @property
    def signers(self) -> tuple[HybridSigner, ...]:
        """Those that countersign the node record."""
        return (self.log, self.cosigner, self.online, self.tls)


_NAMES = tuple(field.name for field in dataclasses.fields(NodeKeys))
