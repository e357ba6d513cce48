"""Governance of one federation: drafts, plans of statements to sign, signing, and delivery to nodes.

    draft_*          build a body that changes one thing of the current charter
    propose_plan     propose a body
    vote_plan        the next vote that this member owes a body: INTENT, and RATIFY after a quorum's INTENT
    consent_plan     a newcomer's consent to its seat
    withdraw_plan    propose a body no longer
    leave_plan       ask to be left out of the next body
    sign_plan        sign a plan with one key; for m of k keys the ceremony in the plan goes on to the next signer

    governance = client.governance()
    charter_state = governance.charter_state()
    plan = vote_plan(charter_state, key, draft.body)         # to be shown
    governance.deliver(sign_plan(plan, key).material, to="unix:operator.sock")

A plan describes the payload in words, made from the payload itself. `sign_plan` takes only a plan, so every signer
can see it first. A draft is refused if it would lose its quorum: if too few keys were seen active. A key was seen if
it signed a known statement about this epoch or the one before; no clock is used, and silent members still count
(7.6). All `draft_*` functions raise Malformed if the result breaks a rule. `GovernanceClient` is synchronous, and
works over the nodes of a session or over folders. Source: protocol, sections 7.1 to 7.6.
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
from comity.trust.charter.tally import DraftState, NothingToVote, next_vote
from comity.trust.charter.votes import (
    CONSENTED,
    DRAFT,
    DRAFT_WITHDRAWN,
    INTENT,
    LEFT,
    RATIFIED,
    BodyStatement,
    Intent,
    Ratify,
    Vote,
    consent_statement,
    draft_statement,
    draft_withdrawn_statement,
    left_statement,
    parse_body_statement,
    parse_vote,
)
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Conflict, Malformed, Refused, Untrusted
from comity.trust.identity import KeySet
from comity.trust.keys import VerifyingKey
from comity.trust.node_records import parse_node_record
from comity.trust.offers.records import PartyStatement, is_party_statement, read_party_statement
from comity.trust.rotation import KeyState, Rotation, parse_rotation
from comity.trust.statement import PAYLOAD_TYPE, Author, Entry, Envelope, Statement
from comity_client.charter import joining
from comity_client.charter.joining import Applicant, JoinAnswer, announced_nodes, carried_nodes, extended_federation
from comity_client.charter.own_lines import OwnLines
from comity_client.charter.state import (
    CharterMaterial,
    CharterState,
    Confirmation,
    DeliveredLine,
    GatheredVotes,
    compute_charter_state,
    confirm_logged,
    deliver_lines,
    federation_charter_state,
    federation_material,
    gather_from_each,
    gather_past_votes,
    gather_votes,
    read_folder,
)
from comity_client.session import Session
from comity_client.signing.votes import (
    VOTE_PREDICATES,
    Ceremony,
    GovernanceKey,
    SigningPanel,
    parse_vote_payload,
    sign_ceremony,
    votes_signed_by,
)
from comity_client.trust_store import CharterChange, body_changes
from comity_client.uplink import open_uplink

T = TypeVar("T")


def draft_admission(current: Body, seat: Member, policy: CharterPolicy | None = None) -> Body:
    """A body with one more seat. Without `policy`, the quorum follows the number of members. Raises Conflict
    (MEMBER-EXISTS)."""
    if current.member(seat.id) is not None:
        why = "its id already has a seat"
        raise Conflict(f"{seat.name} is a member", why=why, hint="comity member ls", code="MEMBER-EXISTS")
    return _draft_with_members(current, [*current.members, seat], policy)


def draft_removal(current: Body, member: Digest, policy: CharterPolicy | None = None) -> Body:
    """A body without that seat. The member's publications, log and copies stay its own."""
    return _draft_with_members(current, [seat for seat in current.members if seat.id != member], policy)


def draft_succession(current: Body, old: Member, seat: Member) -> Body:
    """A body with a new seat in place of `old`, whose keys are lost. Both count as one member permanently."""
    follower = dataclasses.replace(seat, successor_of=old.lineage)
    return _draft_with_members(
        current, [follower if member.id == old.id else member for member in current.members], None
    )


