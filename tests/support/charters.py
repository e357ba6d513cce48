"""Thousands of charters at low cost: seats with cheap signatures, short bodies, and votes ready to be signed.

A cheap signature is a hash over the *public* key and the message. Anyone could forge it, but no test does: these tests
are about what members may sign, not about ML-DSA.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from comity.rules.charter_drafts import draft, genesis
from comity.rules.signing import sign_content
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.charter.votes import Intent, Ratify, Vote, consent
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import PublicKey, Signer, VerifyingKey
from comity.trust.rotation import Rotation, rotation_statement
from comity.trust.statement import Entry, Envelope, pae, sign_statement


@dataclass(frozen=True, slots=True)
class CheapSigner:
    """Signs with SHA-256 under the name of Ed25519."""

    public: VerifyingKey

    @classmethod
    def named(cls, name: str) -> CheapSigner:
        return cls(VerifyingKey((PublicKey("ed25519", hashlib.sha256(name.encode()).digest()),)))

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        (half,) = self.public.halves
        return ((half.id, _signature(half.raw, message)),)


def cheaply_signed(keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
    """The replacement of `KeySet.signed` for cheap signatures."""
    message = pae(envelope.payload_type, envelope.payload)
    given = {each.keyid: each.sig for each in envelope.signatures}
    whole = [key for key in keys.keys if all(half.id in given for half in key.halves)]
    halves = [*beside, *(half for key in whole for half in key.halves)]
    if len(whole) < keys.threshold or {half.id for half in halves} != given.keys():
        return False
    return all(given[half.id] == _signature(half.raw, message) for half in halves)


def cheaply_verifies(alg: str, raw: bytes, signature: bytes, message: bytes) -> bool:
    """The replacement of the same check in `support.second_checker`."""
    return alg == "ed25519" and signature == _signature(raw, message)


@dataclass(frozen=True, slots=True)
class Seated:
    """A member, with its signing keys, and the one recovery key that may change them."""

    inception: Inception
    signer: Signer
    recovery: Signer

    @property
    def id(self) -> Digest:
        return self.inception.id

    @property
    def seat(self) -> Member:
        who = self.inception
        return Member(who.id, who.label, who.jurisdiction, who.keys, who.recovery)

    @property
    def announced(self) -> Entry:
        return sign_content(InceptionStatement(self.inception), self.signer)

    def says(self, reading: Vote) -> Entry:
        return sign_statement(reading.statement(), self.signer)

    def agrees(self, body: Body) -> Entry:
        return consent(body, self.id, self.signer)

    def rotated(self, before: Member, signer: Signer, recovery: Signer) -> tuple[Seated, Entry]:
        """The same member with new keys, and the rotation to them; `before` is its seat until then."""
        start = before.key_state
        change = Rotation(self.id, 1, start.digest, KeySet((signer.public,), 1), (recovery.public.id,))
        statement = rotation_statement(change, [self.recovery.public])
        return replace(self, signer=signer, recovery=recovery), sign_statement(statement, self.recovery, signer)


def seated(label: str, signer: Signer | None = None, recovery: Signer | None = None, *, in_: str = "CH") -> Seated:
    """A member with one governance key and one recovery key; cheap ones if none are given."""
    first = signer or CheapSigner.named(f"{label} first")
    rescue = recovery or CheapSigner.named(f"{label} recovery")
    keys = KeySet((first.public,), 1)
    return Seated(Inception("member", keys, (rescue.public.id,), "", in_, label), first, rescue)


def founded(members: Iterable[Seated], **policy: int) -> Body:
    """A genesis of `members`, without consents."""
    seats = [each.seat for each in members]
    rules = {"quorum_change": quorum(len(seats)), "min_copies": 1, "min_jurisdictions": 1, "cosigner_quorum": 0}
    return genesis(seats, CharterPolicy(**{**rules, **policy}))


def drafts(previous: Body, count: int = 2) -> tuple[Body, ...]:
    """Rival bodies that follow `previous`, equal except for one number."""
    return tuple(
        draft(previous, policy=replace(previous.policy, min_copies=previous.policy.min_copies + number + 1))
        for number in range(count)
    )


def intent(previous: Body, by: Digest, round_: int, body: Body | Digest, **more: Any) -> Intent:
    digest = body.digest if isinstance(body, Body) else body
    return Intent(by, previous.digest, previous.epoch + 1, round_, digest, **more)


def ratify(previous: Body, by: Digest, round_: int, body: Body | Digest) -> Ratify:
    digest = body.digest if isinstance(body, Body) else body
    return Ratify(by, previous.digest, previous.epoch + 1, round_, digest)


def votes(people: Iterable[Seated], previous: Body, body: Body, round_: int = 1, **more: object) -> list[Entry]:
    """INTENT and RATIFY of each of `people` for `body`."""
    return [
        each.says(reading)
        for each in people
        for reading in (intent(previous, each.id, round_, body, **more), ratify(previous, each.id, round_, body))
    ]


def _signature(raw: bytes, message: bytes) -> bytes:
    return sha256(raw + message).encode()
