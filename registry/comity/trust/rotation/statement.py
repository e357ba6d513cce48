"""The `rotated` statement: an identity changes its keys, by its recovery keys alone, and stays the same identity.

It names the state that it leaves (`prev`, a digest over its keys and recovery digests) and is signed
by a majority of the recovery keys of that state, which it reveals, and by every key of the new one, so that nobody
claims a key that they do not hold. Statements count by their signatures wherever they are found; no log, vote or clock
decides. Who holds a majority of the recovery keys *is* the identity. What several of them make together is on the next
page (`chain`). Source: protocol, section 3.

In the 65,535 bytes of a log line new keys and used recovery keys together can be seven hybrid ones. An identity with
seven recovery keys, the most there may be, reveals four of them and gets three new keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.dsse import Envelope
from comity.trust.encoding import Json, b64decode, b64encode, canonical
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.identity import MAX_KEYS, Inception, KeySet, Signed, read_key_set
from comity.trust.keys import Signer, VerifyingKey
from comity.trust.statement import Author, Entry, Statement, Subject, sign_statement
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE
from comity.trust.tlog.note import check_name

MAX_CUTS: Final = 32


@dataclass(frozen=True, slots=True)
class Cut:
    """How long a log was, and its root, when keys were retired: what stands below `size` was said before."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 1 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise Malformed("cut is malformed", why="a size of at least 1, and a root of 32 bytes")

    @classmethod
    def from_json(cls, value: Json) -> Cut:
        fields = Fields(value, "cut")
        cut = cls(fields.text("origin", most=255), fields.integer("size"), b64decode(fields.take("root")))
        fields.done()
        return cut

    def to_json(self) -> dict[str, Json]:
        return {"origin": self.origin, "size": self.size, "root": b64encode(self.root)}


@dataclass(frozen=True, slots=True)
class KeyState:
    """By which keys an identity speaks, and which recovery keys (their ids) may change that.

    `seq` counts the rotations that led here; None where a charter lists the state without saying.
    """

    identity: Digest
    keys: KeySet
    recovery: tuple[Digest, ...]
    home: str = ""
    seq: int | None = None

    @classmethod
    def of_inception(cls, inception: Inception) -> KeyState:
        return cls(inception.id, inception.keys, inception.recovery, inception.home, 0)

    @property
    def digest(self) -> Digest:
        """What a rotation calls the state that it leaves. The order of keys and of recovery keys means nothing."""
        document: dict[str, Json] = {
            "identity": self.identity,
            "keys": sorted(key.id for key in self.keys.keys),
            "threshold": self.keys.threshold,
            "recovery": sorted(self.recovery),
        }
        return sha256(canonical(document))


@dataclass(frozen=True, slots=True)
class Rotation:
    """What changes. `seq` is 1 for the first rotation of an identity; an empty `home` leaves the home log as it is.

    `cut` says how long logs were at this moment; a log that it does not name is cut at 0. Raises Malformed.
    """

    identity: Digest
    seq: int
    prev: Digest
    keys: KeySet
    recovery: tuple[Digest, ...]
    home: str = ""
    cut: tuple[Cut, ...] = ()

    def __post_init__(self) -> None:
        if self.seq < 1 or len(self.cut) > MAX_CUTS or len({cut.origin for cut in self.cut}) != len(self.cut):
            raise Malformed("rotation is malformed", why=f"seq is at least 1; at most {MAX_CUTS} cuts, one a log")
        if len(self.recovery) > MAX_KEYS or len(set(self.recovery)) != len(self.recovery):
            raise Malformed("rotation is malformed", why=f"at most {MAX_KEYS} recovery digests, each once")
        if self.home:
            check_name(self.home)

    @property
    def digest(self) -> Digest:
        """What a policy pins. The recovery keys that were used are no part of it."""
        return sha256(canonical({"identity": self.identity, **self.to_json()}))

    def to_json(self) -> dict[str, Json]:
        return {
            "seq": self.seq,
            "prev": self.prev,
            "keys": [key.to_json() for key in self.keys.keys],
            "threshold": self.keys.threshold,
            "recovery": list(self.recovery),
            "home": self.home,
            "cut": [cut.to_json() for cut in self.cut],
        }

    def cut_of(self, origin: str) -> Cut | None:
        return next((cut for cut in self.cut if cut.origin == origin), None)


