"""What a council finds: the values that `deliberate` returns, and a few questions about them.

What an honest member signs next, and what its key must never sign.

`guard` is the second lock of every desk: pure over the vote state that lies beside the key, it refuses whatever could
prove the member a liar. `next_reading` is the advice: INTENT a body, RATIFY it once a quorum intends it, and after a
stall or split go on to the next round. There is no leader and no clock; a person says which body, and when the silent
are not waited for. Source: protocol, sections 7.2, 7.4 and 7.5.


Who must do what next, in words that a command line can print.

The council: what any set of signed lines amounts to. A pure function, the same for everybody.

`deliberate` walks from a body that one holds to the newest that the lines certify, and says there who must do what
next. It asks no order, no clock and nobody's word: lines in any order, any number of times, give one answer; more lines
add epochs, lies and forks and take none away, but that two certificates for one epoch end the way there, unless one of
them was taken up before. Junk costs its own reading and becomes a note.

The work is linear in what is given, and whoever gives it has bounded it. Signers are not rationed here: to drop what a
liar signs beyond some number would un-count readings on which others rest. Only of bodies, which are large, no more
than 8 are read for each member that names them, those that it ratified first, and beyond two no more than 8 MiB.
Source: protocol, sections 7.3 to 7.7.


The charter: who the members of a federation are, and how a quorum of them, and nobody else, changes that.

    body         the document of one epoch; the quorum floor
    founding     epoch 0, by everybody's consent
    succession   what every body must keep of the one before it
    proposing    drafts, consents, leaving, adopting
    readings     INTENT and RATIFY: what they say, and what is void on its face
    pile         signed lines, sorted by what they are about
    docket       which of them count
    certificate  what makes a body the successor of another, for ever
    lies         pairs of readings that no honest member signs
    voting       what an honest member may sign next, and must not
    stranding    whether a body would leave its members unable to change it again
    proceedings  the values that a council is made of
    council      all of it over any set of lines: epochs, open drafts, lies, forks, and (`duties`) who must do what

Pure functions over bytes and frozen values: the same lines give everybody the same answers. Source: protocol,
section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comity.trust.charter.certificate import (
    Certificate,
    StatementSet,
    ValidVotes,
    accepted_by_the_new_set,
    certificate,
    check_may_follow,
    decide,
    new_keys_without_consent,
)
from comity.trust.charter.document import MAX_BYTES, Body, Member, called
from comity.trust.charter.equivocation import EquivocationProof, find_lies
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
    RoundBody,
    void,
)
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Conflict, Untrusted
from comity.trust.identity import KeySet, Signed
from comity.trust.statement import Entry, parse_entry


@dataclass(frozen=True, slots=True)
class DraftState:
    """How far one body is on its way to follow the current one.

    Attributes:
        by: the first of the members that put it forward; `text` is what it said. None where there are readings only.
        intents: members by round, of the INTENTs that count.
        ratified: members by round.
        certified_rounds: those with an intent-certificate at hand.
        ready_rounds: those of them in which, if all who mean to ratify do, nothing more is missing (`voting`).
        missing: seats whose consent it needs.
        objection: why no honest member signs it; None where nothing speaks against it.
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

    def merit(self, round_: int) -> tuple[int, int, str]:
        """Sorts first the draft behind which a split `round_` can unite: the one that somebody may be locked on, then
        the one that most intend, then, so that everybody sees the same, that of the lowest digest."""
        certified = max((at for at in self.certified_rounds if at <= round_), default=0)
        return -certified, -len(self.intents.get(round_, ())), self.body.digest


@dataclass(frozen=True, slots=True)
class Duty:
    """Who has to do what next: `action` is `intent`, `ratified` or `consented`, the statement that is missing; `why` is
    a sentence for people."""

    member: Digest
    action: str
    body: Digest
    round: int
    why: str


