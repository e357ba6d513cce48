"""The charter: who the members are, by which keys they speak, and by how many of them it changes.

    {"epoch":0,"members":[…],"namespaces":[…],"policy":{…},"prev":null,"schema":"comity/charter/v1"}

The body is RFC 8785 JSON, named by its SHA-256 and kept as bytes; signatures stand beside it, not in it. This page
holds the body and the genesis (epoch 0, certified by the consent of *every* member). Source: protocol, section 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, bare_digest, sha256
from comity.trust.encoding import Json, canonical, parse_canonical
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.identity import MAX_KEYS, KeySet, check_jurisdiction, read_key_set
from comity.trust.keys import Signer, VerifyingKey
from comity.trust.names import check_segment
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, parse_entry, sign_statement

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
    """A charter body. Build with `parse` (keeps the bytes that were signed) or `draft`; no invalid instance exists."""

    data: bytes
    federation: Digest
    epoch: int
    prev: Digest | None
    members: tuple[Member, ...]
    namespaces: Mapping[str, Digest]
    policy: CharterPolicy

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
        for optional in ("note_digest", "predecessor"):
            if fields.has(optional):
                fields.digest(optional)
        fields.done()
        _check_members(members)
        if [name for name, _ in namespaces] != sorted({name for name, _ in namespaces}):
            raise Malformed("charter is malformed", why="namespaces must be sorted by name, each once")
        if len({name.lower() for name, _ in namespaces}) != len(namespaces):
            raise Malformed("charter is malformed", why="two namespaces differ only by case")
        prev_digest = bare_digest(prev) if epoch else None
        return cls(data, federation, epoch, prev_digest, members, dict(namespaces), policy)

    @property
    def digest(self) -> Digest:
        return sha256(self.data)

    @property
    def active(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.active)

    def member(self, identifier: Digest) -> Member | None:
        return next((member for member in self.members if member.id == identifier), None)


def genesis(members: Iterable[Member], policy: CharterPolicy, namespaces: Mapping[str, Digest] | None = None) -> Body:
    """Write a genesis body. Raises Malformed where it would break a rule."""
    names: list[Json] = [{"name": name, "publisher": id_} for name, id_ in sorted((namespaces or {}).items())]
    document: dict[str, Json] = {
        "schema": SCHEMA,
        "epoch": 0,
        "prev": None,
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
    return Body.parse(canonical(document))


def consent(body: Body, member: Digest, *signers: Signer) -> Entry:
    """A member's `consented` to a genesis: its signature under exactly these bytes."""
    statement = Statement(
        "consented",
        (Subject("charter", body.digest),),
        Author("identity", member),
        {"federation": body.federation, "prev": body.prev, "body": body.digest},
        (SideObject.of(body.data),),
    )
    return sign_statement(statement, *signers)


def consenting(body: Body, lines: Iterable[bytes]) -> frozenset[Digest]:
    """Members of `body` whose consent to exactly this body stands among `lines`; whatever does not verify counts for
    nothing."""
    return frozenset(member.id for line in lines if (member := _consent_of(body, line)) is not None)


def certify_genesis(body: Body, lines: Iterable[bytes]) -> Body:
    """Return `body` if it is a genesis to which every member consented. Raises Untrusted naming who is missing."""
    if body.epoch != 0:
        raise Untrusted("charter refused", why=f"epoch {body.epoch} is not a genesis", code="CHARTER")
    agreed = consenting(body, lines)
    missing = [member.name for member in body.members if member.id not in agreed]
    if missing:
        raise Untrusted(
            "charter refused",
            why=f"a genesis is unanimous; no valid consent of {', '.join(missing)}",
            code="CHARTER-CONSENT",
        )
    return body


def _consent_of(body: Body, line: bytes) -> Member | None:
    try:
        entry = parse_entry(line)
        statement = entry.statement
        fields = statement.fields()
        if statement.predicate != "consented" or statement.by is None or statement.by.kind != "identity":
            return None
        prev, named = fields.take("prev"), (fields.digest("federation"), fields.digest("body"))
        fields.done()
        subject = statement.sole_subject()
    except ComityError:
        return None
    member = body.member(statement.by.id)
    if member is None or prev != body.prev or named != (body.federation, body.digest):
        return None
    return member if subject == body.digest and member.keys.signed(entry.envelope) else None


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
    keys: list[VerifyingKey] = [key for member in members for key in member.keys.keys]
    halves = [half.id for key in keys for half in key.halves]
    if len(set(halves)) != len(halves):
        raise Malformed("charter is malformed", why="one key appears twice")