def draft_rekeying(current: Body, state: KeyState) -> Body:
    """A body with the keys that a member's own rotations lead to."""
    return _draft_with_members(current, [_rekeyed(seat, state) for seat in current.members], None)


def draft_status(current: Body, member: Digest, to: str, policy: CharterPolicy | None = None) -> Body:
    """A body with a member as `active`, or as `observer` without a vote."""
    seats = [dataclasses.replace(m, status=to) if m.id == member else m for m in current.members]
    return _draft_with_members(current, seats, policy)


def draft_policy_change(current: Body, policy: CharterPolicy) -> Body:
    return draft(current, policy=policy)


def draft_namespaces(current: Body, added: Mapping[str, Digest]) -> Body:
    """A body with more namespaces. An existing namespace keeps its publisher (`check_succession`)."""
    return draft(current, namespaces={**current.namespaces, **added})


def rebase_draft(drafted: Body, before: Body, current: Body) -> Body:
    """The changes from `before` to `drafted`, applied to `current`: a losing draft, drafted again.

    Raises Conflict (REBASE) if both changed the same thing differently: a person must decide.
    """
    seats = _merged(_seats(before), _seats(drafted), _seats(current), "member")
    names = _merged(before.namespaces, drafted.namespaces, current.namespaces, "namespace")
    asked = _merged(_policy_values(before), _policy_values(drafted), _policy_values(current), "policy")
    active = sum(seat.active for seat in seats.values())
    policy = policy_for_size(current.policy, len(current.active), active)
    wished = drafted.policy.quorum_change
    if wished != policy_for_size(before.policy, len(before.active), len(drafted.active)).quorum_change:
        policy = dataclasses.replace(policy, quorum_change=min(max(wished, quorum(active)), active))
    return draft(current, members=seats.values(), namespaces=names, policy=dataclasses.replace(policy, **asked))


def policy_for_size(policy: CharterPolicy, before: int, after: int) -> CharterPolicy:
    """The policy for another number of active members: a smallest quorum stays the smallest, a higher one stays as it
    is if possible."""
    at_minimum = policy.quorum_change == quorum(before)
    asked = quorum(after) if at_minimum else min(max(policy.quorum_change, quorum(after)), after)
    return dataclasses.replace(policy, quorum_change=asked)


def _draft_with_members(current: Body, members: Sequence[Member], policy: CharterPolicy | None) -> Body:
    active = sum(member.active for member in members)
    return draft(
        current, members=members, policy=policy or policy_for_size(current.policy, len(current.active), active)
    )


def _rekeyed(seat: Member, state: KeyState) -> Member:
    return dataclasses.replace(seat, keys=state.keys, recovery=state.recovery) if seat.id == state.identity else seat


def _seats(body: Body) -> dict[str, Member]:
    return {seat.id: seat for seat in body.members}


def _policy_values(body: Body) -> dict[str, int]:
    """The policy values without the quorum, which follows the number of members."""
    policy = dataclasses.asdict(body.policy)
    return {name: value for name, value in policy.items() if name != "quorum_change"}


def _merged(before: Mapping[str, T], own: Mapping[str, T], theirs: Mapping[str, T], what: str) -> dict[str, T]:
    """`theirs` with the changes from `before` to `own`."""
    merged = dict(theirs)
    for name in {*before, *own}:
        old, new, now = before.get(name), own.get(name), theirs.get(name)
        if new in (old, now):
            continue
        if now != old:
            why = f"{what} {name[:40]} was changed differently in the meantime"
            raise Conflict("the draft cannot be rebased on the new charter", why=why, code="REBASE")
        if new is None:
            del merged[name]
        else:
            merged[name] = new
    return merged