@dataclass(frozen=True, slots=True)
class Fork:
    """Two certificates for one epoch. `first` is the one that this node took up, if it took up either.

    `retired`: everybody who ratified the second did so with keys that the newest body lists no more, so that it is an
    alert and not a fork of those who speak today (7.7).
    """

    first: Certificate
    second: Certificate
    retired: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """All that a set of lines amounts to. Only `deliberate` makes one.

    Attributes:
        epochs: certificates after the body that one started from, in order.
        current: the newest body on an undisputed way.
        drafts: bodies that somebody put forward, or read, to follow it; the leading one first.
        round: the newest round that anybody may be in.
        heard: members by the rounds in which they signed any reading about the current body.
        reached: the newest round in which each of them did.
        left: members that ask to be left out of the next body.
        lies, forks: what is proven against somebody, about any epoch after the start.
        duties: empty where an open fork stops governance.
        notes: what counts for nothing, and why.
    """

    epochs: tuple[Certificate, ...]
    current: Body
    drafts: tuple[DraftState, ...]
    round: int
    heard: Mapping[int, frozenset[Digest]]
    reached: Mapping[Digest, int]
    left: frozenset[Digest]
    duties: tuple[Duty, ...]
    lies: tuple[EquivocationProof, ...]
    forks: tuple[Fork, ...]
    notes: tuple[str, ...]

    def draft(self, body: Digest) -> DraftState | None:
        return next((draft for draft in self.drafts if draft.body.digest == body), None)

    def leading(self, round_: int) -> DraftState | None:
        """The draft behind which members unite after `round_` was split."""
        lawful = (draft for draft in self.drafts if draft.objection is None)
        return min(lawful, key=lambda draft: draft.merit(round_), default=None)

    @property
    def stopped(self) -> bool:
        """Whether an open fork stops governance until a person pins a branch (7.7)."""
        return any(not fork.retired for fork in self.forks)


_REFUSED: Final = "reading refused"


@dataclass(frozen=True, slots=True)
class VoteState:
    """What one key has signed about `prev`. `lost` where nobody can say: the key then sits out this `prev` (7.5)."""

    prev: Digest
    intents: tuple[Intent, ...] = ()
    ratified: tuple[Ratify, ...] = ()
    lost: bool = False

    @property
    def round(self) -> int:
        """The newest round in which it signed anything; 0 for none."""
        return max((reading.round for reading in self.readings), default=0)

    @property
    def readings(self) -> tuple[Reading, ...]:
        return (*self.intents, *self.ratified)

    @property
    def last_ratified(self) -> RoundBody | None:
        last = max(self.ratified, key=lambda reading: reading.round, default=None)
        return RoundBody(last.round, last.body) if last else None

    def adding(self, reading: Reading) -> VoteState:
        """This state after `reading` was signed. It judges nothing; ask `guard` first."""
        if reading in self.readings:
            return self
        if isinstance(reading, Intent):
            return replace(self, intents=(*self.intents, reading))
        return replace(self, ratified=(*self.ratified, reading))


@dataclass(frozen=True, slots=True)
class NothingToVote:
    """Nothing to sign now. `why` is a sentence for people: who must do what first."""

    why: str


def guard(state: VoteState, reading: Reading) -> None:
    """Return if the key of `state` may sign `reading`. What it signed already it may sign again.

    The reading may have been drawn up under another key of the same member, which knows more: it may own up to a RATIFY
    that this key did not sign, never hide one that it did. Raises Conflict (VOTE-PREV) where the state is about another
    body, Untrusted otherwise: VOTE-LOST, VOTE-VOID, VOTE-BACK, VOTE-TWICE, VOTE-LOCK.
    """
    if reading.prev != state.prev:
        raise Conflict(_REFUSED, why="this vote state is about another charter", code="VOTE-PREV")
    if state.lost:
        why = "this key lost its vote state: it sits out until the charter changes"
        raise Untrusted(_REFUSED, why=why, code="VOTE-LOST")
    if reading in state.readings:
        return
    if not _rounds_never_decrease(state, reading):
        why = f"it signed in round {state.round} already, and rounds never decrease"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if isinstance(reading, Intent):
        _guard_intent(state, reading)
    elif not _one_ratify_a_round(state, reading):
        raise Untrusted(_REFUSED, why=f"it signed another RATIFY in round {reading.round}", code="VOTE-TWICE")


def _guard_intent(state: VoteState, intent: Intent) -> None:
    if (reason := void(intent)) is not None:
        raise Untrusted(_REFUSED, why=reason, code="VOTE-VOID")
    if not _one_intent_a_round(state, intent):
        raise Untrusted(_REFUSED, why=f"it signed another INTENT in round {intent.round}", code="VOTE-TWICE")
    if not _no_intent_after_ratify(state, intent):
        why = f"it has ratified in round {intent.round}, and INTENT comes first"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if not _owns_up(state, intent):
        raise Untrusted(_REFUSED, why="it hides what this key ratified before", code="VOTE-LOCK")


