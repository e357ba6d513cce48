"""Identities that rotate their keys: the keys that their owner holds in each state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comity.trust.charter.document import Member
from comity.trust.encoding import Digest
from comity.trust.identity import Inception, KeySet
from comity.trust.keys import HybridSigner
from comity.trust.rotation import KeyState, LogCut, Rotation, rotate
from comity.trust.statement import Entry
from support.world import HYBRID_ALGS, Identity, signer

CLASSICAL = ("ed25519",)


@dataclass(frozen=True, eq=False)
class Owned:
    """A state of an identity with its private keys."""

    state: KeyState
    keys: tuple[HybridSigner, ...]
    recovery: tuple[HybridSigner, ...]

    def to(
        self,
        name: str,
        *,
        keys: int = 1,
        recovery: int = 1,
        cut: Sequence[LogCut] = (),
        home: str = "",
        seq: int | None = None,
        used: int | None = None,
    ) -> tuple[Owned, Entry]:
        """Rotate to new keys that are made from `name`, which the statement names. `used` recovery keys sign it."""
        algs = tuple(half.alg for half in self.keys[0].public.halves)
        after = owned(self.state.identity, name, keys=keys, recovery=recovery, algs=algs)
        rotation = Rotation(
            self.state.identity,
            seq or (self.state.seq or 0) + 1,
            self.state.digest,
            after.state.keys,
            after.state.recovery,
            home,
            tuple(cut),
        )
        spent = self.recovery[: used or len(self.recovery) // 2 + 1]
        entry = rotate(self.state, rotation, spent, after.keys)
        state = KeyState(self.state.identity, rotation.keys, rotation.recovery, home or self.state.home, rotation.seq)
        return Owned(state, after.keys, after.recovery), entry


def owned(identity: Digest, name: str, *, keys: int, recovery: int, algs: tuple[str, ...] = HYBRID_ALGS) -> Owned:
    """A state with keys made from names, which follows no other state."""
    current = tuple(signer(f"{name} key {at}", algs) for at in range(keys))
    spare = tuple(signer(f"{name} recovery {at}", algs) for at in range(recovery))
    key_set = KeySet(tuple(key.public for key in current), keys // 2 + 1)
    return Owned(KeyState(identity, key_set, tuple(key.public.id for key in spare)), current, spare)


def begun(name: str = "owner", *, keys: int = 1, recovery: int = 1, algs: tuple[str, ...] = CLASSICAL) -> Owned:
    """A new identity."""
    first = owned(Digest(""), name, keys=keys, recovery=recovery, algs=algs)
    inception = Inception("publisher", first.state.keys, first.state.recovery, "node.example/log", "", name)
    return Owned(KeyState.of_inception(inception), first.keys, first.recovery)


def of(identity: Identity) -> Owned:
    """The keys of a `support.world` identity."""
    recovery = signer(f"{identity.inception.label} recovery", tuple(h.alg for h in identity.signer.public.halves))
    return Owned(KeyState.of_inception(identity.inception), (identity.signer,), (recovery,))


def seated(seat: Member, who: Owned) -> Owned:
    """The same keys, as a seat of a charter."""
    return Owned(seat.key_state, who.keys, who.recovery)
