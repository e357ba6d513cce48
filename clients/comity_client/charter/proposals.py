"""Bodies that a person may want to put forward: each changes one thing of the current charter, or takes a change over.

Pure: charter in, charter out. Whether a body may follow is judged by `trust.charter`, when it is signed. All functions
raise Malformed where no charter may look like the outcome.


What would be signed, in words, before anybody signs. Made from the payload itself, never from text beside it.

A plan is the only way to a signature: `acts.sign` takes one, so that whoever signs has had it in hand to show.


Why a draft would leave a federation without its quorum: a charter that nobody could ever change again.

A member counts as active if its keys were *seen*: they signed something about this epoch or the one before that is at
hand. No clock decides, and silence alone never makes a member fewer: who is not seen counts among the n as before.
Source: protocol, section 7.6.


A member's part: the plans that it may want to sign, and the signature.

    propose      put a body forward
    read         the next reading that this member owes a body: INTENT, and RATIFY when a quorum meant it to
    agree        a newcomer's consent to its seat
    leave        ask to be left out of the next body

Each gives a plan to show; `sign` puts one key to it. With m of k keys the ceremony in the plan goes on to the next.


Governance of one federation, as this user pins it: synchronous, over the nodes of the session or over files.

    chamber = client.chamber()
    sitting = chamber.sitting()
    plan = acts.read(sitting, key, draft.body)         # to be shown
    chamber.deliver(acts.sign(plan, key).material, to=["unix:operator.sock"])

What is signed, and why, is in the other rooms; this one only fetches and hands over.


Deciding together: what members have said about the next charter, whose turn it is, and a member's part in it.

    sitting      what follows from the lines at hand: epochs, drafts, duties, lies
    folder       lines and bodies in a plain folder, to be carried
    gathering    the same from nodes, and back to them
    drafting     the bodies that a person may want to put forward
    plans        what would be signed, in words, before anybody signs
    acts         the plans of a member: draft, reading, consent, leaving
    stranding    why a draft would leave a federation without its quorum
    turns        who must do what next, and by which command
    rotating     new keys for a member, by its recovery keys
    recovery     a vote state that was lost, and the owner's decision about it
    joining      asking to be admitted, and how far that is
    inviting     a federation file from what was verified here
    confirming   whether enough members stand by the newest charter, and how fresh that is
    chamber      all of it for one federation, over nodes or files

Nodes carry lines; nothing is taken on their word. Whatever these rooms do over the network they do from files too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from comity.trust.charter.document import Body, CharterPolicy, Member, draft, quorum
from comity.trust.charter.federation import Federation
from comity.trust.charter.tally import DraftState, NothingToVote, next_reading
from comity.trust.charter.votes import (
    CONSENTED,
    DRAFT,
    INTENT,
    LEFT,
    RATIFIED,
    Intent,
    NamedBody,
    Ratify,
    Reading,
    consent_statement,
    draft_statement,
    left_statement,
    read_named,
    read_reading,
)
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Conflict, Malformed, Refused, Untrusted
from comity.trust.identity import KeySet
from comity.trust.keys import VerifyingKey
from comity.trust.offers.records import Said, is_said, read_said
from comity.trust.rotation import KeyState, Rotation, parse_rotation
from comity.trust.statement import PAYLOAD_TYPE, Entry, Envelope, Statement
from comity.trust.statements import parse_node_record
from comity_client.charter import joining
from comity_client.charter.joining import Applicant, JoinAnswer, announced_nodes, carried_nodes, extended_federation
from comity_client.charter.state import (
    CharterMaterial,
    CharterState,
    Confirmation,
    DeliveredLine,
    GatheredVotes,
    confirm_logged,
    convene,
    deliver_lines,
    gather_from_each,
    gather_past_votes,
    gather_votes,
    material_of,
    of_federation,
    read_folder,
)
from comity_client.session import Session
from comity_client.signing.votes import (
    READINGS,
    Ceremony,
    GovernanceKey,
    SigningPanel,
    reading_of,
    readings_of,
    sign_ceremony,
)
from comity_client.trust_store import CharterChange, body_changes
from comity_client.uplink import open_uplink

T = TypeVar("T")


def draft_admission(current: Body, seat: Member, policy: CharterPolicy | None = None) -> Body:
    """With one more seat, or more than one by repeating this on the outcome's members; `policy` follows the number of
    members where none is given. Raises Conflict (MEMBER-EXISTS)."""
    if current.member(seat.id) is not None:
        why = "it has a seat, under this id"
        raise Conflict(f"{seat.name} is a member", why=why, hint="comity member ls", code="MEMBER-EXISTS")
    return _with_members(current, [*current.members, seat], policy)


def draft_removal(current: Body, member: Digest, policy: CharterPolicy | None = None) -> Body:
    """Without that seat. What it published, logged and holds stays its own."""
    return _with_members(current, [seat for seat in current.members if seat.id != member], policy)


def draft_succession(current: Body, old: Member, seat: Member) -> Body:
    """With a new seat in place of `old`, whose keys are lost; the two count as one member for ever."""
    follower = dataclasses.replace(seat, successor_of=old.lineage)
    return _with_members(current, [follower if member.id == old.id else member for member in current.members], None)


def draft_rekeying(current: Body, state: KeyState) -> Body:
    """With the keys that a member's own rotations have led to."""
    return _with_members(current, [_rekeyed(seat, state) for seat in current.members], None)


