"""A charter body: who the members are, by which keys they speak, and by how many of them it changes.

    {"epoch":0,"members":[…],"namespaces":[…],"policy":{…},"prev":null,"schema":"comity/charter/v1"}

The whole document each epoch. It is RFC 8785 JSON, named by its SHA-256 and kept as bytes; signatures stand beside it,
not in it. What a body must keep of the one before it is in `succession`, and what makes it valid in `founding` and
`certificate`. Source: protocol, section 7.1.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, bare_digest, sha256
from comity.trust.encoding import Json, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.identity import MAX_KEYS, KeySet, check_jurisdiction, read_key_set
from comity.trust.keys import VerifyingKey
from comity.trust.names import check_segment
from comity.trust.rotation import KeyState

SCHEMA: Final = "comity/charter/v1"
MAX_MEMBERS: Final = 200
MAX_NAMESPACES: Final = 10_000
MAX_BYTES: Final = 4 * 1024 * 1024


def quorum(members: int) -> int:
    """q(n) = floor(2n/3) + 1: the fewest members that may change a charter. A floor in code, not in policy (I1)."""
    return 2 * members // 3 + 1


@dataclass(frozen=True, slots=True)
class Member:
    """A seat: one vote, one jurisdiction. An `observer` signs and publishes but does not vote or count."""

    id: Digest
    name: str
    jurisdiction: str
    keys: KeySet
    recovery: tuple[Digest, ...]
    status: str = "active"
    successor_of: Digest | None = None

    @property
    def active(self) -> bool:
        return self.status == "active"

    @property
    def lineage(self) -> Digest:
        """The id under which this seat counts: a member and its successor count once."""
        return self.successor_of or self.id

    @property
    def key_state(self) -> KeyState:
        """The keys that this charter lists for it: where a chain of rotations may begin."""
        return KeyState(self.id, self.keys, self.recovery)


def called(seats: Iterable[Member], most: int = 8) -> str:
    """The names of `seats` in a line for people: `most` of them, and how many more."""
    names = [seat.name for seat in seats]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True, slots=True)
class CharterPolicy:
    """What members promise one another. `schema_floor` binds writers, never verification."""

    quorum_change: int
    min_copies: int
    min_jurisdictions: int
    cosigner_quorum: int
    schema_floor: int = 1


@dataclass(frozen=True, slots=True)
class Body:
    """A charter body. Build with `parse` (keeps the bytes that were signed), `genesis` or `draft`.

    `predecessor`, in a genesis only, is the digest of the last body of a federation that lost its quorum and is founded
    anew. `note_digest` is that of a text that explains the change.
    """

    data: bytes
    federation: Digest
    epoch: int
    prev: Digest | None
    members: tuple[Member, ...]
    namespaces: Mapping[str, Digest]
    policy: CharterPolicy
    predecessor: Digest | None = None
    note_digest: Digest | None = None

    @classmethod
    def parse(cls, data: bytes) -> Body:
        """Parse canonical bytes. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_BYTES, what="charter"), "charter")
        fields.constant("schema", SCHEMA)
        epoch = fields.integer("epoch")
        prev = fields.take("prev")
        if (epoch == 0) != (prev is None) or (epoch == 0) == fields.has("federation"):
            raise fields.error("exactly the genesis (epoch 0) has no 'prev' and no 'federation'")
        federation = fields.digest("federation") if epoch else sha256(data)
        members = tuple(_member(item) for item in fields.items("members", least=1, most=MAX_MEMBERS))
        namespaces = [_namespace(item) for item in fields.items("namespaces", most=MAX_NAMESPACES)]
        policy = _policy(fields.object("policy"), sum(member.active for member in members))
        predecessor = fields.digest("predecessor") if fields.has("predecessor") else None
        note_digest = fields.digest("note_digest") if fields.has("note_digest") else None
        if epoch and predecessor:
            raise fields.error("only a genesis has a 'predecessor'")
        fields.done()
        _check_members(members)
        if [name for name, _ in namespaces] != sorted({name for name, _ in namespaces}):
            raise Malformed("charter is malformed", why="namespaces must be sorted by name, each once")
        if len({name.lower() for name, _ in namespaces}) != len(namespaces):
            raise Malformed("charter is malformed", why="two namespaces differ only by case")
        prev_digest = bare_digest(prev) if epoch else None
        names = dict(namespaces)
        return cls(data, federation, epoch, prev_digest, members, names, policy, predecessor, note_digest)

    @property
    def digest(self) -> Digest:
        return sha256(self.data)

    @property
    def active(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.active)

    @property
    def quorum(self) -> int:
        """How many active members change this charter: what its policy asks, and never less than the floor (I1)."""
        return max(quorum(len(self.active)), self.policy.quorum_change)

    @property
    def blocking(self) -> int:
        """n - q + 1: the fewest active members without whom there is no quorum (7.4)."""
        return len(self.active) - self.quorum + 1

    def member(self, identifier: Digest) -> Member | None:
        return next((member for member in self.members if member.id == identifier), None)


