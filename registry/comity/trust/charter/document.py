"""The charter body of one epoch: the members, their keys, the namespaces and the policy.

    {"epoch":0,"members":[…],"namespaces":[…],"policy":{…},"prev":null,"schema":"comity/charter/v1"}

Each epoch has a complete document: RFC 8785 JSON, named by its SHA-256 and kept as bytes. Signatures are separate
statements. `check_succession` checks what a body must keep of the previous body (ids, keys, jurisdictions,
namespaces); each rule is one function, and the rules hold even if a quorum wants otherwise. `certificate` checks who
decided a body.

The body also says in which order its members cosign a log for everybody. Up to 16 members tell everybody their
cosignatures of every log. With more, the first few of the order do, for each log another few; the next ones replace
those that fail. Every member computes the same order from the epochs. Nobody can choose a place in it: it depends on
the founding body and on the order in which the epochs admitted the members, not on keys or names that a member makes
for itself. Which cosignatures count is the policy of the verifier. Source: protocol, sections 5 (names), 6 (cosigning)
and 7.1.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from comity.trust.encoding import Digest, Fields, Json, bare_digest, check_visible, parse_canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import MAX_KEYS, Inception, KeySet, check_jurisdiction, read_key_set
from comity.trust.keys import VerifyingKey
from comity.trust.names import check_segment
from comity.trust.places import MOST_REACHES
from comity.trust.rotation import KeyState, RotationChain

SCHEMA: Final = "comity/charter/v1"
MAX_MEMBERS: Final = 200
MAX_NAMESPACES: Final = 10_000
MAX_BYTES: Final = 4 * 1024 * 1024


def quorum(members: int) -> int:
    """q(n) = floor(2n/3) + 1: the smallest quorum that may change a charter. Fixed in code, not in policy (I1)."""
    return 2 * members // 3 + 1


@frozen
class Member:
    """A seat: one vote, one jurisdiction. An `observer` signs and publishes, but has no vote and is not counted."""

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
        """The id by which this seat is counted: a member and its successor count as one."""
        return self.successor_of or self.id

    @property
    def key_state(self) -> KeyState:
        """The keys that this charter lists for the seat: the start of its rotation chain."""
        return KeyState(self.id, self.keys, self.recovery)


def seat_names(seats: Iterable[Member], most: int = 8) -> str:
    """The names of at most `most` seats, and the number of the others, as one line of text."""
    names = [seat.name for seat in seats]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@frozen
class CharterPolicy:
    """The policy that members agreed on. `schema_floor` binds writers, never verification. `min_reaches` is 0 where it
    asks for none: the first form of the policy, without this member."""

    quorum_change: int
    min_copies: int
    min_jurisdictions: int
    cosigner_quorum: int
    schema_floor: int = 1
    min_reaches: int = 0


@frozen
class Body:
    """A charter body. Build with `parse` (keeps the signed bytes), `genesis` or `draft`.

    `predecessor`, in a genesis only, is the digest of the last body of a federation that lost its quorum and is founded
    again. `note_digest` is the digest of a text that explains the change.
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
        """The number of active members that can change this charter: by its policy, and at least q(n) (I1)."""
        return max(quorum(len(self.active)), self.policy.quorum_change)

    @property
    def blocking(self) -> int:
        """n - q + 1: the smallest number of active members that can block a quorum (7.4)."""
        return len(self.active) - self.quorum + 1

    def member(self, identifier: Digest) -> Member | None:
        return next((member for member in self.members if member.id == identifier), None)

    def bound_publisher(self, namespace: str) -> Digest | None:
        """Return the publisher to whom a namespace is bound, in whatever case it is written; None for nobody."""
        return self.lower_namespaces().get(namespace.lower())

    def lower_namespaces(self) -> Mapping[str, Digest]:
        """Return the publishers by namespace in lower case, for one who asks for many: no two differ only by case."""
        return {name.lower(): publisher for name, publisher in self.namespaces.items()}


def _member(item: Json) -> Member:
    fields = Fields(item, "charter member")
    identifier = fields.digest("id")
    member = Member(
        identifier,
        check_visible(fields.text("name", most=100), "the name"),
        check_jurisdiction(fields.text("jurisdiction", most=31)),
        read_key_set(fields, "governance_keys"),
        fields.digests("recovery_digests", most=MAX_KEYS),
        fields.choice("status", ("active", "observer")),
        fields.digest("successor_of") if fields.has("successor_of") else None,
    )
    fields.done()
    return member


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
        fields.integer("min_reaches", least=1, most=MOST_REACHES) if fields.has("min_reaches") else 0,
    )
    fields.done()
    return policy