def next_reading(
    state: VoteState, council: Tally, me: Digest, body: Body, *, stalled: bool = False
) -> Reading | NothingToVote:
    """What the honest member `me`, whose person wants `body`, signs next; or what it waits for.

    Args:
        state: of the key that will sign; `council` of everything that is known.
        body: what a person, having seen it, approves.
        stalled: a person says that the silent are not waited for; then 7.4 alone decides about the next round.

    Sign one reading and ask again with what is known then. Never raises.
    """
    draft = council.draft(body.digest)
    if draft is None:
        decided = body.digest == council.current.digest
        return NothingToVote(
            "it is the charter now" if decided else "nobody has put it forward to follow the current charter"
        )
    if (reason := _may_not_vote(state, council, me, draft)) is not None:
        return NothingToVote(reason)
    ratified = {reading.round for reading in state.ratified}
    ready = [at for at in draft.ready_rounds if at >= state.round and at not in ratified]
    if ready:
        at = max(ready, key=lambda at: (len(draft.ratified.get(at, ())), at))
        return Ratify(me, state.prev, council.current.epoch + 1, at, body.digest)
    if state.round and (reason := _stays(state, council, me, draft, stalled)) is not None:
        return NothingToVote(reason)
    return _intent(state, council, me, draft)


def _intent(state: VoteState, council: Tally, me: Digest, draft: DraftState) -> Intent | NothingToVote:
    """An INTENT of the next round that owns up to the last RATIFY, with the earliest certificate that unlocks it."""
    body, last, at = draft.body.digest, state.last_ratified, state.round + 1
    intent = Intent(me, state.prev, council.current.epoch + 1, at, body, last)
    if last is None:
        return intent
    unlocked = (replace(intent, unlock=certified) for certified in draft.certified_rounds)
    held = next((intent for intent in unlocked if void(intent) is None), None)
    return held or NothingToVote(
        f"this member ratified {short(last.body)} in round {last.round}: it stays with it until a quorum intends "
        f"{short(body)} in a later round"
    )


def _may_not_vote(state: VoteState, council: Tally, me: Digest, draft: DraftState) -> str | None:
    if state.lost:
        return "this key lost its vote state: it sits out until the charter changes"
    if state.prev != council.current.digest:
        return f"the charter is at epoch {council.current.epoch} now, and this key's state is about another one"
    if council.stopped:
        return "two certificates stand for one epoch: nothing is signed until a person pins one"
    if all(seat.id != me for seat in council.current.active):
        return f"this member has no vote in epoch {council.current.epoch}"
    return draft.objection


def _stays(state: VoteState, council: Tally, me: Digest, draft: DraftState, stalled: bool) -> str | None:
    """7.4: why the member stays in its round; None where it may go on to the next.

    Enough members were heard, and one of these: a person waits no longer, or approves another body than before; or the
    round can come to nothing whoever else is heard; or a quorum was heard, it came to nothing, and somebody went on.
    After a split those go on who are behind the leading draft; the others have lost, and a person approves that one or
    writes a new one. So a round is split twice only if people want it so.
    """
    at, current = state.round, council.current
    heard = council.heard.get(at, frozenset()) | {me}
    if not _enough_heard(current, heard):
        return f"round {at} goes on: wait for {_silent(council, heard)}"
    if stalled or draft.body.digest not in _signed_in(state, at):
        return None
    left_behind = len(heard) >= current.quorum and any(council.reached.get(member, 0) > at for member in heard)
    if not left_behind and _may_come_to_something(council, at):
        return _waits_for(council, draft, at, heard)
    leading = council.leading(at)
    if leading is not None and leading.body.digest != draft.body.digest:
        return (
            f"round {at} was split, and {short(leading.body.digest)} leads: approve that one, or put a new one forward"
        )
    return None


def _waits_for(council: Tally, draft: DraftState, at: int, heard: Collection[Digest]) -> str:
    if at in draft.certified_rounds and draft.missing:
        return f"wait for the consent of {called(draft.missing)}"
    if at in draft.ready_rounds:
        return f"ratified in round {at}: wait for {_silent(council, draft.ratified.get(at, ()))}"
    return f"round {at} goes on: wait for {_silent(council, heard)}, or say that they are not waited for"