def draft_status(current: Body, member: Digest, to: str, policy: CharterPolicy | None = None) -> Body:
    """With a member as `active`, or as an `observer`, which has no vote."""
    seats = [dataclasses.replace(m, status=to) if m.id == member else m for m in current.members]
    return _with_members(current, seats, policy)


def draft_policy_change(current: Body, policy: CharterPolicy) -> Body:
    return draft(current, policy=policy)


def draft_namespaces(current: Body, added: Mapping[str, Digest]) -> Body:
    """With more namespaces. One that stands in the charter keeps its publisher for ever: see `succession` in trust."""
    return draft(current, namespaces={**current.namespaces, **added})


def rebase_draft(drafted: Body, before: Body, current: Body) -> Body:
    """What `drafted` changes of `before`, put upon `current`: a losing draft, drafted again.

    Raises Conflict (REBASE) where both changed the same thing to something different: a person must decide that.
    """
    seats = _merged(_seats(before), _seats(drafted), _seats(current), "member")
    names = _merged(before.namespaces, drafted.namespaces, current.namespaces, "namespace")
    asked = _merged(_promises(before), _promises(drafted), _promises(current), "policy")
    active = sum(seat.active for seat in seats.values())
    policy = bodies_following(current.policy, len(current.active), active)
    wished = drafted.policy.quorum_change
    if wished != bodies_following(before.policy, len(before.active), len(drafted.active)).quorum_change:
        policy = dataclasses.replace(policy, quorum_change=min(max(wished, quorum(active)), active))
    return draft(current, members=seats.values(), namespaces=names, policy=dataclasses.replace(policy, **asked))


def bodies_following(policy: CharterPolicy, before: int, after: int) -> CharterPolicy:
    """The policy for another number of active members: a quorum at the floor stays there, a higher one stays as it is
    where it can."""
    at_floor = policy.quorum_change == quorum(before)
    asked = quorum(after) if at_floor else min(max(policy.quorum_change, quorum(after)), after)
    return dataclasses.replace(policy, quorum_change=asked)


def _with_members(current: Body, members: Sequence[Member], policy: CharterPolicy | None) -> Body:
    active = sum(member.active for member in members)
    return draft(
        current, members=members, policy=policy or bodies_following(current.policy, len(current.active), active)
    )


def _rekeyed(seat: Member, state: KeyState) -> Member:
    return dataclasses.replace(seat, keys=state.keys, recovery=state.recovery) if seat.id == state.identity else seat


def _seats(body: Body) -> dict[str, Member]:
    return {seat.id: seat for seat in body.members}


def _promises(body: Body) -> dict[str, int]:
    """What the policy asks, apart from the quorum, which follows the number of members."""
    policy = dataclasses.asdict(body.policy)
    return {name: value for name, value in policy.items() if name != "quorum_change"}


def _merged(before: Mapping[str, T], mine: Mapping[str, T], theirs: Mapping[str, T], what: str) -> dict[str, T]:
    """`theirs` with what changed from `before` to `mine`."""
    merged = dict(theirs)
    for name in {*before, *mine}:
        old, new, now = before.get(name), mine.get(name), theirs.get(name)
        if new in (old, now):
            continue
        if now != old:
            why = f"{what} {name[:40]} was changed otherwise in the meantime"
            raise Conflict("the draft cannot be put upon the new charter", why=why, code="REBASE")
        if new is None:
            del merged[name]
        else:
            merged[name] = new
    return merged