_IDENTITY_PREDICATES = ("inception", "rotated", "node-record")


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement that may be signed, described for people.

    Attributes:
        title: the meaning of the signature, in one sentence.
        facts: names and values of the payload.
        changes: the changes of the body that it is about; empty without a body, or if the previous body is missing.
        text: the text of the proposer of the body; not verified.
        warnings: reasons not to sign.
        ceremony: the payload, and its signers.
        charter_state: the state from which the plan was made.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    changes: tuple[CharterChange, ...]
    text: str
    warnings: tuple[str, ...]
    ceremony: Ceremony
    charter_state: CharterState

    @property
    def entry(self) -> Entry:
        """The signed line. Raises Unavailable (CEREMONY) if signatures are missing."""
        return self.ceremony.entry()

    @property
    def material(self) -> CharterMaterial:
        """The material for a node or a folder: the line, the bodies that it names, and the identity statements of their
        newcomers."""
        named = {item.digest for item in self.entry.statement.objects}
        known = {**self.charter_state.material.objects, **{sha256(data): data for data in self.ceremony.objects}}
        objects = [data for digest, data in known.items() if digest in named]
        return CharterMaterial.of([*self._newcomers(objects), self.entry.line], objects)

    def _newcomers(self, bodies: Iterable[bytes]) -> list[bytes]:
        seats = {seat.id for data in bodies for seat in Body.parse(data).members}
        new = seats - {seat.id for seat in self.charter_state.current.members}
        authored = ((entry.statement.by, entry) for entry in self.charter_state.entries)
        about = (entry for by, entry in authored if by is not None and by.id in new)
        return [entry.line for entry in about if entry.statement.predicate in _IDENTITY_PREDICATES]


def plan(ceremony: Ceremony, charter_state: CharterState, warnings: tuple[str, ...] = ()) -> Plan:
    """Make the plan of a ceremony. Raises Malformed if members do not sign such a payload."""
    entry = unsigned(ceremony.payload)
    predicate = entry.statement.predicate
    if predicate in (INTENT, RATIFIED):
        return _vote_plan(parse_vote(entry), ceremony, charter_state, warnings)
    if predicate in (DRAFT, DRAFT_WITHDRAWN, CONSENTED, LEFT):
        return _body_plan(parse_body_statement(entry), ceremony, charter_state, warnings)
    if predicate == "rotated":
        return _rotation_plan(parse_rotation(entry)[0], ceremony, charter_state, warnings)
    if predicate == "node-record":
        return _node_record_plan(entry, ceremony, charter_state, warnings)
    if is_party_statement(entry.statement):
        return _offer_plan(read_party_statement(entry.statement), ceremony, charter_state, warnings)
    raise Malformed(
        "members do not sign this statement", why=f"a statement of type {predicate[:60]!r}", code="CEREMONY"
    )


def plan_carried(data: bytes, charter_state: CharterState | None = None) -> Plan:
    """The plan of a ceremony file from another signer.

    Args:
        charter_state: the state known to this signer. Without it, as on a machine that has only a key, the lines in the
            file are evaluated from the current body in the file, and the plan has a warning.

    Raises Malformed.
    """
    ceremony = Ceremony.parse(data)
    carried = CharterMaterial.of(ceremony.lines, ceremony.objects)
    if charter_state is not None:
        return plan(ceremony, compute_charter_state(charter_state.start, charter_state.material | carried))
    before = _current_body(ceremony.statement, carried)
    if before is None:
        raise Malformed(
            "the ceremony file lacks the current charter", why="its changes cannot be shown", code="CEREMONY"
        )
    warning = "no federation is known here: compare the federation and the current charter with your own records"
    return plan(ceremony, compute_charter_state(before, carried), (warning,))


def unsigned(payload: bytes) -> Entry:
    """A payload as an entry without signatures. Raises Malformed."""
    return Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), Statement.parse(payload))


def _vote_plan(vote: Vote, ceremony: Ceremony, charter_state: CharterState, warnings: tuple[str, ...]) -> Plan:
    who = _member_name(vote.member, charter_state)
    if isinstance(vote, Intent):
        title = f"INTENT, round {vote.round}: {who} will ratify this charter, if a quorum signs INTENT"
    else:
        title = f"RATIFY, round {vote.round}: {who} votes for this charter as epoch {vote.epoch}"
    facts = [("round", str(vote.round))]
    if isinstance(vote, Intent) and vote.last_ratified is not None:
        last = vote.last_ratified
        facts.append(("ratified before", f"round {last.round}, body {short(last.body)}"))
        facts.append(("unlocked by", f"the intent-certificate of round {vote.unlock}"))
    return _plan_for_body(vote.body, title, facts, ceremony, charter_state, warnings)


