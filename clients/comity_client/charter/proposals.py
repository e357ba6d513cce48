"""Plans of statements that members sign about a charter, in words, and their signatures.

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
can see it first. A body is refused if it would lose its quorum (`drafts.quorum_loss`). Source: protocol, sections 7.1
to 7.6.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

from comity.rules.charter_drafts import draft
from comity.rules.offers.records import PartyStatement, is_party_statement, read_party_statement
from comity.rules.tally import DraftState, NothingToVote, next_vote
from comity.trust.charter.document import Body, Member
from comity.trust.charter.votes import (
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
from comity.trust.frozen import frozen
from comity.trust.identity import KeySet
from comity.trust.keys import VerifyingKey
from comity.trust.node_records import NodeRecord
from comity.trust.rotation import Rotation, parse_rotation
from comity.trust.statement import PAYLOAD_TYPE, Author, Entry, Envelope, Statement
from comity.trust.statement_kinds import (
    CONSENTED,
    DRAFT,
    DRAFT_WITHDRAWN,
    INTENT,
    KEY_PREDICATES,
    LEFT,
    NODE_RECORD,
    PROVING_PREDICATES,
    RATIFIED,
    ROTATED,
    VOTE_PREDICATES,
)

from comity_client.charter.drafts import quorum_loss
from comity_client.charter.state import (
    CharterMaterial,
    CharterState,
    compute_charter_state,
)
from comity_client.signing.votes import (
    Ceremony,
    GovernanceKey,
    SigningPanel,
    parse_vote_payload,
    sign_ceremony,
    votes_signed_by,
)
from comity_client.trust_store import CharterChange, body_changes


@frozen
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
        return [entry.line for entry in about if entry.statement.predicate in PROVING_PREDICATES]


def plan(ceremony: Ceremony, charter_state: CharterState, warnings: tuple[str, ...] = ()) -> Plan:
    """Make the plan of a ceremony. Raises Malformed if members do not sign such a payload."""
    told = _describe(ceremony, charter_state)
    return Plan(
        told.title, tuple(told.facts), told.changes, told.text, (*warnings, *told.warnings), ceremony, charter_state
    )


@frozen
class _PlanText:
    """What a plan says about its payload; the fields are those of `Plan`."""

    title: str
    facts: Sequence[tuple[str, str]]
    changes: tuple[CharterChange, ...] = ()
    text: str = ""
    warnings: tuple[str, ...] = ()


def _describe(ceremony: Ceremony, charter_state: CharterState) -> _PlanText:
    entry = unsigned(ceremony.payload)
    predicate = entry.statement.predicate
    if predicate in VOTE_PREDICATES:
        return _describe_vote(parse_vote(entry), ceremony, charter_state)
    if predicate in (DRAFT, DRAFT_WITHDRAWN, CONSENTED, LEFT):
        return _describe_body_statement(parse_body_statement(entry), ceremony, charter_state)
    if predicate == ROTATED:
        return _describe_rotation(parse_rotation(entry)[0], charter_state)
    if predicate == NODE_RECORD:
        return _describe_node_record(entry, charter_state)
    if is_party_statement(entry.statement):
        return _describe_offer_statement(read_party_statement(entry.statement), entry.statement, charter_state)
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


def _describe_vote(vote: Vote, ceremony: Ceremony, charter_state: CharterState) -> _PlanText:
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
    return _describe_body(vote.body, title, facts, ceremony, charter_state)


def _describe_body_statement(named: BodyStatement, ceremony: Ceremony, charter_state: CharterState) -> _PlanText:
    who = _member_name(named.by, charter_state)
    title = {
        DRAFT: f"DRAFT: {who} proposes this charter",
        DRAFT_WITHDRAWN: f"WITHDRAW: {who} no longer proposes this charter",
        CONSENTED: f"CONSENT: {who} agrees to its seat in this charter",
        LEFT: f"LEAVE: {who} asks to be left out of the next charter",
    }[named.predicate]
    made = _describe_body(named.body, title, [], ceremony, charter_state)
    return dataclasses.replace(made, text=named.text or made.text)


def taken_origin_warning(member: Member, origin: str, owner: str) -> str:
    """What a reader has to know of a member that names an origin of somebody else for its home log."""
    return (
        f"{member.name} calls its log {origin}, which is the log of {owner}: people may take one for the other,"
        " and the origin stays with its owner. Ask it for a node with another name"
    )


def _describe_body(
    digest: Digest, title: str, facts: list[tuple[str, str]], ceremony: Ceremony, charter_state: CharterState
) -> _PlanText:
    """A statement about a body, which is compared with the current body."""
    current, draft = charter_state.current, charter_state.tally.draft(digest)
    bodies = {**charter_state.material.objects, **{sha256(data): data for data in ceremony.objects}}
    body = Body.parse(bodies[digest]) if digest in bodies else None
    changes: tuple[CharterChange, ...] = ()
    warnings: tuple[str, ...] = ()
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
    return _PlanText(title, facts, changes, draft.text if draft else "", warnings)


def _describe_rotation(rotation: Rotation, charter_state: CharterState) -> _PlanText:
    who = _member_name(rotation.identity, charter_state)
    title = f"NEW KEYS: {who} changes its keys, for the {_ordinal(rotation.seq)} time"
    keys = ", ".join(key.id[:16] for key in rotation.keys.keys)
    facts = [
        ("identity", rotation.identity),
        ("new keys", f"{rotation.keys.threshold} of {keys}"),
        ("new recovery keys", ", ".join(digest[:16] for digest in rotation.recovery) or "none"),
        *((f"cut of {cut.origin}", f"size {cut.size}") for cut in rotation.cut),
    ]
    unrecoverable = "without recovery keys, these new keys can never be rotated"
    return _PlanText(title, facts, warnings=() if rotation.recovery else (unrecoverable,))


def _describe_node_record(entry: Entry, charter_state: CharterState) -> _PlanText:
    record = NodeRecord.parse(entry.statement)
    title = f"NODE: {_member_name(record.member, charter_state)} states that {record.name} is its node"
    facts = [("log", str(record.log)), ("online key", record.online.id)]
    if (place := record.place) is not None:
        facts += [("operator", place.operator), ("cloud", place.cloud or "none"), ("reach", ", ".join(place.reach))]
    return _PlanText(title, facts)


def _describe_offer_statement(said: PartyStatement, statement: Statement, charter_state: CharterState) -> _PlanText:
    who = _member_name(said.by, charter_state)
    title = f"{statement.predicate.upper()}: {who} makes a statement about a compute offer"
    body = {name: value for name, value in statement.body.items() if name not in ("by", "objects", "text")}
    facts: list[tuple[str, str]] = [("offer", statement.subject)]
    facts += [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(body.items())]
    text = statement.body.get("text")
    return _PlanText(title, facts, text=text if isinstance(text, str) else "")


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


GOVERNANCE = "governance"


@frozen
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
    return statement.predicate in KEY_PREDICATES or statement.body.get("prev") == current.digest


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