def _check_members(members: tuple[Member, ...]) -> None:
    ids = [member.id for member in members]
    if ids != sorted(set(ids)):
        raise Malformed("charter is malformed", why="members must be sorted by id, each once")
    if len({member.lineage for member in members}) != len(members):
        raise Malformed("charter is malformed", why="it lists a seat and its successor, or two successors of one seat")
    names = Counter(_folded(member.name) for member in members)
    if twice := [member.name for member in members if names[_folded(member.name)] > 1]:
        why = f"two seats are named {twice[0]!r}, or their names differ only in case, width or spaces"
        raise Malformed("charter is malformed", why=why, hint="rename one of the two seats", code="CHARTER-NAME")
    keys: list[VerifyingKey] = [key for member in members for key in member.keys.keys]
    halves = [half.id for key in keys for half in key.halves]
    if len(set(halves)) != len(halves):
        raise Malformed("charter is malformed", why="one key appears twice")


def _folded(name: str) -> str:
    """A display name without differences of case, width and spaces, for comparison."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


_REFUSED: Final = "charter refused"


def check_succession(
    previous: Body, body: Body, chains: Mapping[Digest, RotationChain], inceptions: Mapping[Digest, Inception]
) -> None:
    """Return if `body` may follow `previous`. Raises Untrusted, with a code for each rule.

    Args:
        chains: rotation chains by identity, from its seat in `previous`, or from its inception if it has no seat there.
        inceptions: the verified inceptions of the identities without a seat in `previous`.

    Does not check whether members decided the body; a certificate proves that.
    """
    if not _epoch_follows(previous, body):
        why = f"the body does not follow epoch {previous.epoch} of this federation"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-EPOCH")
    before = {seat.id: seat for seat in previous.members}
    for seat in body.members:
        if (old := before.get(seat.id)) is None:
            check_new_seat(seat, inceptions.get(seat.id), chains.get(seat.id))
            if not _successor_of_a_removed_seat(seat, previous, body):
                why = f"{seat.name} does not succeed a removed seat of its jurisdiction"
                raise Untrusted(_REFUSED, why=why, code="CHARTER-SUCCESSOR")
        else:
            _check_old_seat(old, seat, chains.get(seat.id))
    if lost := _names_lost(previous, body):
        why = f"namespaces removed or given to another publisher: {', '.join(lost[:5])}"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-NAMESPACE")


def check_new_seat(seat: Member, inception: Inception | None, chain: RotationChain | None = None) -> None:
    """Return if a new seat matches its inception: id, jurisdiction, and keys of the inception or of its rotations.

    Raises Untrusted.
    """
    if inception is None or inception.id != seat.id:
        raise Untrusted(_REFUSED, why=f"no valid inception of {seat.name}", code="CHARTER-INCEPTION")
    if inception.kind != "member" or inception.jurisdiction != seat.jurisdiction:
        why = f"the inception of {seat.name} is not for a member in {seat.jurisdiction}"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-JURISDICTION")
    _check_keys(seat, chain or RotationChain(KeyState.of_inception(inception), ()))


def _check_old_seat(old: Member, seat: Member, chain: RotationChain | None) -> None:
    _check_keys(seat, chain or RotationChain(old.key_state, ()))
    if not _jurisdiction_stays(old, seat):
        why = f"{seat.name} would move to {seat.jurisdiction}"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-JURISDICTION")
    if not _lineage_stays(old, seat):
        why = f"{seat.name} would become the successor of another seat"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-SUCCESSOR")


def _check_keys(seat: Member, chain: RotationChain) -> None:
    if not _keys_are_its_own(seat, chain):
        why = f"{seat.name} would get keys that its own rotations do not lead to"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-REKEYED")


def _epoch_follows(previous: Body, body: Body) -> bool:
    """7.1: exactly the next epoch, linked by hash, of the same federation."""
    expected = (previous.epoch + 1, previous.digest, previous.federation)
    return (body.epoch, body.prev, body.federation) == expected


def _keys_are_its_own(seat: Member, chain: RotationChain) -> bool:
    """7.1: under an existing id, only keys that the identity's own `rotated` statements lead to, on any branch. So a
    rotation that arrives later invalidates no certificate. A charter does not settle a dispute: members do not *sign* a
    body that chooses one branch (see `tally`)."""
    return any((seat.keys, seat.recovery) == (state.keys, state.recovery) for state in chain.reached)


def _jurisdiction_stays(old: Member, seat: Member) -> bool:
    """7.1: an existing id keeps its jurisdiction."""
    return old.jurisdiction == seat.jurisdiction


def _lineage_stays(old: Member, seat: Member) -> bool:
    """7.1: an existing seat keeps the `successor_of` that it has."""
    return old.successor_of == seat.successor_of


def _successor_of_a_removed_seat(seat: Member, previous: Body, body: Body) -> bool:
    """7.1: a new seat may succeed only a removed seat of its own jurisdiction, and names the first id of that lineage.
    So a member and all its successors count as one, even for a reader that has not seen the bodies between them."""
    if seat.successor_of is None:
        return True
    stay = {member.id for member in body.members}
    gone = [old for old in previous.members if old.id not in stay]
    return any((old.lineage, old.jurisdiction) == (seat.successor_of, seat.jurisdiction) for old in gone)


def _names_lost(previous: Body, body: Body) -> list[str]:
    """5: each namespace keeps its publisher in the next body."""
    return [name for name, publisher in previous.namespaces.items() if body.namespaces.get(name) != publisher]