def _body_plan(
    named: BodyStatement, ceremony: Ceremony, charter_state: CharterState, warnings: tuple[str, ...]
) -> Plan:
    who = _member_name(named.by, charter_state)
    title = {
        DRAFT: f"DRAFT: {who} proposes this charter",
        DRAFT_WITHDRAWN: f"WITHDRAW: {who} no longer proposes this charter",
        CONSENTED: f"CONSENT: {who} agrees to its seat in this charter",
        LEFT: f"LEAVE: {who} asks to be left out of the next charter",
    }[named.predicate]
    made = _plan_for_body(named.body, title, [], ceremony, charter_state, warnings)
    return dataclasses.replace(made, text=named.text or made.text)


def taken_origin_warning(member: Member, origin: str, owner: str) -> str:
    """What a reader has to know of a member that names an origin of somebody else for its home log."""
    return (
        f"{member.name} calls its log {origin}, which is the log of {owner}: people may take one for the other,"
        " and the origin stays with its owner. Ask it for a node with another name"
    )


def _plan_for_body(
    digest: Digest,
    title: str,
    facts: list[tuple[str, str]],
    ceremony: Ceremony,
    charter_state: CharterState,
    warnings: tuple[str, ...],
) -> Plan:
    """The plan of a statement about a body, compared with the current body."""
    current, draft = charter_state.current, charter_state.tally.draft(digest)
    bodies = {**charter_state.material.objects, **{sha256(data): data for data in ceremony.objects}}
    body = Body.parse(bodies[digest]) if digest in bodies else None
    changes: tuple[CharterChange, ...] = ()
    if body is None:
        warnings += ("the charter itself is missing: its changes cannot be shown",)
    elif body.digest != current.digest:
        changes = tuple(body_changes(current, body))
        if body.prev != current.digest:
            warnings += (f"it does not follow the current charter here, epoch {current.epoch}",)
        listed = {seat.id for seat in current.members}
        for newcomer in (seat for seat in body.members if seat.id not in listed):
            if (taken := charter_state.taken_origin(newcomer)) is not None:
                warnings += (taken_origin_warning(newcomer, *taken),)
    if draft is not None and draft.objection:
        warnings += (draft.objection,)
    if draft is not None and draft.withdrawn and ceremony.statement.predicate != DRAFT_WITHDRAWN:
        warnings += ("who proposed it withdrew it",)
    if draft is not None and draft.changes_nothing:
        warnings += ("it changes nothing: there is no reason to vote for it",)
    warnings += tuple(
        f"proven equivocation: {_member_name(lie.member, charter_state)} ({lie.kind})"
        for lie in charter_state.tally.equivocations
    )
    facts = [
        ("federation", current.federation),
        ("current charter", f"epoch {current.epoch}, {current.digest}"),
        ("this charter", digest),
        *facts,
    ]
    return Plan(title, tuple(facts), changes, draft.text if draft else "", warnings, ceremony, charter_state)


def _rotation_plan(
    rotation: Rotation, ceremony: Ceremony, charter_state: CharterState, warnings: tuple[str, ...]
) -> Plan:
    who = _member_name(rotation.identity, charter_state)
    title = f"NEW KEYS: {who} changes its keys, for the {_ordinal(rotation.seq)} time"
    keys = ", ".join(key.id[:16] for key in rotation.keys.keys)
    facts = [
        ("identity", rotation.identity),
        ("new keys", f"{rotation.keys.threshold} of {keys}"),
        ("new recovery keys", ", ".join(digest[:16] for digest in rotation.recovery) or "none"),
        *((f"cut of {cut.origin}", f"size {cut.size}") for cut in rotation.cut),
    ]
    if not rotation.recovery:
        warnings += ("without recovery keys, these new keys can never be rotated",)
    return Plan(title, tuple(facts), (), "", warnings, ceremony, charter_state)