def _may_come_to_something(council: Tally, at: int) -> bool:
    """Whether round `at` can still decide a body, if all who did not go on do what they may."""
    current = council.current
    here = {seat.id for seat in current.active if council.reached.get(seat.id, 0) <= at}
    spoken = {member for draft in council.drafts for member in draft.intents.get(at, ())}
    ratified = {member for draft in council.drafts for member in draft.ratified.get(at, ())}
    open_to_intend, open_to_ratify = here - spoken - ratified, here - ratified
    quorum = current.quorum
    if len(open_to_intend) >= quorum:
        return True
    return any(
        len(draft.intents.get(at, frozenset()) | open_to_intend) >= quorum
        and len(draft.ratified.get(at, frozenset()) | open_to_ratify) >= quorum
        for draft in council.drafts
        if draft.objection is None
    )


def _signed_in(state: VoteState, at: int) -> set[Digest]:
    return {reading.body for reading in state.readings if reading.round == at}


def _silent(council: Tally, heard: Collection[Digest]) -> str:
    return called(seat for seat in council.current.active if seat.id not in heard) or "the others"


def _enough_heard(current: Body, heard: Collection[Digest]) -> bool:
    """7.4: round-r readings of n - q + 1 members, its own included."""
    return len(heard) >= current.blocking


def _rounds_never_decrease(state: VoteState, reading: Reading) -> bool:
    """7.2: rounds of INTENT and RATIFY together never decrease."""
    return reading.round >= state.round


def _one_intent_a_round(state: VoteState, reading: Intent) -> bool:
    """7.2: one INTENT a round."""
    return all(before.round != reading.round for before in state.intents)


def _one_ratify_a_round(state: VoteState, reading: Ratify) -> bool:
    """7.2: one RATIFY a round."""
    return all(before.round != reading.round for before in state.ratified)


def _no_intent_after_ratify(state: VoteState, reading: Intent) -> bool:
    """7.2: INTENT comes before RATIFY within a round, so that `last_ratified`, which is of an earlier one, is all."""
    return all(before.round != reading.round for before in state.ratified)


def _owns_up(state: VoteState, reading: Intent) -> bool:
    """7.2: `last_ratified` is this member's last RATIFY."""
    mine, said = state.last_ratified, reading.last_ratified
    if mine is None:
        return True
    return said is not None and (said == mine or said.round > mine.round)


def duties(council: Tally, heard: Mapping[Reading, Entry]) -> Iterator[Duty]:
    """What is missing for the leading draft, seat by seat: consents, then the readings that an honest member would sign
    next if it wanted that draft. A member may want another one, or none."""
    if council.stopped:
        return
    states = _states(council, heard)
    for draft in council.drafts:
        if draft.objection is None:
            for seat in draft.missing:
                why = f"{seat.name} has to agree to its seat, with every key that is listed there"
                yield Duty(seat.id, CONSENTED, draft.body.digest, council.round, why)
    for seat in council.current.active:
        state = states.get(seat.id) or VoteState(council.current.digest)
        draft_ = council.leading(state.round or council.round)
        reading = next_reading(state, council, seat.id, draft_.body) if draft_ else None
        if draft_ is not None and reading is not None and not isinstance(reading, NothingToVote):
            action = INTENT if isinstance(reading, Intent) else RATIFIED
            why = _why(council, draft_, reading, seat.name)
            yield Duty(seat.id, action, draft_.body.digest, reading.round, why)


def _states(council: Tally, heard: Mapping[Reading, Entry]) -> dict[Digest, VoteState]:
    """The vote state of every member as far as the world knows it."""
    intents: dict[Digest, list[Intent]] = {}
    ratified: dict[Digest, list[Ratify]] = {}
    for reading in heard:
        if isinstance(reading, Intent):
            intents.setdefault(reading.member, []).append(reading)
        else:
            ratified.setdefault(reading.member, []).append(reading)
    prev = council.current.digest
    return {
        member: VoteState(prev, tuple(intents.get(member, ())), tuple(ratified.get(member, ())))
        for member in {*intents, *ratified}
    }


def _why(council: Tally, draft: DraftState, reading: Reading, name: str) -> str:
    at, quorum = reading.round, council.current.quorum
    if isinstance(reading, Ratify):
        had = len(draft.ratified.get(at, ()))
        return f"a quorum intends it in round {at}, and {had} of {quorum} have ratified: {name} has not"
    had = len(draft.intents.get(at, ()))
    others = sum(other.objection is None for other in council.drafts) - 1
    beside = f"; {others} other draft{'s are' if others > 1 else ' is'} open" if others else ""
    return f"{had} of {quorum} intend it in round {at}: {name} has not said{beside}"