def genesis(
    members: Iterable[Member],
    policy: CharterPolicy,
    namespaces: Mapping[str, Digest] | None = None,
    *,
    predecessor: Digest | None = None,
    note_digest: Digest | None = None,
) -> Body:
    """Write a genesis body. Raises Malformed where it would break a rule."""
    document = _document(members, policy, namespaces or {}, note_digest)
    if predecessor:
        document["predecessor"] = predecessor
    return Body.parse(canonical({**document, "epoch": 0, "prev": None}))


def draft(
    previous: Body,
    *,
    members: Iterable[Member] | None = None,
    namespaces: Mapping[str, Digest] | None = None,
    policy: CharterPolicy | None = None,
    note_digest: Digest | None = None,
) -> Body:
    """Write a body for the epoch after `previous`; what is None stays as it is there.

    Raises Malformed where no charter may look like that. Whether this one may follow `previous` is for
    `succession.check_succession` to say.
    """
    document = _document(
        previous.members if members is None else members,
        policy or previous.policy,
        previous.namespaces if namespaces is None else namespaces,
        note_digest,
    )
    document |= {"federation": previous.federation, "epoch": previous.epoch + 1, "prev": previous.digest}
    return Body.parse(canonical(document))


def _document(
    members: Iterable[Member], policy: CharterPolicy, namespaces: Mapping[str, Digest], note_digest: Digest | None
) -> dict[str, Json]:
    names: list[Json] = [{"name": name, "publisher": id_} for name, id_ in sorted(namespaces.items())]
    document: dict[str, Json] = {
        "schema": SCHEMA,
        "members": [_member_json(member) for member in sorted(members, key=lambda member: member.id)],
        "namespaces": names,
        "policy": {
            "quorum_change": policy.quorum_change,
            "min_copies": policy.min_copies,
            "min_jurisdictions": policy.min_jurisdictions,
            "cosigner_quorum": policy.cosigner_quorum,
            "schema_floor": policy.schema_floor,
        },
    }
    if note_digest:
        document["note_digest"] = note_digest
    return document


def _member(item: Json) -> Member:
    fields = Fields(item, "charter member")
    identifier = fields.digest("id")
    member = Member(
        identifier,
        fields.text("name", most=100),
        check_jurisdiction(fields.text("jurisdiction", most=31)),
        read_key_set(fields, "governance_keys"),
        fields.digests("recovery_digests", most=MAX_KEYS),
        fields.choice("status", ("active", "observer")),
        fields.digest("successor_of") if fields.has("successor_of") else None,
    )
    fields.done()
    return member


def _member_json(member: Member) -> dict[str, Json]:
    document: dict[str, Json] = {
        "id": member.id,
        "name": member.name,
        "jurisdiction": member.jurisdiction,
        "governance_keys": [key.to_json() for key in member.keys.keys],
        "threshold": member.keys.threshold,
        "recovery_digests": list(member.recovery),
        "status": member.status,
    }
    if member.successor_of:
        document["successor_of"] = member.successor_of
    return document


def _namespace(item: Json) -> tuple[str, Digest]:
    fields = Fields(item, "charter namespace")
    pair = check_segment(fields.text("name", most=96), "namespace"), fields.digest("publisher")
    fields.done()
    return pair


def _policy(fields: Fields, active: int) -> CharterPolicy:
    policy = CharterPolicy(
        fields.integer("quorum_change", least=quorum(active), most=active),
        fields.integer("min_copies", least=1, most=MAX_MEMBERS),
        fields.integer("min_jurisdictions", least=1, most=MAX_MEMBERS),
        fields.integer("cosigner_quorum", least=0, most=MAX_MEMBERS),
        fields.integer("schema_floor", least=1),
    )
    fields.done()
    return policy


def _check_members(members: tuple[Member, ...]) -> None:
    ids = [member.id for member in members]
    if ids != sorted(set(ids)):
        raise Malformed("charter is malformed", why="members must be sorted by id, each once")
    if len({member.lineage for member in members}) != len(members):
        raise Malformed("charter is malformed", why="a seat and its successor, or two successors of one seat")
    names = Counter(_folded(member.name) for member in members)
    if twice := [member.name for member in members if names[_folded(member.name)] > 1]:
        why = f"two seats are called {twice[0]!r}, or differ only in case, width or spaces"
        raise Malformed("charter is malformed", why=why, hint="have one of them named otherwise", code="CHARTER-NAME")
    keys: list[VerifyingKey] = [key for member in members for key in member.keys.keys]
    halves = [half.id for key in keys for half in key.halves]
    if len(set(halves)) != len(halves):
        raise Malformed("charter is malformed", why="one key appears twice")


def _folded(name: str) -> str:
    """A display name as people tell names apart."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