def _node_record_plan(entry: Entry, ceremony: Ceremony, charter_state: CharterState, warnings: tuple[str, ...]) -> Plan:
    record = parse_node_record(entry)
    title = f"NODE: {_member_name(record.member, charter_state)} states that {record.name} is its node"
    facts = [("log", str(record.log)), ("online key", record.online.id)]
    if (place := record.place) is not None:
        facts += [("operator", place.operator), ("cloud", place.cloud or "none"), ("reach", ", ".join(place.reach))]
    return Plan(title, tuple(facts), (), "", warnings, ceremony, charter_state)


def _offer_plan(
    statement: PartyStatement, ceremony: Ceremony, charter_state: CharterState, warnings: tuple[str, ...]
) -> Plan:
    who = _member_name(statement.by, charter_state)
    title = f"{ceremony.statement.predicate.upper()}: {who} makes a statement about a compute offer"
    body = {name: value for name, value in ceremony.statement.body.items() if name not in ("by", "objects", "text")}
    facts: list[tuple[str, str]] = [("offer", ceremony.statement.subject)]
    facts += [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(body.items())]
    text = ceremony.statement.body.get("text")
    return Plan(title, tuple(facts), (), text if isinstance(text, str) else "", warnings, ceremony, charter_state)


def _member_name(member: Digest, charter_state: CharterState) -> str:
    bodies = (charter_state.current, *(draft.body for draft in charter_state.tally.drafts))
    seat = next((seat for body in bodies if (seat := body.member(member)) is not None), None)
    return f"{seat.name} ({seat.jurisdiction})" if seat else f"identity {member[:16]}"


def _current_body(statement: Statement, carried: CharterMaterial) -> Body | None:
    """The body that was current when the statement was made, among the carried bodies."""
    bodies = [Body.parse(data) for data in carried.objects.values()]
    if statement.predicate not in (
        INTENT,
        RATIFIED,
        DRAFT,
        DRAFT_WITHDRAWN,
        CONSENTED,
    ):  # it names only the current body
        return bodies[0] if len(bodies) == 1 else None
    prev = statement.body.get("prev")
    return next((body for body in bodies if body.digest == prev), None)


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


_BY_GOVERNANCE_KEYS = frozenset({DRAFT, DRAFT_WITHDRAWN, CONSENTED, LEFT, INTENT, RATIFIED})


def quorum_loss(charter_state: CharterState, body: Body, me: Digest) -> str:
    """Why the members that were seen active could not change `body` any more; empty if they could.

    Args:
        me: the calling member, which counts as active.
    """
    inactive = [seat for seat in body.active if seat.id != me and not _was_active(charter_state, seat)]
    active = len(body.active) - len(inactive)
    if active >= body.quorum:
        return ""
    names = ", ".join(seat.name for seat in inactive)
    return f"a change needs {body.quorum} of {len(body.active)} members, and no recent signature is known of {names}"


def _was_active(charter_state: CharterState, seat: Member) -> bool:
    """Whether a seat was seen active. A newcomer counts as active: the body needs its consent."""
    if charter_state.current.member(seat.id) is None or any(
        seat.id in voters for voters in charter_state.tally.voters_by_round.values()
    ):
        return True
    chain = charter_state.chain(seat.id)
    return any(chain.signed(entry.envelope) for entry in _recent_statements(charter_state, seat.id))


def _recent_statements(charter_state: CharterState, member: Digest) -> Iterable[Entry]:
    """A member's statements about this epoch or the one before, and its rotations, which its new keys sign."""
    epochs = (charter_state.current.digest, charter_state.current.prev)
    for entry in charter_state.entries:
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
    """This key has nothing to sign now. `why`: a sentence for people."""

    why: str


