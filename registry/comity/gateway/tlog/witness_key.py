"""The plain witness's own key: for outside logs that are signed without being held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from comity.content.keyfile import read_keys
from comity.node.core import Core
from comity.trust.errors import Malformed
from comity.trust.keys import PrivateKey
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.cosignature import cosign, cosigner_key
from comity.trust.tlog.note import NoteSignature, SignedNote, VerifierKey


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """One name, one or two keys, none of which signs anything else."""

    name: str
    pairs: tuple[PrivateKey, ...]

    @classmethod
    def load(cls, core: Core) -> Self | None:
        """None where the operator named no witness. Blocking.

        Raises what `read_keys` raises, and Malformed (CONFIG) for a name or key that the node has another use for: an
        Ed25519 cosignature does not say in which role it was made.
        """
        settings, keys = core.config.tlog, core.keys
        if not settings.witness_name:
            return None
        pairs = read_keys(settings.witness_key)
        taken = {key.public for key in (keys.log, *keys.cosigners, *keys.online.keys)}
        names = {keys.record.origin, *(key.name for key in keys.record.cosigners)}
        if settings.witness_name in names or any(key.public in taken for key in pairs):
            why = "the node's log or its cosigner has the same; a witness needs its own"
            raise Malformed("the witness's name or key is taken", why=why, code="CONFIG")
        for key in pairs:
            cosigner_key(settings.witness_name, key.public)  # of a kind that cosigns
        return cls(settings.witness_name, pairs)

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return tuple(cosigner_key(self.name, key.public) for key in self.pairs)

    def signed(self, note: SignedNote) -> bool:
        """Whether a line of `note` names this witness."""
        return any(line.by(key) for line in note.signatures for key in self.keys)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """The caller answers for the checkpoint."""
        now = int(clock())
        return tuple(cosign(checkpoint, self.name, key, now) for key in self.pairs)
