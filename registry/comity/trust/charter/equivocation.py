"""Lies: two readings of one member that no honest member signs. Each pair convicts by itself, for ever.

    intents    two INTENTs about one body, of one round
    ratified   two RATIFYs about one body, of one round
    lock       an INTENT that does not own up to a RATIFY of an earlier round: it says that it ratified nothing, or only
               in rounds before, or another body in that very round

If two bodies are certified as successors of one, at least 2q - n members have signed such pairs, and the pairs stand
in the two certificates (I2). A member is its keys and all that its own rotations reach from them: who loses a key to a
thief is seen to contradict itself, and its rotation says why. Source: protocol, section 7.3; the last case of `lock`,
without which a fork can be built that proves nobody a liar, is ours.


Whether a charter would leave its members unable to change it again. Source: protocol, section 7.6."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.charter.document import Body, Member, called
from comity.trust.charter.votes import Intent, Ratify, Reading, read_reading
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Signatory
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, parse_entry

INTENTS: Final = "intents"
RATIFIED: Final = "ratified"
LOCK: Final = "lock"
KINDS: Final = (INTENTS, RATIFIED, LOCK)
MISBEHAVIOUR: Final = "misbehaviour"
MAX_LIES: Final = 8
"""How many lies of one member about one body are shown. One is enough."""


@dataclass(frozen=True, slots=True)
class EquivocationProof:
    """Two lines, both signed by `member`, that exclude one another. Only `find_lies` and `check_lie` make one."""

    kind: str
    member: Digest
    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class EquivocationClaim:
    """What a `misbehaviour` statement points at: a member, and the digests of the two lines. It proves nothing."""

    kind: str
    member: Digest
    prev: Digest
    first: Digest
    second: Digest


def find_lies(heard: Mapping[Reading, Entry]) -> tuple[EquivocationProof, ...]:
    """The lies among readings about one body that are known to be their members' own, at most eight a member."""
    members: dict[Digest, list[Reading]] = {}
    for reading in heard:
        members.setdefault(reading.member, []).append(reading)
    lies: list[EquivocationProof] = []
    for member, said in sorted(members.items()):
        said.sort(key=lambda reading: (reading.round, str(reading)))
        found = dict.fromkeys(_pairs(said))
        for kind, first, second in list(found)[:MAX_LIES]:
            lies.append(EquivocationProof(kind, member, heard[first].line, heard[second].line))
    return tuple(lies)


def check_lie(kind: str, first: bytes, second: bytes, keys: Signatory) -> EquivocationProof:
    """The lie that two lines prove against the one whose `keys` signed both (of `lock`, the INTENT first).

    Raises Malformed, and Untrusted (NO-MISBEHAVIOUR) where they show nothing of the kind.
    """
    entries = parse_entry(first), parse_entry(second)
    one, other = (read_reading(entry) for entry in entries)
    if not all(keys.signed(entry.envelope) for entry in entries):
        raise _nothing("a line is not signed by the keys of that member")
    if (one.member, one.prev) != (other.member, other.prev) or not _lies(kind, one, other):
        raise _nothing("an honest member may sign both")
    return EquivocationProof(kind, one.member, first, second)


def accusation(lie: EquivocationProof, by: Author) -> Statement:
    """The `misbehaviour` statement that spreads a lie. Its two lines are its side objects."""
    reading = read_reading(parse_entry(lie.first))
    objects = SideObject.of(lie.first), SideObject.of(lie.second)
    pair = {"first": objects[0].digest, "second": objects[1].digest}
    body = {"kind": lie.kind, "prev": reading.prev, **pair}
    return Statement(MISBEHAVIOUR, (Subject("member", lie.member),), by, body, objects)


def read_accusation(entry: Entry) -> EquivocationClaim:
    """What a `misbehaviour` statement says. `check_accusation` proves it. Raises Malformed."""
    statement = entry.statement
    if statement.predicate != MISBEHAVIOUR:
        raise Malformed("accusation is malformed", why="not a misbehaviour statement")
    fields = statement.fields()
    pair = fields.digest("first"), fields.digest("second")
    accused = EquivocationClaim(fields.choice("kind", KINDS), statement.sole_subject(), fields.digest("prev"), *pair)
    fields.done()
    if tuple(side.digest for side in statement.objects) != pair:
        raise Malformed("accusation is malformed", why="its two lines are not its side objects")
    return accused