def propose_plan(
    charter_state: CharterState, key: VerifyingKey, body: Body, text: str, *, despite_quorum: bool = False
) -> Plan:
    """Propose `body` as the member of this key.

    Args:
        text: the reason, shown to all members.
        despite_quorum: the owner knows that the body may leave the federation without a quorum.

    Raises Refused (NO-SEAT, RETIRED-KEY, STRANDED), Conflict (FORK, NO-CHANGE).
    """
    seat, state = charter_state.seat_of(key)
    _check_not_forked(charter_state)
    if body.digest == draft(charter_state.current).digest:
        why = "the current charter says the same already"
        hint = "comity member ls; a member that wants new keys first runs: comity keys rotate --node HOME"
        raise Conflict("this draft changes nothing", why=why, hint=hint, code="NO-CHANGE")
    _check_quorum_kept(charter_state, body, seat.id, despite_quorum)
    return _plan(charter_state, draft_statement(body, seat.id, text), state.keys, body)


def vote_plan(
    charter_state: CharterState, key: GovernanceKey, body: Body, *, stalled: bool = False, despite_quorum: bool = False
) -> Plan | NothingToSign:
    """The next vote for `body` of the member of this key, or why there is none.

    A vote for `body` that this key signed before, and that is missing in `charter_state`, comes first: it may have been
    lost in transit.

    Args:
        stalled: a person decided not to wait for the silent members of this round (7.4).
        despite_quorum: as in `propose_plan`.

    Raises Refused (NO-SEAT, RETIRED-KEY, STRANDED), Conflict (FORK), Untrusted (DRAFT-REFUSED) for a draft that no
    honest member signs, and as `VoteFile`.
    """
    seat, state = charter_state.seat_of(key.public)
    _check_not_forked(charter_state)
    _check_no_objection(charter_state.tally.draft(body.digest))
    prev, known_votes = charter_state.current.digest, charter_state.votes_of(seat.id)
    votes = key.votes.load(prev, votes_signed_by(key.public, charter_state.entries))
    if mark := votes.lost(prev):
        return NothingToSign(f"this key's vote state is lost, so the key must not vote in this epoch: {mark.why}")
    vote = _undelivered_vote(votes.state(prev).votes, known_votes, body.digest) or next_vote(
        votes.state(prev, known_votes), charter_state.tally, seat.id, body, stalled=stalled
    )
    if isinstance(vote, NothingToVote):
        return NothingToSign(vote.why)
    _check_quorum_kept(charter_state, body, seat.id, despite_quorum)
    return _plan(charter_state, vote.statement(), state.keys, body)


def consent_plan(charter_state: CharterState, body: Body, member: Digest) -> Plan:
    """The consent of `member` to its seat in `body`: by all its keys if the seat is new, else by its threshold.

    Raises Refused (NO-SEAT).
    """
    seat = body.member(member)
    if seat is None:
        raise Refused("nothing to consent to", why=f"{member[:16]} has no seat in this charter", code="NO-SEAT")
    new = charter_state.current.member(member) is None
    keys = KeySet(seat.keys.keys, len(seat.keys.keys)) if new else charter_state.chain(member).current.keys
    return _plan(charter_state, consent_statement(body, member), keys, body)


def withdraw_plan(charter_state: CharterState, key: VerifyingKey, body: Body, text: str = "") -> Plan:
    """Propose `body` no longer, as the member of this key. Votes for it stay valid; nobody is asked for more of them
    once all members that proposed it withdrew it.

    Raises Refused (NO-SEAT, RETIRED-KEY, NOT-PROPOSED).
    """
    seat, state = charter_state.seat_of(key)
    if not any(_proposes(entry, seat.id, body.digest) for entry in charter_state.entries):
        hint = "a member that does not want a draft does not approve it"
        raise Refused(f"{seat.name} did not propose this draft", why="only its proposers can withdraw it", hint=hint,
                      code="NOT-PROPOSED")  # fmt: skip
    return _plan(charter_state, draft_withdrawn_statement(body, seat.id, text), state.keys, body)


def _proposes(entry: Entry, member: Digest, body: Digest) -> bool:
    statement = entry.statement
    return statement.predicate == DRAFT and statement.by == Author("identity", member) and statement.subject == body