def rotate(before: KeyState, rotation: Rotation, recovery: Sequence[Signer], new: Sequence[Signer]) -> Entry:
    """The `rotated` statement by which `before` becomes what `rotation` says.

    Args:
        recovery: more than half of the recovery keys of `before`; they are revealed, and spent.
        new: every key of the new state, in any order.

    Raises Malformed beyond the size of a line, Untrusted (ROTATION) for what nobody would accept.
    """
    entry = sign_statement(rotation_statement(rotation, [signer.public for signer in recovery]), *recovery, *new)
    check_rotation(entry, before)
    return entry


def rotation_statement(rotation: Rotation, used: Iterable[VerifyingKey]) -> Statement:
    """What is signed, where the signers are not in one place. `used` are the recovery keys that will sign it."""
    body = {**rotation.to_json(), "used": [key.to_json() for key in used]}
    return Statement("rotated", (Subject("", rotation.identity),), Author("identity", rotation.identity), body)


def parse_rotation(entry: Entry) -> tuple[Rotation, tuple[VerifyingKey, ...]]:
    """Read a `rotated` statement and the recovery keys that it reveals; nothing is proven. Raises Malformed."""
    statement = entry.statement
    if statement.predicate != "rotated" or statement.by is None or statement.by.kind != "identity":
        raise Malformed("rotation is malformed", why="not a rotated statement of an identity")
    fields = statement.fields()
    used = tuple(VerifyingKey.from_json(item) for item in fields.items("used", least=1, most=MAX_KEYS))
    rotation = Rotation(
        identity=statement.by.id,
        seq=fields.integer("seq", least=1),
        prev=fields.digest("prev"),
        keys=read_key_set(fields),
        recovery=fields.digests("recovery", most=MAX_KEYS),
        home=fields.text("home", least=0, most=255),
        cut=tuple(Cut.from_json(item) for item in fields.items("cut", most=MAX_CUTS)),
    )
    fields.done()
    if statement.sole_subject() != rotation.identity:
        raise Malformed("rotation is malformed", why="its subject is not the identity that speaks")
    return rotation, used


def check_rotation(entry: Entry, before: KeyState, *, signed: Signed = KeySet.signed) -> KeyState:
    """The state after a `rotated` statement that is valid in `before`. Raises Malformed/Untrusted (ROTATION).

    Not checked: whether another valid one leaves the same state (`follow` does), and when or where it was logged.

    Args:
        signed: `KeySet.signed`, but in simulations of many members.
    """
    rotation, used = parse_rotation(entry)
    after = state_after(rotation, used, before)
    if not rotation_signed(rotation, used, entry.envelope, signed=signed):
        raise _refused("not signed by each recovery key that it uses and each new key, and no other")
    return after


def state_after(rotation: Rotation, used: Sequence[VerifyingKey], before: KeyState) -> KeyState:
    """The state after a rotation that is lawful in `before`, whoever signed it. Raises Untrusted (ROTATION)."""
    if (rotation.identity, rotation.prev) != (before.identity, before.digest):
        raise _refused("it leaves another state")
    if before.seq is not None and rotation.seq != before.seq + 1:
        raise _refused(f"it is number {rotation.seq}, the next one is {before.seq + 1}")
    revealed = {key.id for key in used}
    if not revealed <= set(before.recovery):
        raise _refused("a key that it uses is no recovery key of this state")
    if 2 * len(revealed) <= len(before.recovery):
        raise _refused(f"{len(revealed)} of {len(before.recovery)} recovery keys are no majority")
    if revealed & set(rotation.recovery):
        raise _refused("a recovery key that was revealed is spent")
    halves = [half.id for key in (*used, *rotation.keys.keys) for half in key.halves]
    if len(set(halves)) != len(halves):
        raise _refused("one key in two roles")
    return KeyState(before.identity, rotation.keys, rotation.recovery, rotation.home or before.home, rotation.seq)


def rotation_signed(
    rotation: Rotation, used: Sequence[VerifyingKey], envelope: Envelope, *, signed: Signed = KeySet.signed
) -> bool:
    """Whether each recovery key that a rotation uses and each new key, and no other, signed this envelope of it."""
    new = [half for key in rotation.keys.keys for half in key.halves]
    return signed(KeySet(tuple(used), len(used)), envelope, new)


def _refused(why: str) -> Untrusted:
    return Untrusted("rotation refused", why=why, code="ROTATION")