_IDENTITY = ("inception", "rotated", "node-record")


@dataclass(frozen=True, slots=True)
class Plan:
    """Something that may be signed.

    Attributes:
        title: what the signature says, in one sentence.
        facts: names and values of the payload, for people.
        changes: what the body that it is about changes; empty where it is about none, or the body before is not here.
        text: what whoever drafted the body wrote; a stranger's words.
        warnings: what a careful person would want to know first.
        ceremony: the payload, and who signs it.
        sitting: the look at the proceedings by which it was made.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    changes: tuple[CharterChange, ...]
    text: str
    warnings: tuple[str, ...]
    ceremony: Ceremony
    sitting: CharterState

    @property
    def entry(self) -> Entry:
        """The signed line. Raises Unavailable (CEREMONY) while somebody must still sign."""
        return self.ceremony.entry()

    @property
    def material(self) -> CharterMaterial:
        """What is to be handed to a node, or carried: the line, the bodies that it names, and the identities of those
        who are new in them."""
        named = {item.digest for item in self.entry.statement.objects}
        known = {**self.sitting.material.objects, **{sha256(data): data for data in self.ceremony.objects}}
        objects = [data for digest, data in known.items() if digest in named]
        return CharterMaterial.of([*self._newcomers(objects), self.entry.line], objects)

    def _newcomers(self, bodies: Iterable[bytes]) -> list[bytes]:
        seats = {seat.id for data in bodies for seat in Body.parse(data).members}
        new = seats - {seat.id for seat in self.sitting.current.members}
        spoken = ((entry.statement.by, entry) for entry in self.sitting.entries)
        about = (entry for by, entry in spoken if by is not None and by.id in new)
        return [entry.line for entry in about if entry.statement.predicate in _IDENTITY]


def plan(ceremony: Ceremony, sitting: CharterState, warnings: tuple[str, ...] = ()) -> Plan:
    """Put a payload into words. Raises Malformed where it is none that a member signs."""
    entry = unsigned(ceremony.payload)
    predicate = entry.statement.predicate
    if predicate in (INTENT, RATIFIED):
        return _reading(read_reading(entry), ceremony, sitting, warnings)
    if predicate in (DRAFT, CONSENTED, LEFT):
        return _named(read_named(entry), ceremony, sitting, warnings)
    if predicate == "rotated":
        return _rotation(parse_rotation(entry)[0], ceremony, sitting, warnings)
    if predicate == "node-record":
        return _record(entry, ceremony, sitting, warnings)
    if is_said(entry.statement):
        return _lending(read_said(entry.statement), ceremony, sitting, warnings)
    raise Malformed("nothing that a member signs", why=f"a statement of type {predicate[:60]!r}", code="CEREMONY")


def plan_carried(data: bytes, sitting: CharterState | None = None) -> Plan:
    """The plan of a ceremony file that somebody brought.

    Args:
        sitting: what this signer knows by itself. Without it, as on a machine that has nothing but a key, the lines in
            the file are judged from the body before, which is in the file too; the plan says that this is so.

    Raises Malformed.
    """
    ceremony = Ceremony.parse(data)
    carried = CharterMaterial.of(ceremony.lines, ceremony.objects)
    if sitting is not None:
        return plan(ceremony, convene(sitting.start, sitting.material | carried))
    before = _before(ceremony.statement, carried)
    if before is None:
        raise Malformed("the ceremony file lacks the current charter", why="nothing can be compared", code="CEREMONY")
    warning = "no federation is known here: compare federation and current charter with what you hold for true"
    return plan(ceremony, convene(before, carried), (warning,))


def unsigned(payload: bytes) -> Entry:
    """A payload as an entry that nobody has signed. Raises Malformed."""
    return Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), Statement.parse(payload))


def _reading(reading: Reading, ceremony: Ceremony, sitting: CharterState, warnings: tuple[str, ...]) -> Plan:
    who = _who(reading.member, sitting)
    if isinstance(reading, Intent):
        title = f"INTENT, round {reading.round}: {who} means to ratify this charter, if a quorum means to"
    else:
        title = f"RATIFY, round {reading.round}: {who} votes for this charter as epoch {reading.epoch}"
    facts = [("round", str(reading.round))]
    if isinstance(reading, Intent) and reading.last_ratified is not None:
        last = reading.last_ratified
        facts.append(("ratified before", f"round {last.round}, body {short(last.body)}"))
        facts.append(("free by", f"the intent-certificate of round {reading.unlock}"))
    return _about(reading.body, title, facts, ceremony, sitting, warnings)


def _named(named: NamedBody, ceremony: Ceremony, sitting: CharterState, warnings: tuple[str, ...]) -> Plan:
    who = _who(named.by, sitting)
    title = {
        DRAFT: f"DRAFT: {who} puts this charter forward",
        CONSENTED: f"CONSENT: {who} agrees to its seat in this charter",
        LEFT: f"LEAVE: {who} asks to be left out of the next charter",
    }[named.predicate]
    made = _about(named.body, title, [], ceremony, sitting, warnings)
    return dataclasses.replace(made, text=named.text or made.text)


def _about(
    digest: Digest,
    title: str,
    facts: list[tuple[str, str]],
    ceremony: Ceremony,
    sitting: CharterState,
    warnings: tuple[str, ...],
) -> Plan:
    """A plan about a body, against the current one."""
    current, draft = sitting.current, sitting.council.draft(digest)
    bodies = {**sitting.material.objects, **{sha256(data): data for data in ceremony.objects}}
    body = Body.parse(bodies[digest]) if digest in bodies else None
    changes: tuple[CharterChange, ...] = ()
    if body is None:
        warnings += ("the charter itself is not at hand: nobody can say what this would change",)
    elif body.digest != current.digest:
        changes = tuple(body_changes(current, body))
        if body.prev != current.digest:
            warnings += (f"it does not follow the charter that is current here, epoch {current.epoch}",)
    if draft is not None and draft.objection:
        warnings += (draft.objection,)
    warnings += tuple(f"proven liar: {_who(lie.member, sitting)} ({lie.kind})" for lie in sitting.council.lies)
    facts = [
        ("federation", current.federation),
        ("current charter", f"epoch {current.epoch}, {current.digest}"),
        ("this charter", digest),
        *facts,
    ]
    return Plan(title, tuple(facts), changes, draft.text if draft else "", warnings, ceremony, sitting)


def _rotation(rotation: Rotation, ceremony: Ceremony, sitting: CharterState, warnings: tuple[str, ...]) -> Plan:
    title = f"NEW KEYS: {_who(rotation.identity, sitting)} changes its keys, for the {_ordinal(rotation.seq)} time"
    keys = ", ".join(key.id[:16] for key in rotation.keys.keys)
    facts = [
        ("identity", rotation.identity),
        ("new keys", f"{rotation.keys.threshold} of {keys}"),
        ("new recovery keys", ", ".join(digest[:16] for digest in rotation.recovery) or "none"),
        *((f"cut of {cut.origin}", f"size {cut.size}") for cut in rotation.cut),
    ]
    if not rotation.recovery:
        warnings += ("without recovery keys these new keys can never be changed",)
    return Plan(title, tuple(facts), (), "", warnings, ceremony, sitting)


def _record(entry: Entry, ceremony: Ceremony, sitting: CharterState, warnings: tuple[str, ...]) -> Plan:
    record = parse_node_record(entry)
    title = f"NODE: {_who(record.member, sitting)} says that {record.name} is its node"
    facts = (("log", str(record.log)), ("online key", record.online.id))
    return Plan(title, facts, (), "", warnings, ceremony, sitting)


def _lending(said: Said, ceremony: Ceremony, sitting: CharterState, warnings: tuple[str, ...]) -> Plan:
    title = f"{ceremony.statement.predicate.upper()}: {_who(said.by, sitting)} speaks about a compute offer"
    body = {name: value for name, value in ceremony.statement.body.items() if name not in ("by", "objects", "text")}
    facts: list[tuple[str, str]] = [("offer", ceremony.statement.subject)]
    facts += [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(body.items())]
    text = ceremony.statement.body.get("text")
    return Plan(title, tuple(facts), (), text if isinstance(text, str) else "", warnings, ceremony, sitting)


def _who(member: Digest, sitting: CharterState) -> str:
    bodies = (sitting.current, *(draft.body for draft in sitting.council.drafts))
    seat = next((seat for body in bodies if (seat := body.member(member)) is not None), None)
    return f"{seat.name} ({seat.jurisdiction})" if seat else f"identity {member[:16]}"


def _before(statement: Statement, carried: CharterMaterial) -> Body | None:
    """The charter that was current when a statement was drawn up, among the carried bodies."""
    bodies = [Body.parse(data) for data in carried.objects.values()]
    if statement.predicate not in (INTENT, RATIFIED, DRAFT, CONSENTED):  # it speaks of no other body than the current
        return bodies[0] if len(bodies) == 1 else None
    prev = statement.body.get("prev")
    return next((body for body in bodies if body.digest == prev), None)


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


_BY_GOVERNANCE_KEYS = frozenset({DRAFT, CONSENTED, LEFT, INTENT, RATIFIED})


def stranded(sitting: CharterState, body: Body, me: Digest) -> str:
    """Why `body` could not be changed any more by the members that are seen active; empty where it could.

    Args:
        me: the member that asks, which is active since it is about to sign.
    """
    unseen = [seat for seat in body.active if seat.id != me and not _seen(sitting, seat)]
    able = len(body.active) - len(unseen)
    if able >= body.quorum:
        return ""
    names = ", ".join(seat.name for seat in unseen)
    return f"it would need {body.quorum} of {len(body.active)} members to change, and no key was seen of {names}"


def _seen(sitting: CharterState, seat: Member) -> bool:
    """Newcomers are seen: the body is not certified without their consent."""
    if sitting.current.member(seat.id) is None or any(seat.id in heard for heard in sitting.council.heard.values()):
        return True
    chain = sitting.chain(seat.id)
    return any(chain.signed(entry.envelope) for entry in _recent(sitting, seat.id))


def _recent(sitting: CharterState, member: Digest) -> Iterable[Entry]:
    """What a member said about this epoch or the one before, and its rotations, which its new keys sign."""
    epochs = (sitting.current.digest, sitting.current.prev)
    for entry in sitting.entries:
        statement = entry.statement
        if statement.by is None or statement.by.id != member:
            continue
        if statement.predicate == "rotated" or (
            statement.predicate in _BY_GOVERNANCE_KEYS and statement.body.get("prev") in epochs
        ):
            yield entry


GOVERNANCE = "governance"


@dataclass(frozen=True, slots=True)
class NothingToSign:
    """There is nothing for this key to sign now: `why`, a sentence for people."""

    why: str


def propose_plan(
    sitting: CharterState, key: VerifyingKey, body: Body, text: str, *, despite_quorum: bool = False
) -> Plan:
    """Put `body` forward as the member whose key this is.

    Args:
        text: why; everybody reads it.
        despite_quorum: the owner knows that the body may leave the federation without a quorum.

    Raises Refused (NO-SEAT, RETIRED-KEY, STRANDED), Conflict (FORK).
    """
    seat, state = sitting.seat_of(key)
    _check_open(sitting)
    _check_quorum(sitting, body, seat.id, despite_quorum)
    return _plan(sitting, draft_statement(body, seat.id, text), state.keys, body)


def reading_plan(
    sitting: CharterState, key: GovernanceKey, body: Body, *, stalled: bool = False, despite_quorum: bool = False
) -> Plan | NothingToSign:
    """The next reading that the member whose key this is owes `body`; or why there is none.

    A reading for `body` that this key signed before, and of which the lines at hand know nothing, comes first: it may
    have been lost on the way.

    Args:
        stalled: a person decided not to wait for those who are silent in this round (7.4).
        despite_quorum: as in `propose`.

    Raises Refused (NO-SEAT, RETIRED-KEY, STRANDED), Conflict (FORK), Untrusted (DRAFT-REFUSED) for a draft that no
    honest member signs, and as the vote file does.
    """
    seat, state = sitting.seat_of(key.public)
    _check_open(sitting)
    _check_lawful(sitting.council.draft(body.digest))
    prev, said = sitting.current.digest, sitting.said(seat.id)
    votes = key.votes.look(prev, readings_of(key.public, sitting.entries))
    if mark := votes.lost(prev):
        return NothingToSign(f"this key's vote state is lost, so it sits out this epoch: {mark.why}")
    reading = _undelivered(votes.state(prev).readings, said, body.digest) or next_reading(
        votes.state(prev, said), sitting.council, seat.id, body, stalled=stalled
    )
    if isinstance(reading, NothingToVote):
        return NothingToSign(reading.why)
    _check_quorum(sitting, body, seat.id, despite_quorum)
    return _plan(sitting, reading.statement(), state.keys, body)


def consent_plan(sitting: CharterState, body: Body, member: Digest) -> Plan:
    """The consent of `member` to its seat in `body`: by all its keys where the seat is new, else by its threshold.

    Raises Refused (NO-SEAT).
    """
    seat = body.member(member)
    if seat is None:
        raise Refused("nothing to consent to", why=f"{member[:16]} has no seat in this charter", code="NO-SEAT")
    new = sitting.current.member(member) is None
    keys = KeySet(seat.keys.keys, len(seat.keys.keys)) if new else sitting.chain(member).current.keys
    return _plan(sitting, consent_statement(body, member), keys, body)


def leave_plan(sitting: CharterState, key: VerifyingKey, text: str = "") -> Plan:
    """Ask to be left out of the next charter. Until one says so, the member stays one (7.3).

    Raises Refused (NO-SEAT, RETIRED-KEY).
    """
    seat, state = sitting.seat_of(key)
    return _plan(sitting, left_statement(sitting.current, seat.id, text), state.keys, sitting.current)


def sign_plan(shown: Plan, key: GovernanceKey) -> Plan:
    """The same plan with the signature of `key`; its owner has seen it.

    Raises Refused (NOT-A-SIGNER) for a reading of another member, whatever panel a carried file puts this key on,
    Untrusted (DRAFT-REFUSED, NO-CERTIFICATE) for one that no honest member signs, whoever drew it up, and as
    `desk.signing.sign` does.
    """
    sitting, said = shown.sitting, list[Reading]()
    if shown.ceremony.statement.predicate in READINGS:
        reading = reading_of(shown.ceremony.payload)
        if sitting.seat_of(key.public)[0].id != reading.member:
            why = "it is a reading of another member"
            raise Refused("this key has nothing to sign here", why=why, code="NOT-A-SIGNER")
        _check_reading(sitting, reading)
        said = sitting.said(reading.member)
    return dataclasses.replace(shown, ceremony=sign_ceremony(shown.ceremony, key, sitting.entries, said))


def sign_plan_with_all(shown: Plan, keys: Iterable[GovernanceKey]) -> Plan:
    """`sign` by those of `keys` that the statement is for, until it is complete."""
    for key in keys:
        if not shown.ceremony.complete and shown.ceremony.awaits(key.public):
            shown = sign_plan(shown, key)
    return shown


def _plan(sitting: CharterState, statement: Statement, keys: KeySet, body: Body) -> Plan:
    objects = dict.fromkeys((body.data, sitting.current.data))
    lines = (
        tuple(entry.line for entry in sitting.entries if _bears_on(entry, sitting.current)) if _several(keys) else ()
    )
    ceremony = Ceremony(statement.encode(), (SigningPanel(GOVERNANCE, keys),), (), tuple(objects), lines)
    return plan(ceremony, sitting)


def _several(keys: KeySet) -> bool:
    return keys.threshold > 1


def _bears_on(entry: Entry, current: Body) -> bool:
    """Whether another signer, elsewhere, needs this line to see what it signs."""
    statement = entry.statement
    return statement.predicate in ("inception", "rotated") or statement.body.get("prev") == current.digest


def _undelivered(mine: Iterable[Reading], said: Iterable[Reading], body: Digest) -> Reading | None:
    """The newest reading of this key, if it is for `body` and its member was not heard to say as much or more."""
    newest = max(mine, key=_order, default=None)
    if newest is None or newest.body != body or any(_order(reading) >= _order(newest) for reading in said):
        return None
    return newest


def _order(reading: Reading) -> tuple[int, bool]:
    return reading.round, isinstance(reading, Ratify)


def _check_reading(sitting: CharterState, reading: Reading) -> None:
    """7.2: a RATIFY, and an INTENT that names a certificate, need it at hand."""
    draft = sitting.council.draft(reading.body)
    _check_lawful(draft)
    named = reading.round if isinstance(reading, Ratify) else reading.unlock
    if named is not None and (draft is None or named not in draft.certified_rounds):
        why = f"no intent-certificate of round {named} for it is among the lines at hand"
        raise Untrusted("this reading would count for nothing", why=why, code="NO-CERTIFICATE")


def _check_lawful(draft: DraftState | None) -> None:
    if draft is not None and draft.objection:
        raise Untrusted("this draft may not become the charter", why=draft.objection, code="DRAFT-REFUSED")


def _check_open(sitting: CharterState) -> None:
    if sitting.council.stopped:
        why = "two charters of one epoch are certified, and governance stands still until a person pins one of them"
        raise Conflict("this federation is split", why=why, hint="comity trust diff FILE", code="FORK")


def _check_quorum(sitting: CharterState, body: Body, me: Digest, despite_quorum: bool) -> None:
    if not despite_quorum and (why := stranded(sitting, body, me)):
        hint = "have them sign something first, a reading say; or --despite-quorum if you know better"
        raise Refused("nobody could change this charter any more", why=why, hint=hint, code="STRANDED")


PAST: Final = 8
"""Decided epochs of which nodes are asked for what lost."""


class RunWithSession(Protocol):
    """Runs work in a session of the user's pins."""

    def __call__(self, work: Callable[[Session], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class GovernanceClient:
    """Made by `Client.chamber`. Methods raise Unavailable where no node answers."""

    federation: Federation
    run: RunWithSession

    def carried(self, folder: Path) -> CharterState:
        """What follows from a carried folder alone. Raises NotFound, Malformed."""
        return of_federation(self.federation, read_folder(folder))

    def gather(self, known: CharterMaterial | None = None) -> GatheredVotes:
        """Lines and bodies from all nodes, and who was silent."""
        here = (known or CharterMaterial()) | material_of(self.federation)
        return self.run(lambda session: gather_votes(session, self.federation, here))

    def sitting(self, *folders: Path) -> CharterState:
        """What follows from all that nodes hand out, and from carried folders beside. Raises NotFound, Malformed;
        where no node is needed, use `carried`."""
        carried = CharterMaterial()
        for folder in folders:
            carried |= read_folder(folder)
        return of_federation(self.federation, carried, self.gather(carried).material)

    def past(self, sitting: CharterState) -> CharterMaterial:
        """What nodes keep about the epochs before the current one, back to the pinned: drafts that lost, say."""
        epochs = (*self.federation.chain, *(each.body for each in sitting.council.epochs))
        prevs = [body.digest for body in epochs if body.digest != sitting.current.digest][-PAST:]
        return self.run(lambda session: gather_past_votes(session, prevs, sitting.material))

    def copies(self) -> dict[Digest, CharterMaterial]:
        """By member, what its own nodes hold: for `recovery.weigh`."""
        return self.run(lambda session: gather_from_each(session, self.federation))

    def deliver(self, material: CharterMaterial, to: str) -> list[DeliveredLine]:
        """Hand lines to a node, by its name or address, or by the path of its operator's socket. Raises NotFound,
        Unavailable, Untrusted; a line that is refused is among the delivered, with the reason."""

        async def work(session: Session) -> list[DeliveredLine]:
            async with open_uplink(session, to) as uplink:
                return await deliver_lines(uplink, material)

        return self.run(work)

    def ask(self, home: Path) -> JoinAnswer:
        """Ask to be admitted, with the card in a node's home. Raises Refused, NotFound, Malformed."""
        lines = joining.card_lines(home)
        return self.run(lambda session: joining.ask_to_join(session, lines))

    def asking(self) -> list[Applicant]:
        """Who asks to be admitted."""
        return self.run(joining.applicants)

    def confirm(self, sitting: CharterState) -> Confirmation:
        """Whether enough members' home logs stand by the charter that is current here, and how fresh that is."""
        return self.run(lambda session: confirm_logged(session, self.federation, sitting))

    def newest(self, sitting: CharterState | None = None) -> Federation:
        """The federation file with all epochs that can be proven now and the nodes of those who joined: for an
        invitation, or to be compared and pinned. Pins nothing. Raises Malformed, Untrusted."""
        seen = sitting or self.sitting()
        known = carried_nodes(seen)
        if seen.council.epochs:
            known += self.run(lambda session: announced_nodes(session, seen))
        return extended_federation(self.federation, seen, known)