def leave_plan(charter_state: CharterState, key: VerifyingKey, text: str = "") -> Plan:
    """Ask to be left out of the next charter. The member keeps its seat until a charter removes it (7.3).

    Raises Refused (NO-SEAT, RETIRED-KEY).
    """
    seat, state = charter_state.seat_of(key)
    return _plan(charter_state, left_statement(charter_state.current, seat.id, text), state.keys, charter_state.current)


def sign_plan(shown: Plan, key: GovernanceKey) -> Plan:
    """The plan with the signature of `key`, whose owner has seen the plan.

    Raises Refused (NOT-A-SIGNER) for a vote of another member, also if a ceremony file lists this key as a signer,
    Untrusted (DRAFT-REFUSED, NO-CERTIFICATE) for a vote that no honest member signs, and as `sign_ceremony` does.
    """
    charter_state, known_votes = shown.charter_state, list[Vote]()
    if shown.ceremony.statement.predicate in VOTE_PREDICATES:
        vote = parse_vote_payload(shown.ceremony.payload)
        if charter_state.seat_of(key.public)[0].id != vote.member:
            why = "it is a vote of another member"
            raise Refused("this key has nothing to sign here", why=why, code="NOT-A-SIGNER")
        _check_certified(charter_state, vote)
        known_votes = charter_state.votes_of(vote.member)
    return dataclasses.replace(shown, ceremony=sign_ceremony(shown.ceremony, key, charter_state.entries, known_votes))


def sign_plan_with_all(shown: Plan, keys: Iterable[GovernanceKey]) -> Plan:
    """`sign_plan` with those of `keys` that are signers, until the statement is complete."""
    for key in keys:
        if not shown.ceremony.complete and shown.ceremony.awaits(key.public):
            shown = sign_plan(shown, key)
    return shown


def _plan(charter_state: CharterState, statement: Statement, keys: KeySet, body: Body) -> Plan:
    objects = dict.fromkeys((body.data, charter_state.current.data))
    lines = (
        tuple(entry.line for entry in charter_state.entries if _is_relevant(entry, charter_state.current))
        if _needs_several(keys)
        else ()
    )
    ceremony = Ceremony(statement.encode(), (SigningPanel(GOVERNANCE, keys),), (), tuple(objects), lines)
    return plan(ceremony, charter_state)


def _needs_several(keys: KeySet) -> bool:
    return keys.threshold > 1


def _is_relevant(entry: Entry, current: Body) -> bool:
    """Whether a signer on another machine needs this line to check the statement."""
    statement = entry.statement
    return statement.predicate in ("inception", "rotated") or statement.body.get("prev") == current.digest


def _undelivered_vote(own: Iterable[Vote], known_votes: Iterable[Vote], body: Digest) -> Vote | None:
    """The newest vote of this key, if it is for `body` and no equal or later vote of its member is known."""
    newest = max(own, key=_order, default=None)
    if newest is None or newest.body != body or any(_order(vote) >= _order(newest) for vote in known_votes):
        return None
    return newest


def _order(vote: Vote) -> tuple[int, bool]:
    return vote.round, isinstance(vote, Ratify)


def _check_certified(charter_state: CharterState, vote: Vote) -> None:
    """7.2: a RATIFY, and an INTENT with `unlock`, need that intent-certificate."""
    draft = charter_state.tally.draft(vote.body)
    _check_no_objection(draft)
    named = vote.round if isinstance(vote, Ratify) else vote.unlock
    if named is not None and (draft is None or named not in draft.certified_rounds):
        why = f"its intent-certificate of round {named} is missing"
        raise Untrusted("this vote would not count", why=why, code="NO-CERTIFICATE")


def _check_no_objection(draft: DraftState | None) -> None:
    if draft is not None and draft.objection:
        raise Untrusted("this draft must not become the charter", why=draft.objection, code="DRAFT-REFUSED")


def _check_not_forked(charter_state: CharterState) -> None:
    if charter_state.tally.stopped:
        why = "one epoch has two certified charters, and governance is stopped until a person pins one of them"
        raise Conflict("this federation has a fork", why=why, hint="comity trust diff FILE", code="FORK")


