"""The keys of a seat: governance keys, of which m of k sign, and recovery keys, which may rotate them.

    offline/governance.pem    governance.votes     one key, or governance-1.pem, governance-2.pem, …
            recovery.pem                           one, or recovery-1.pem, …
            rotation-1/…                           the same files, for the keys after the first rotation

A running node never reads these files. If several people sign, each keeps one governance key with its vote file in a
separate place, and the recovery keys are kept in other places: the owner of more than half of them controls the
member.
"""

from __future__ import annotations

from pathlib import Path

from comity.content.secrets import write_keys
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.identity import MAX_KEYS, KeySet
from comity.trust.keys import HybridSigner, Signer

from comity_client.signing.pkcs11 import new_token_key
from comity_client.signing.votes import GovernanceKey, VoteHistory, open_key, write_key


@frozen
class SeatShape:
    """The number of keys of a seat.

    `threshold` keys sign; None means more than half. `tokens` are TOML files of keys in tokens, in addition to the
    `governance` generated keys.
    """

    governance: int = 1
    threshold: int | None = None
    recovery: int = 1
    tokens: tuple[Path, ...] = ()


@frozen
class SeatKeys:
    """New keys of a seat, in memory until `write`."""

    made: tuple[HybridSigner, ...]
    tokens: tuple[GovernanceKey, ...]
    threshold: int
    recovery_keys: tuple[HybridSigner, ...]

    @classmethod
    def generate(cls, shape: SeatShape) -> SeatKeys:
        """Generate keys. A token's half in a file is written at once. Raises Malformed for an invalid number of keys,
        and as `open_key` does for tokens."""
        count = shape.governance + len(shape.tokens)
        if not 1 <= count <= MAX_KEYS or not 1 <= shape.recovery <= MAX_KEYS:
            raise Malformed(
                "invalid number of keys",
                why=f"a seat has 1 to {MAX_KEYS} governance keys and 1 to {MAX_KEYS} for recovery",
            )
        for path in shape.tokens:
            new_token_key(path)
        return cls(
            tuple(HybridSigner.generate() for _ in range(shape.governance)),
            tuple(open_key(path) for path in shape.tokens),
            count // 2 + 1 if shape.threshold is None else shape.threshold,
            tuple(HybridSigner.generate() for _ in range(shape.recovery)),
        )

    @property
    def signers(self) -> tuple[Signer, ...]:
        """All governance keys, in the order of the record."""
        return (*self.made, *self.tokens)

    @property
    def keys(self) -> KeySet:
        """Raises Malformed for a threshold of half the keys or less."""
        return KeySet(tuple(signer.public for signer in self.signers), self.threshold)

    @property
    def recovery(self) -> tuple[Digest, ...]:
        return tuple(signer.public.id for signer in self.recovery_keys)

    def write(self, folder: Path, votes: VoteHistory | None = None) -> None:
        """Write the keys to `folder`, which must exist.

        Args:
            votes: the votes of the previous keys.

        Raises Conflict (KEY-EXISTS, VOTES-EXIST), OutOfSpace, Unavailable.
        """
        for path, signer in zip(_numbered(folder, "governance", len(self.made)), self.made, strict=True):
            write_key(path, signer, votes)
        for token in self.tokens:
            token.votes.create(votes or VoteHistory())
        for path, signer in zip(
            _numbered(folder, "recovery", len(self.recovery_keys)), self.recovery_keys, strict=True
        ):
            write_keys(path, signer.keys)


def _numbered(folder: Path, name: str, count: int) -> list[Path]:
    """`name.pem` for one key, `name-1.pem`, `name-2.pem`, … for several."""
    if count == 1:
        return [folder / f"{name}.pem"]
    return [folder / f"{name}-{number}.pem" for number in range(1, count + 1)]