MAX_BODIES: Final = 8
"""How many bodies are read because one member names them."""
ALWAYS: Final = 2
"""So many of them however large they are: the one that a member ratified, and the one that it intends."""
MAX_READ: Final = 2 * MAX_BYTES
"""Bytes of all of them, where there are more."""

MAX_NOTES: Final = 100


def deliberate(
    start: Body,
    entries: Iterable[Entry],
    bodies: Mapping[Digest, bytes],
    *,
    held: Sequence[Certificate] = (),
    signed: Signed = KeySet.signed,
    parse: Callable[[bytes], Body] = Body.parse,
) -> Tally:
    """What `entries` amount to, for one who holds `start`. Never fails.

    Args:
        start: a body that is believed: pinned, or taken up before.
        bodies: bytes of drafts and later epochs, by digest.
        held: the epochs after `start` that were taken up before, without a gap; nothing leads back from them, and a
            rival of one of them is judged from the newest (7.7).
        signed: how signatures are judged; simulations of many members pass a cheap one.
        parse: how bodies are read; whoever deliberates often passes one that remembers.
    """
    chamber = _Deliberation(StatementSet.sort(entries), bodies, signed, parse)
    epochs, lies, rivals = list(held), list[EquivocationProof](), list[tuple[Certificate, Certificate]]()
    docket, candidates = chamber.open(start)
    for taken in held:
        lies += find_lies(docket.heard)
        rivals += [(taken, rival) for rival in _decided(docket, candidates) if rival.body != taken.body]
        docket, candidates = chamber.open(taken.body)
    forks = [Fork(taken, rival, _retired(rival, docket)) for taken, rival in rivals]
    lies += find_lies(docket.heard)
    while not any(not fork.retired for fork in forks) and (decided := list(_decided(docket, candidates))):
        first, *others = decided
        if others:
            forks += [Fork(first, rival, retired=False) for rival in others]
            break
        epochs.append(first)
        docket, candidates = chamber.open(first.body)
        lies += find_lies(docket.heard)
    council = Tally(
        epochs=tuple(epochs),
        current=docket.previous,
        drafts=_drafts(docket, candidates),
        round=_round(docket),
        heard=_heard(docket),
        reached=_reached(docket),
        left=_left(docket),
        duties=(),
        lies=tuple(lies),
        forks=tuple(forks),
        notes=chamber.notes,
    )
    return replace(council, duties=tuple(duties(council, docket.heard)))