def check_accusation(accused: EquivocationClaim, lines: Mapping[Digest, bytes], keys: Signatory) -> EquivocationProof:
    """The lie of which somebody is accused, whoever accuses.

    Args:
        lines: the accusation's side objects, by digest.
        keys: the accused member's: of its seat in the body `accused.prev`, or of its rotations from there.

    Raises Malformed, Untrusted (NO-MISBEHAVIOUR).
    """
    first, second = (lines.get(digest, b"") for digest in (accused.first, accused.second))
    if (sha256(first), sha256(second)) != (accused.first, accused.second):
        raise _nothing("its lines are not here")
    lie = check_lie(accused.kind, first, second, keys)
    if (lie.member, read_reading(parse_entry(first)).prev) != (accused.member, accused.prev):
        raise _nothing("it is about somebody else")
    return lie


def _pairs(said: list[Reading]) -> Iterator[tuple[str, Reading, Reading]]:
    """Lies among the readings of one member, sorted by round; one a kind and round."""
    for kind, make in ((INTENTS, Intent), (RATIFIED, Ratify)):
        first: dict[int, Reading] = {}
        told: set[int] = set()
        for reading in said:
            if not isinstance(reading, make):
                continue
            before = first.setdefault(reading.round, reading)
            if reading.round not in told and _lies(kind, before, reading):
                told.add(reading.round)
                yield kind, before, reading
    ratified: dict[int, list[Ratify]] = {}
    for reading in said:
        if isinstance(reading, Ratify):
            ratified.setdefault(reading.round, []).append(reading)
    rounds = list(ratified)
    for intent in said:
        if isinstance(intent, Intent):
            owned = intent.last_ratified.round if intent.last_ratified else 0
            newest = rounds[max(bisect_left(rounds, intent.round) - 1, 0) :][:1]
            suspects = [ratify for at in (*newest, owned) for ratify in ratified.get(at, ())[:2]]
            if (hidden := next((ratify for ratify in suspects if _lies(LOCK, intent, ratify)), None)) is not None:
                yield LOCK, intent, hidden


def _lies(kind: str, first: Reading, second: Reading) -> bool:
    if isinstance(first, Intent) and isinstance(second, Intent):
        return kind == INTENTS and _two_in_one_round(first, second)
    if isinstance(first, Ratify) and isinstance(second, Ratify):
        return kind == RATIFIED and _two_in_one_round(first, second)
    if isinstance(first, Intent) and isinstance(second, Ratify):
        return kind == LOCK and _hides_a_ratify(first, second)
    return False


def _two_in_one_round(first: Reading, second: Reading) -> bool:
    """7.3: two INTENTs, or two RATIFYs, for one (prev, round). The same one, signed again, is no second."""
    return first.round == second.round and first != second


def _hides_a_ratify(intent: Intent, ratify: Ratify) -> bool:
    """7.3: an INTENT at s with last_ratified null, below r, or another body at r, against a RATIFY at r < s. Strictly:
    an honest member may INTENT b and RATIFY h in one round."""
    last = intent.last_ratified
    if not ratify.round < intent.round:
        return False
    return last is None or last.round < ratify.round or (last.round == ratify.round and last.body != ratify.body)


def _nothing(why: str) -> Untrusted:
    return Untrusted("no misbehaviour is shown", why=why, code="NO-MISBEHAVIOUR")


def would_strand(body: Body, active_keys_seen: Collection[Digest]) -> str | None:
    """Why a member's tool refuses to sign `body`; None where its quorum can be met by keys that were seen active.

    Args:
        active_keys_seen: ids (`VerifyingKey.id`) of keys that signed anything of late, `keys_seen` among others.
    """
    silent = [seat for seat in body.active if not _can_act(seat, active_keys_seen)]
    able = len(body.active) - len(silent)
    if able >= body.quorum:
        return None
    return f"{body.quorum} members must be able to sign, and {able} were seen to: nothing from {called(silent)}"


def keys_seen(body: Body, entries: Iterable[Entry]) -> frozenset[Digest]:
    """The keys of seats in `body` that signed one of `entries`."""
    seen: set[Digest] = set()
    keys = {half.id: key for seat in body.members for key in seat.keys.keys for half in key.halves[:1]}
    ids = {half: key.id for half, key in keys.items()}
    for entry in entries:
        for signature in entry.envelope.signatures:
            half = signature.keyid
            if half in keys and ids[half] not in seen and entry.envelope.bears(keys[half]):
                seen.add(ids[half])
    return frozenset(seen)


def _can_act(seat: Member, seen: Collection[Digest]) -> bool:
    return sum(key.id in seen for key in seat.keys.keys) >= seat.keys.threshold