def _check_quorum_kept(charter_state: CharterState, body: Body, me: Digest, despite_quorum: bool) -> None:
    if not despite_quorum and (why := quorum_loss(charter_state, body, me)):
        hint = "let these members sign something first, for example a vote; or use --despite-quorum"
        raise Refused("the members could not change this charter any more", why=why, hint=hint, code="STRANDED")


MAX_PAST_EPOCHS: Final = 8
"""Limit of decided epochs for which losing drafts are fetched."""


class RunWithSession(Protocol):
    """Runs work in a session of the pinned federation."""

    def __call__(self, work: Callable[[Session], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class GovernanceClient:
    """Made by `Client.governance`. Methods raise Unavailable if no node answers."""

    federation: Federation
    run: RunWithSession
    own_lines: OwnLines | None = None

    def carried(self, folder: Path) -> CharterState:
        """The charter state from one folder only. Raises NotFound, Malformed."""
        return federation_charter_state(self.federation, read_folder(folder))

    def gather(self, known: CharterMaterial | None = None) -> GatheredVotes:
        """Lines and bodies from all nodes, and the nodes that did not answer."""
        here = (known or CharterMaterial()) | federation_material(self.federation)
        return self.run(lambda session: gather_votes(session, self.federation, here))

    def charter_state(self, *folders: Path) -> CharterState:
        """The charter state from all nodes, and from folders. Raises NotFound, Malformed. Without a network use
        `carried`."""
        carried = self.own_lines.material if self.own_lines else CharterMaterial()
        for folder in folders:
            carried |= read_folder(folder)
        return federation_charter_state(self.federation, carried, self.gather(carried).material)

    def past_material(self, charter_state: CharterState) -> CharterMaterial:
        """Statements of the nodes about decided epochs since the pinned one, for example losing drafts."""
        epochs = (*self.federation.chain, *(each.body for each in charter_state.tally.epochs))
        prevs = [body.digest for body in epochs if body.digest != charter_state.current.digest][-MAX_PAST_EPOCHS:]
        return self.run(lambda session: gather_past_votes(session, prevs, charter_state.material))

    def material_by_member(self) -> dict[Digest, CharterMaterial]:
        """By member, the material of its own nodes: for `prepare_resumption`."""
        return self.run(lambda session: gather_from_each(session, self.federation))

    def deliver(self, material: CharterMaterial, to: str) -> list[DeliveredLine]:
        """Submit lines to a node, by its name or address, or by the path of its operator's socket. Raises NotFound,
        Unavailable, Untrusted; a refused line is in the result, with its refusal."""

        async def work(session: Session) -> list[DeliveredLine]:
            async with open_uplink(session, to) as uplink:
                return await deliver_lines(uplink, material)

        delivered = self.run(work)
        accepted = frozenset(item.line for item in delivered if item.index is not None)
        if self.own_lines is not None and accepted:
            self.own_lines.add(CharterMaterial(accepted, material.objects))
        return delivered

    def ask(self, home: Path) -> JoinAnswer:
        """Send a join request with the card in a node's home. Raises Refused, NotFound, Malformed."""
        lines = joining.card_lines(home)
        return self.run(lambda session: joining.ask_to_join(session, lines))

    def applicants(self) -> list[Applicant]:
        """The waiting join requests."""
        return self.run(joining.applicants)

    def confirm(self, charter_state: CharterState) -> Confirmation:
        """Whether enough members' home logs confirm the current charter, and how recent that is."""
        return self.run(lambda session: confirm_logged(session, self.federation, charter_state))

    def newest_federation(self, charter_state: CharterState | None = None) -> Federation:
        """The federation with all epochs that can be verified now, and the nodes of new members: for an invitation, or
        to be compared and pinned. Pins nothing. Raises Malformed, Untrusted."""
        seen = charter_state or self.charter_state()
        known = carried_nodes(seen)
        if seen.tally.epochs:
            known += self.run(lambda session: announced_nodes(session, seen))
        return extended_federation(self.federation, seen, known)