class _Deliberation:
    """The lines and bodies of one deliberation; each body is parsed once."""

    def __init__(
        self, pile: StatementSet, bodies: Mapping[Digest, bytes], signed: Signed, parse: Callable[[bytes], Body]
    ) -> None:
        self._pile, self._bodies, self._signed, self._read = pile, bodies, signed, parse
        self._parsed: dict[Digest, Body | None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        notes = sorted(self._pile.notes)
        more = [f"and {len(notes) - MAX_NOTES} more"] if len(notes) > MAX_NOTES else []
        return (*notes[:MAX_NOTES], *more)

    def open(self, current: Body) -> tuple[ValidVotes, list[Body]]:
        """What counts about the successor of `current`, and the bodies that its members named to be that."""
        docket = ValidVotes(current, self._pile, self._signed)
        named = sorted({digest for member in _named(docket).values() for digest in self._few(member)})
        found = [body for digest in named if (body := self._parse(digest)) is not None]
        return docket, [body for body in found if body.prev == docket.digest]

    def _few(self, named: Iterable[tuple[int, int, Digest]]) -> list[Digest]:
        at_hand = dict.fromkeys(digest for *_, digest in sorted(named) if digest in self._bodies)
        few, size = list[Digest](), 0
        for digest in list(at_hand)[:MAX_BODIES]:
            size += len(self._bodies[digest])
            if len(few) < ALWAYS or size <= MAX_READ:
                few.append(digest)
        return few

    def _parse(self, digest: Digest) -> Body | None:
        if digest not in self._parsed:
            self._parsed[digest] = None
            try:
                if sha256(self._bodies[digest]) == digest:
                    self._parsed[digest] = self._read(self._bodies[digest])
            except ComityError as error:
                self._pile.notes.append(f"draft {digest[:12]} counts for nothing: {error}")
        return self._parsed[digest]


def _named(docket: ValidVotes) -> dict[Digest, list[tuple[int, int, Digest]]]:
    """The bodies that each member named, as they sort: ratified, intended (newest rounds first), put forward."""
    named: dict[Digest, list[tuple[int, int, Digest]]] = {}
    for reading in docket.heard:
        sort = 0 if isinstance(reading, Ratify) else 1
        named.setdefault(reading.member, []).append((sort, -reading.round, reading.body))
    for said in _said(docket, DRAFT):
        named.setdefault(said.by, []).append((2, 0, said.body))
    return named


def _said(docket: ValidVotes, predicate: str) -> Iterator[NamedBody]:
    """The `draft` or `left` statements of members of the current body."""
    for named, entry in docket.pile.named.get(_subject(docket, predicate), ()):
        if (named.predicate, named.federation) != (predicate, docket.previous.federation):
            continue
        if docket.speaks(named.by, entry.envelope):
            yield named


def _subject(docket: ValidVotes, predicate: str) -> Digest | None:
    """The `prev` by which statements are sorted: a draft changes the current body, who leaves names it."""
    return docket.digest if predicate == DRAFT else docket.previous.prev


def _decided(docket: ValidVotes, candidates: Iterable[Body]) -> Iterator[Certificate]:
    for body in candidates:
        try:
            yield certificate(docket, body, decide(docket, body))
        except ComityError:
            continue  # not decided, or not yet; `_drafts` says what is missing


def _retired(rival: Certificate, newest: ValidVotes) -> bool:
    """7.7: whether nobody ratified `rival` with keys that are current in the newest body, or reached from there."""
    for line in rival.lines:
        entry = parse_entry(line)
        by = entry.statement.by
        if entry.statement.predicate == RATIFIED and by is not None and newest.speaks(by.id, entry.envelope):
            return False
    return True


def _drafts(docket: ValidVotes, candidates: Iterable[Body]) -> tuple[DraftState, ...]:
    put_forward: dict[Digest, NamedBody] = {}
    for named in sorted(_said(docket, DRAFT), key=lambda named: (named.by, named.text)):
        put_forward.setdefault(named.body, named)
    drafts = [_draft(docket, body, put_forward.get(body.digest)) for body in candidates]
    at = _round(docket)
    return tuple(sorted(drafts, key=lambda draft: draft.merit(at)))


def _draft(docket: ValidVotes, body: Body, named: NamedBody | None) -> DraftState:
    intents, certified = docket.intents(body.digest), docket.certified(body.digest)
    consents = docket.consents(body)
    missing = new_keys_without_consent(docket.previous, body, consents)
    accepted = (at for at in certified if accepted_by_the_new_set(docket.previous, body, intents[at], consents))
    return DraftState(
        body=body,
        by=named.by if named else None,
        text=named.text if named else "",
        intents={at: frozenset(members) for at, members in sorted(intents.items())},
        ratified={at: frozenset(members) for at, members in sorted(docket.ratified(body.digest).items())},
        certified_rounds=tuple(sorted(certified)),
        ready_rounds=() if missing else tuple(sorted(accepted)),
        missing=tuple(missing),
        objection=_objection(docket, body),
    )


def _objection(docket: ValidVotes, body: Body) -> str | None:
    try:
        check_may_follow(docket, body)
    except ComityError as error:
        return error.why
    for seat in body.members:
        chain = docket.chain(seat.id)
        if chain is not None and not any(state.keys == seat.keys for state in chain.states):
            return f"the rotations of {seat.name} are in dispute, and no charter settles that"
    return None


def _heard(docket: ValidVotes) -> dict[int, frozenset[Digest]]:
    heard: dict[int, set[Digest]] = {}
    for reading in docket.heard:
        heard.setdefault(reading.round, set()).add(reading.member)
    return {at: frozenset(members) for at, members in sorted(heard.items())}


def _reached(docket: ValidVotes) -> dict[Digest, int]:
    reached: dict[Digest, int] = {}
    for reading in docket.heard:
        reached[reading.member] = max(reading.round, reached.get(reading.member, 0))
    return reached


def _round(docket: ValidVotes) -> int:
    heard = _heard(docket)
    return max((at for at, members in heard.items() if len(members) >= docket.previous.blocking), default=1)


def _left(docket: ValidVotes) -> frozenset[Digest]:
    return frozenset(named.by for named in _said(docket, LEFT) if named.body == docket.digest)
