"""The tally: the state that any set of signed statements amounts to, and what an honest member signs next.

`compute_tally` starts at a trusted body, follows certificates to the newest one, and lists its drafts, forks,
equivocations and duties. A pure function: no clock, any order, repetitions allowed. More statements add epochs,
proofs and forks and remove none, except that a second certificate for one epoch stops there, unless one was adopted
before. Statements that do not verify become notes. The work is linear in the input, which the caller bounds.
Statements of one signer are not limited here, because votes of others may depend on them. Bodies are limited: 8 for
each member that names them, the ones it ratified first, and 8 MiB in total above two.

`next_vote` gives the next vote: INTENT for a body, RATIFY after a quorum's INTENT, and the next round after a stall or
split. There is no leader and no clock; a person chooses the body, and decides when silent members are not waited for.
Source: protocol, sections 7.2 to 7.7.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from comity.rules.charter_drafts import build_certificate
from comity.rules.charter_drafts import draft as draft_body
from comity.rules.equivocation import EquivocationProof, find_equivocations
from comity.rules.vote_state import VoteState
from comity.trust.charter.certificate import (
    Certificate,
    StatementSet,
    ValidVotes,
    accepted_by_the_new_set,
    check_may_follow,
    decide,
    new_keys_without_consent,
)
from comity.trust.charter.document import MAX_BYTES, Body, Member, seat_names
from comity.trust.charter.votes import BodyStatement, Intent, Ratify, Vote, void_reason
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.identity import KeySet, SignatureCheck
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import CONSENTED, DRAFT, DRAFT_WITHDRAWN, INTENT, LEFT, RATIFIED


@frozen
class DraftState:
    """The state of one proposed body.

    Attributes:
        by: the first member that proposed it, with its `text`; None if only votes are known.
        intents: members by round, of the INTENTs that count.
        ratified: members by round.
        certified_rounds: rounds with an intent-certificate.
        ready_rounds: certified rounds in which only RATIFYs of members with a counted INTENT are still missing.
        missing: seats whose consent it needs.
        objection: why no honest member signs it; None if there is no reason.
        withdrawn: all members that proposed it withdrew it.
        changes_nothing: it differs from the current body by its epoch only.
    """

    body: Body
    by: Digest | None
    text: str
    intents: Mapping[int, frozenset[Digest]]
    ratified: Mapping[int, frozenset[Digest]]
    certified_rounds: tuple[int, ...]
    ready_rounds: tuple[int, ...]
    missing: tuple[Member, ...]
    objection: str | None
    withdrawn: bool = False
    changes_nothing: bool = False

    @property
    def recommended(self) -> bool:
        """Whether members may be asked to vote for it: not for a draft that is withdrawn or changes nothing, unless
        members may be locked on it. This is advice; the voting rules do not know it."""
        return bool(self.certified_rounds) or not (self.withdrawn or self.changes_nothing)

    def rank(self, round_: int) -> tuple[int, int, str]:
        """Sort key: the first draft is the one to vote for after a split `round_`. Order: a draft that members may be
        locked on, then the most INTENTs, then the lowest digest, so all members choose the same."""
        certified = max((at for at in self.certified_rounds if at <= round_), default=0)
        return -certified, -len(self.intents.get(round_, ())), self.body.digest


@frozen
class Duty:
    """A missing statement of one member: `action` is `intent`, `ratified` or `consented`. `why` is a sentence for
    people."""

    member: Digest
    action: str
    body: Digest
    round: int
    why: str


@frozen
class Fork:
    """Two certificates for one epoch. `first` is the one that this node adopted, if it adopted one of them.

    `retired`: all RATIFYs of the second use keys that the newest body no longer lists. It is then an alert, not a fork
    of the current members (7.7).
    """

    first: Certificate
    second: Certificate
    retired: bool


@frozen
class Tally:
    """The state computed from a set of statements. Made only by `compute_tally`.

    Attributes:
        epochs: certificates after the start body, in order.
        current: the newest body before any fork.
        drafts: bodies that members proposed or voted for as its successor; the leading one first.
        round: the newest round that an honest member may be in.
        voters_by_round: by round, the members that signed any vote about the current body.
        latest_rounds: by member, the newest round of its votes.
        left: members that ask to be left out of the next body.
        duties: empty if an open fork stops governance.
        equivocations, forks: about any epoch after the start.
        notes: statements that were ignored, and why.
    """

    epochs: tuple[Certificate, ...]
    current: Body
    drafts: tuple[DraftState, ...]
    round: int
    voters_by_round: Mapping[int, frozenset[Digest]]
    latest_rounds: Mapping[Digest, int]
    left: frozenset[Digest]
    duties: tuple[Duty, ...]
    equivocations: tuple[EquivocationProof, ...]
    forks: tuple[Fork, ...]
    notes: tuple[str, ...]

    def draft(self, body: Digest) -> DraftState | None:
        return next((draft for draft in self.drafts if draft.body.digest == body), None)

    def leading(self, round_: int, *, recommended: bool = False) -> DraftState | None:
        """The draft to vote for after `round_` was split; with `recommended`, of those that are."""
        open_drafts = (
            draft for draft in self.drafts if draft.objection is None and (draft.recommended or not recommended)
        )
        return min(open_drafts, key=lambda draft: draft.rank(round_), default=None)

    @property
    def stopped(self) -> bool:
        """Whether an open fork stops governance until a person pins a branch (7.7)."""
        return any(not fork.retired for fork in self.forks)


@frozen
class NothingToVote:
    """No vote to sign now. `why` is a sentence for people: who must act first."""

    why: str


def next_vote(state: VoteState, tally: Tally, me: Digest, body: Body, *, stalled: bool = False) -> Vote | NothingToVote:
    """The next vote of the honest member `me` for `body`, or the reason to wait.

    Args:
        state: of the key that will sign.
        tally: of all known statements.
        body: the body that a person has seen and approves.
        stalled: a person decided not to wait for silent members; then only 7.4 decides about the next round.

    Sign one vote, then call again with a new tally. Never raises.
    """
    draft = tally.draft(body.digest)
    if draft is None:
        decided = body.digest == tally.current.digest
        return NothingToVote(
            "this is already the current charter" if decided else "no member has proposed it for the next epoch"
        )
    if (reason := _may_not_vote(state, tally, me, draft)) is not None:
        return NothingToVote(reason)
    ratified = {vote.round for vote in state.ratified}
    ready = [at for at in draft.ready_rounds if at >= state.round and at not in ratified]
    if ready:
        at = max(ready, key=lambda at: (len(draft.ratified.get(at, ())), at))
        return Ratify(me, state.prev, tally.current.epoch + 1, at, body.digest)
    if state.round and (reason := _reason_to_wait(state, tally, me, draft, stalled)) is not None:
        return NothingToVote(reason)
    return _intent(state, tally, me, draft)


def _intent(state: VoteState, tally: Tally, me: Digest, draft: DraftState) -> Intent | NothingToVote:
    """An INTENT of the next round that declares the last RATIFY, with the earliest intent-certificate that unlocks."""
    body, last, at = draft.body.digest, state.last_ratified, state.round + 1
    intent = Intent(me, state.prev, tally.current.epoch + 1, at, body, last)
    if last is None:
        return intent
    unlocked = (replace(intent, unlock=certified) for certified in draft.certified_rounds)
    unlocking = next((intent for intent in unlocked if void_reason(intent) is None), None)
    return unlocking or NothingToVote(
        f"this member ratified {short(last.body)} in round {last.round}: it must not vote for {short(body)} until a "
        "quorum signs INTENT for it in a later round"
    )


def _may_not_vote(state: VoteState, tally: Tally, me: Digest, draft: DraftState) -> str | None:
    if state.lost:
        return "this key lost its vote state: it must not vote until the charter changes"
    if state.prev != tally.current.digest:
        return f"the current charter is epoch {tally.current.epoch}, and this key's vote state is about another one"
    if tally.stopped:
        return "one epoch has two certificates: nothing is signed until a person pins one of them"
    if all(seat.id != me for seat in tally.current.active):
        return f"this member has no vote in epoch {tally.current.epoch}"
    return draft.objection


def _reason_to_wait(state: VoteState, tally: Tally, me: Digest, draft: DraftState, stalled: bool) -> str | None:
    """7.4: why the member stays in its round; None if it may go to the next round.

    It may go on if enough members voted and one of these holds: a person does not wait longer, or approves another body
    than before; the round cannot decide, whatever votes are missing; or a quorum voted, nothing was decided, and
    another member went on. After a split, only members that vote for the leading draft go on; for the others, a person
    approves that draft or proposes a new one. So a round splits twice only if people choose so.
    """
    at, current = state.round, tally.current
    voters = tally.voters_by_round.get(at, frozenset()) | {me}
    if not _enough_votes(current, voters):
        return f"round {at} is open: wait for {_missing_names(tally, voters)}"
    if stalled or draft.body.digest not in _signed_in(state, at):
        return None
    left_behind = len(voters) >= current.quorum and any(tally.latest_rounds.get(member, 0) > at for member in voters)
    if not left_behind and _can_decide(tally, at):
        return _waits_for(tally, draft, at, voters)
    leading = tally.leading(at)
    if leading is not None and leading.body.digest != draft.body.digest:
        return f"round {at} was split, and {short(leading.body.digest)} leads: approve that draft, or propose a new one"
    return None


def _waits_for(tally: Tally, draft: DraftState, at: int, voters: Collection[Digest]) -> str:
    if at in draft.certified_rounds and draft.missing:
        return f"wait for the consent of {seat_names(draft.missing)}"
    if at in draft.ready_rounds:
        return f"ratified in round {at}: wait for {_missing_names(tally, draft.ratified.get(at, ()))}"
    return f"round {at} is open: wait for {_missing_names(tally, voters)}, or decide not to wait for them"


def _can_decide(tally: Tally, at: int) -> bool:
    """Whether round `at` can still decide a body, if every member that is still in it votes as it may."""
    current = tally.current
    here = {seat.id for seat in current.active if tally.latest_rounds.get(seat.id, 0) <= at}
    intending = {member for draft in tally.drafts for member in draft.intents.get(at, ())}
    ratified = {member for draft in tally.drafts for member in draft.ratified.get(at, ())}
    open_to_intend, open_to_ratify = here - intending - ratified, here - ratified
    return any(
        len(draft.intents.get(at, frozenset()) | open_to_intend) >= current.quorum
        and len(draft.ratified.get(at, frozenset()) | open_to_ratify) >= current.quorum
        for draft in tally.drafts
        if draft.objection is None
    )


def _signed_in(state: VoteState, at: int) -> set[Digest]:
    return {vote.body for vote in state.votes if vote.round == at}


def _missing_names(tally: Tally, voters: Collection[Digest]) -> str:
    return seat_names(seat for seat in tally.current.active if seat.id not in voters) or "the others"


def _enough_votes(current: Body, voters: Collection[Digest]) -> bool:
    """7.4: votes of round r from n - q + 1 members, including the own one."""
    return len(voters) >= current.blocking


def duties(tally: Tally, votes: Mapping[Vote, Entry]) -> Iterator[Duty]:
    """The statements that the leading draft needs: missing consents of every draft, then for each seat the vote that an
    honest member would sign next for the leading draft. A member may prefer another draft, or none. A draft that is
    withdrawn or changes nothing asks nobody for a first vote (`DraftState.recommended`); members that voted follow the
    leading draft, whatever it is, so that a split ends.
    """
    if tally.stopped:
        return
    states = _states(tally, votes)
    for draft in tally.drafts:
        if draft.objection is None and draft.recommended:
            for seat in draft.missing:
                why = f"{seat.name} has to consent to its seat, with every key listed there"
                yield Duty(seat.id, CONSENTED, draft.body.digest, tally.round, why)
    for seat in tally.current.active:
        state = states.get(seat.id) or VoteState(tally.current.digest)
        draft_ = tally.leading(state.round or tally.round, recommended=not state.round)
        vote = next_vote(state, tally, seat.id, draft_.body) if draft_ else None
        if draft_ is not None and vote is not None and not isinstance(vote, NothingToVote):
            action = INTENT if isinstance(vote, Intent) else RATIFIED
            why = _why(tally, draft_, vote, seat.name)
            yield Duty(seat.id, action, draft_.body.digest, vote.round, why)


def _states(tally: Tally, votes: Mapping[Vote, Entry]) -> dict[Digest, VoteState]:
    """The vote state of every member, by its known votes."""
    intents: dict[Digest, list[Intent]] = {}
    ratified: dict[Digest, list[Ratify]] = {}
    for vote in votes:
        if isinstance(vote, Intent):
            intents.setdefault(vote.member, []).append(vote)
        else:
            ratified.setdefault(vote.member, []).append(vote)
    prev = tally.current.digest
    return {
        member: VoteState(prev, tuple(intents.get(member, ())), tuple(ratified.get(member, ())))
        for member in {*intents, *ratified}
    }


def _why(tally: Tally, draft: DraftState, vote: Vote, name: str) -> str:
    at, quorum = vote.round, tally.current.quorum
    if isinstance(vote, Ratify):
        votes = len(draft.ratified.get(at, ()))
        return (
            f"it has the INTENT of a quorum in round {at}, and {votes} of {quorum} RATIFY votes: {name} has not signed"
        )
    votes = len(draft.intents.get(at, ()))
    others = sum(other.objection is None for other in tally.drafts) - 1
    beside = f"; {others} other draft{'s are' if others > 1 else ' is'} open" if others else ""
    return f"{votes} of {quorum} INTENT votes in round {at}: {name} has not signed{beside}"


MAX_BODIES: Final = 8
"""Limit of the bodies that are read for one member that names them."""
MIN_BODIES: Final = 2
"""Bodies read for one member whatever their size: the one it ratified, and the one of its INTENT."""
MAX_BODY_BYTES_READ: Final = 2 * MAX_BYTES
"""Limit of their total size in bytes, above `MIN_BODIES`."""

MAX_NOTES: Final = 100


def compute_tally(
    start: Body,
    entries: Iterable[Entry],
    bodies: Mapping[Digest, bytes],
    *,
    adopted: Sequence[Certificate] = (),
    signed: SignatureCheck = KeySet.signed,
    parse: Callable[[bytes], Body] = Body.parse,
) -> Tally:
    """Compute the tally of `entries` from the trusted body `start`. Never fails.

    Args:
        start: a trusted body: pinned, or adopted before.
        bodies: bytes of drafts and later epochs, by digest.
        adopted: the epochs after `start` that were adopted before, without a gap. They are never undone, and whether a
            rival of one of them is retired is judged by the newest (7.7).
        signed: the signature check; simulations pass a cheap one.
        parse: parses bodies; a caller that computes often passes one with a cache.
    """
    given = _TallyInput(StatementSet.sort(entries), bodies, signed, parse)
    epochs, equivocations, rivals = list(adopted), list[EquivocationProof](), list[tuple[Certificate, Certificate]]()
    valid_votes, candidates = given.votes_about(start)
    for taken in adopted:
        equivocations += find_equivocations(valid_votes.votes)
        rivals += [(taken, rival) for rival in _decided(valid_votes, candidates) if rival.body != taken.body]
        valid_votes, candidates = given.votes_about(taken.body)
    forks = [Fork(taken, rival, _retired(rival, valid_votes)) for taken, rival in rivals]
    equivocations += find_equivocations(valid_votes.votes)
    while not any(not fork.retired for fork in forks) and (decided := list(_decided(valid_votes, candidates))):
        first, *others = decided
        if others:
            forks += [Fork(first, rival, retired=False) for rival in others]
            break
        epochs.append(first)
        valid_votes, candidates = given.votes_about(first.body)
        equivocations += find_equivocations(valid_votes.votes)
    tally = Tally(
        epochs=tuple(epochs),
        current=valid_votes.previous,
        drafts=_drafts(valid_votes, candidates),
        round=_current_round(valid_votes),
        voters_by_round=_voters_by_round(valid_votes),
        latest_rounds=_latest_rounds(valid_votes),
        left=_left(valid_votes),
        duties=(),
        equivocations=tuple(equivocations),
        forks=tuple(forks),
        notes=given.notes,
    )
    return replace(tally, duties=tuple(duties(tally, valid_votes.votes)))


class _TallyInput:
    """The statements and bodies of one computation. Each body is parsed once."""

    def __init__(
        self,
        statements: StatementSet,
        bodies: Mapping[Digest, bytes],
        signed: SignatureCheck,
        parse: Callable[[bytes], Body],
    ) -> None:
        self._statements, self._bodies, self._signed, self._parse_body = statements, bodies, signed, parse
        self._parsed: dict[Digest, Body | None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        notes = sorted(self._statements.notes)
        more = [f"and {len(notes) - MAX_NOTES} more"] if len(notes) > MAX_NOTES else []
        return (*notes[:MAX_NOTES], *more)

    def votes_about(self, current: Body) -> tuple[ValidVotes, list[Body]]:
        """The statements that count about the successor of `current`, and the bodies that its members named for it."""
        valid_votes = ValidVotes(current, self._statements, self._signed)
        named = sorted(
            {digest for member in _named_bodies(valid_votes).values() for digest in self._limit_bodies(member)}
        )
        found = [body for digest in named if (body := self._parse(digest)) is not None]
        return valid_votes, [body for body in found if body.prev == valid_votes.digest]

    def _limit_bodies(self, named: Iterable[tuple[int, int, Digest]]) -> list[Digest]:
        available = dict.fromkeys(digest for *_, digest in sorted(named) if digest in self._bodies)
        few, size = list[Digest](), 0
        for digest in list(available)[:MAX_BODIES]:
            size += len(self._bodies[digest])
            if len(few) < MIN_BODIES or size <= MAX_BODY_BYTES_READ:
                few.append(digest)
        return few

    def _parse(self, digest: Digest) -> Body | None:
        if digest not in self._parsed:
            self._parsed[digest] = None
            try:
                if sha256(self._bodies[digest]) == digest:
                    self._parsed[digest] = self._parse_body(self._bodies[digest])
            except ComityError as error:
                self._statements.notes.append(f"draft {digest[:12]} is ignored: {error}")
        return self._parsed[digest]


def _named_bodies(valid_votes: ValidVotes) -> dict[Digest, list[tuple[int, int, Digest]]]:
    """The bodies that each member named, with sort key: ratified, then INTENT (newest round first), then drafts."""
    named: dict[Digest, list[tuple[int, int, Digest]]] = {}
    for vote in valid_votes.votes:
        sort = 0 if isinstance(vote, Ratify) else 1
        named.setdefault(vote.member, []).append((sort, -vote.round, vote.body))
    for proposal in _body_statements(valid_votes, DRAFT):
        named.setdefault(proposal.by, []).append((2, 0, proposal.body))
    return named


def _body_statements(valid_votes: ValidVotes, predicate: str) -> Iterator[BodyStatement]:
    """The verified `draft`, `draft-withdrawn` or `left` statements of members of the current body."""
    for named, entry in valid_votes.statements.body_statements.get(_subject(valid_votes, predicate), ()):
        if (named.predicate, named.federation) != (predicate, valid_votes.previous.federation):
            continue
        if valid_votes.is_signed_by(named.by, entry.envelope):
            yield named


def _subject(valid_votes: ValidVotes, predicate: str) -> Digest | None:
    """The `prev` by which `StatementSet` sorts the statement: a `left` names the current body itself as its body."""
    return valid_votes.digest if predicate in (DRAFT, DRAFT_WITHDRAWN) else valid_votes.previous.prev


def _decided(valid_votes: ValidVotes, candidates: Iterable[Body]) -> Iterator[Certificate]:
    for body in candidates:
        try:
            yield build_certificate(valid_votes, body, decide(valid_votes, body))
        except ComityError:
            continue  # not decided yet; `_drafts` lists what is missing


def _retired(rival: Certificate, newest: ValidVotes) -> bool:
    """7.7: whether no RATIFY of `rival` uses keys of the newest body, or keys that rotations lead to from there."""
    for line in rival.lines:
        entry = parse_entry(line)
        by = entry.statement.by
        if entry.statement.predicate == RATIFIED and by is not None and newest.is_signed_by(by.id, entry.envelope):
            return False
    return True


def _drafts(valid_votes: ValidVotes, candidates: Iterable[Body]) -> tuple[DraftState, ...]:
    proposals: dict[Digest, BodyStatement] = {}
    proposed = set[tuple[Digest, Digest]]()
    for named in sorted(_body_statements(valid_votes, DRAFT), key=lambda named: (named.by, named.text)):
        proposals.setdefault(named.body, named)
        proposed.add((named.body, named.by))
    withdrawn = {(named.body, named.by) for named in _body_statements(valid_votes, DRAFT_WITHDRAWN)}
    wanted, unchanged = {body for body, _ in proposed - withdrawn}, _unchanged(valid_votes.previous)
    drafts = [
        replace(
            _draft(valid_votes, body, proposals.get(body.digest)),
            withdrawn=body.digest in proposals and body.digest not in wanted,
            changes_nothing=body.digest == unchanged,
        )
        for body in candidates
    ]
    at = _current_round(valid_votes)
    return tuple(sorted(drafts, key=lambda draft: draft.rank(at)))


def _unchanged(current: Body) -> Digest | None:
    """The digest of the only body that may follow `current` and changes nothing; None where that is no valid body."""
    try:
        return draft_body(current).digest
    except ComityError:
        return None


def _draft(valid_votes: ValidVotes, body: Body, named: BodyStatement | None) -> DraftState:
    intents, certified = valid_votes.intents(body.digest), valid_votes.certified(body.digest)
    consents = valid_votes.consents(body)
    missing = new_keys_without_consent(valid_votes.previous, body, consents)
    accepted = (at for at in certified if accepted_by_the_new_set(valid_votes.previous, body, intents[at], consents))
    return DraftState(
        body=body,
        by=named.by if named else None,
        text=named.text if named else "",
        intents={at: frozenset(members) for at, members in sorted(intents.items())},
        ratified={at: frozenset(members) for at, members in sorted(valid_votes.ratified(body.digest).items())},
        certified_rounds=tuple(sorted(certified)),
        ready_rounds=() if missing else tuple(sorted(accepted)),
        missing=tuple(missing),
        objection=_objection(valid_votes, body),
    )


def _objection(valid_votes: ValidVotes, body: Body) -> str | None:
    try:
        check_may_follow(valid_votes, body)
    except ComityError as error:
        return error.why
    for seat in body.members:
        chain = valid_votes.chain(seat.id)
        if chain is not None and not any(state.keys == seat.keys for state in chain.states):
            return f"the rotations of {seat.name} are in dispute, and a charter cannot settle that"
    return None


def _voters_by_round(valid_votes: ValidVotes) -> dict[int, frozenset[Digest]]:
    voters: dict[int, set[Digest]] = {}
    for vote in valid_votes.votes:
        voters.setdefault(vote.round, set()).add(vote.member)
    return {at: frozenset(members) for at, members in sorted(voters.items())}


def _latest_rounds(valid_votes: ValidVotes) -> dict[Digest, int]:
    reached: dict[Digest, int] = {}
    for vote in valid_votes.votes:
        reached[vote.member] = max(vote.round, reached.get(vote.member, 0))
    return reached


def _current_round(valid_votes: ValidVotes) -> int:
    voters = _voters_by_round(valid_votes)
    return max((at for at, members in voters.items() if len(members) >= valid_votes.previous.blocking), default=1)


def _left(valid_votes: ValidVotes) -> frozenset[Digest]:
    return frozenset(named.by for named in _body_statements(valid_votes, LEFT) if named.body == valid_votes.digest)
