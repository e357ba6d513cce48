"""A charter body: who the members are, by which keys they speak, and by how many of them it changes.

    {"epoch":0,"members":[…],"namespaces":[…],"policy":{…},"prev":null,"schema":"comity/charter/v1"}

The whole document each epoch. It is RFC 8785 JSON, named by its SHA-256 and kept as bytes; signatures stand beside it,
not in it. What a body must keep of the one before it is in `succession`, and what makes it valid in `founding` and
`certificate`. Source: protocol, section 7.1.


What a body must keep of the one before it: nobody is re-keyed, relabelled, renamed or followed by a stranger.

Each rule is one function; `check_succession` asks them all. They bind whoever draws the body up, a quorum included.
Source: protocol, sections 5 (names) and 7.1.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest, Fields, Json, bare_digest, canonical, parse_canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import MAX_KEYS, Inception, KeySet, check_jurisdiction, read_key_set
from comity.trust.keys import VerifyingKey
from comity.trust.names import check_segment
from comity.trust.rotation import KeyState, RotationChain

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


_REFUSED: Final = "charter refused"


def check_succession(
    previous: Body, body: Body, chains: Mapping[Digest, RotationChain], inceptions: Mapping[Digest, Inception]
) -> None:
    """Return if `body` may follow `previous`. Raises Untrusted, with a code for each rule.

    Args:
        chains: where identities have rotated: from their seat in `previous`, or from their inception if they have none.
        inceptions: the proven records of those who have no seat in `previous`.

    Not asked: whether anybody decided it, which is what a certificate shows.
    """
    if not _epoch_follows(previous, body):
        why = f"it does not follow epoch {previous.epoch} of this federation"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-EPOCH")
    before = {seat.id: seat for seat in previous.members}
    for seat in body.members:
        if (old := before.get(seat.id)) is None:
            check_new_seat(seat, inceptions.get(seat.id), chains.get(seat.id))
            if not _successor_of_a_removed_seat(seat, previous, body):
                why = f"{seat.name} succeeds no seat of its jurisdiction that leaves"
                raise Untrusted(_REFUSED, why=why, code="CHARTER-SUCCESSOR")
        else:
            _check_old_seat(old, seat, chains.get(seat.id))
    if lost := _names_lost(previous, body):
        why = f"namespace {', '.join(lost[:5])} dropped or given to another publisher"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-NAMESPACE")


def check_new_seat(seat: Member, inception: Inception | None, chain: RotationChain | None = None) -> None:
    """Return if a seat is what its identity makes it: id, jurisdiction, and keys of the inception or rotated from it.

    Raises Untrusted.
    """
    if inception is None or inception.id != seat.id:
        raise Untrusted(_REFUSED, why=f"no valid inception of {seat.name}", code="CHARTER-INCEPTION")
    if inception.kind != "member" or inception.jurisdiction != seat.jurisdiction:
        why = f"the inception of {seat.name} claims no seat in {seat.jurisdiction}"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-JURISDICTION")
    _check_keys(seat, chain or RotationChain(KeyState.of_inception(inception), ()))


def _check_old_seat(old: Member, seat: Member, chain: RotationChain | None) -> None:
    _check_keys(seat, chain or RotationChain(old.key_state, ()))
    if not _jurisdiction_stays(old, seat):
        why = f"{seat.name} would move to {seat.jurisdiction}"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-JURISDICTION")
    if not _lineage_stays(old, seat):
        why = f"{seat.name} would count as another seat's successor"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-SUCCESSOR")


def _check_keys(seat: Member, chain: RotationChain) -> None:
    if not _keys_are_its_own(seat, chain):
        why = f"{seat.name} gets keys to which its own rotations do not lead"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-REKEYED")


def _epoch_follows(previous: Body, body: Body) -> bool:
    """7.1: exactly the next epoch, linked by hash, of the same federation."""
    expected = (previous.epoch + 1, previous.digest, previous.federation)
    return (body.epoch, body.prev, body.federation) == expected


def _keys_are_its_own(seat: Member, chain: RotationChain) -> bool:
    """7.1: under an existing id only keys that its own `rotated` statements lead to, on whatever branch: no charter
    settles a dispute, and a rotation that turns up later unmakes no certificate. Members do not *sign* a body that
    takes sides (`council`)."""
    return any((seat.keys, seat.recovery) == (state.keys, state.recovery) for state in chain.reached)


def _jurisdiction_stays(old: Member, seat: Member) -> bool:
    """7.1: under an existing id the same jurisdiction."""
    return old.jurisdiction == seat.jurisdiction


def _lineage_stays(old: Member, seat: Member) -> bool:
    """7.1: a seat goes on counting as the one that it succeeded."""
    return old.successor_of == seat.successor_of


def _successor_of_a_removed_seat(seat: Member, previous: Body, body: Body) -> bool:
    """7.1: a seat is succeeded when it is removed, in its own jurisdiction, and under the id at which its line begins,
    so that a member and all its successors count once even for whom has not seen those between."""
    if seat.successor_of is None:
        return True
    stay = {member.id for member in body.members}
    gone = [old for old in previous.members if old.id not in stay]
    return any((old.lineage, old.jurisdiction) == (seat.successor_of, seat.jurisdiction) for old in gone)


def _names_lost(previous: Body, body: Body) -> list[str]:
    """5: every name stands in the next body with the same publisher."""
    return [name for name, publisher in previous.namespaces.items() if body.namespaces.get(name) != publisher]
