"""Charters, drafts, duties and changes, as text and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, TypeAlias

from comity.trust.encoding import Digest, printable, syllables
from comity.trust.errors import Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement_kinds import CHARTER_PREDICATES

from comity_cli.document import INLINE, document, named
from comity_cli.known_since import day, known_text
from comity_cli.node_view import span
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comity.rules.tally import DraftState
    from comity.trust.charter.document import Body
    from comity_client.charter.following import Following, LackedLine
    from comity_client.charter.history import PastEpoch
    from comity_client.charter.state import CharterState, Confirmation, PendingAction
    from comity_client.evidence.known_since import KnownSince
    from comity_client.trust_store import CharterChange

_DONE = {"intent": "INTENT", "ratified": "RATIFY", "consented": "consent"}
Votes: TypeAlias = Annotated[Mapping[str, tuple[Digest, ...]], {"propertyNames": {"pattern": "^[0-9]+$"}}]
"""The members that voted, by the round."""


@frozen
class DraftItem:
    """A draft, its changes and its votes."""

    body: Digest
    epoch: int
    by: Digest | None
    text: str
    intents: Votes
    ratified: Votes
    missing_consents: tuple[Digest, ...]
    objection: str | None
    withdrawn: bool
    changes_nothing: bool
    quorum: int
    changes: tuple[CharterChange, ...]

    @classmethod
    def of(cls, charter_state: CharterState, draft: DraftState) -> DraftItem:
        return cls(
            body=draft.body.digest,
            epoch=draft.body.epoch,
            by=draft.by,
            text=draft.text,
            intents=_votes(draft.intents),
            ratified=_votes(draft.ratified),
            missing_consents=tuple(seat.id for seat in draft.missing),
            objection=draft.objection,
            withdrawn=draft.withdrawn,
            changes_nothing=draft.changes_nothing,
            quorum=charter_state.current.quorum,
            changes=tuple(changes_of(charter_state, draft)),
        )


@frozen
class PendingItem:
    """A missing statement of one member, and the command for it."""

    member: Digest
    name: str
    action: str
    body: Digest
    round: int
    command: str

    @classmethod
    def of(cls, due: PendingAction) -> PendingItem:
        return cls(due.member, due.name, due.action, due.body, due.round, due.command)


@frozen
class ForkItem:
    """Two certified bodies of one epoch."""

    epoch: int
    first: Digest
    second: Digest
    retired: bool


@frozen
class EquivocationItem:
    """A member that signed conflicting votes."""

    member: Digest
    kind: str


@frozen
class AlarmsItem:
    """Forks, and members with proven equivocation."""

    stopped: bool
    forks: tuple[ForkItem, ...]
    equivocations: tuple[EquivocationItem, ...] = field(metadata=named("lies"))

    @classmethod
    def of(cls, charter_state: CharterState) -> AlarmsItem:
        tally = charter_state.tally
        forks = (
            ForkItem(f.first.body.epoch, f.first.body.digest, f.second.body.digest, f.retired) for f in tally.forks
        )
        equivocations = (EquivocationItem(proof.member, proof.kind) for proof in tally.equivocations)
        return cls(tally.stopped, tuple(forks), tuple(equivocations))


@frozen
class CharterItem:
    """Which charter a document is about."""

    federation: Digest
    epoch: int
    body: Digest

    @classmethod
    def of(cls, body: Body) -> CharterItem:
        return cls(body.federation, body.epoch, body.digest)


@frozen
class EpochItem:
    """A decided epoch: its changes, who voted for it in the round that decided, and `seen`, the POSIX seconds by which
    enough cosigners had seen that a node follows it; null if no node shows that. `known_since`: by when nodes say that
    they knew it, by their clocks; null if none says a time. A certificate names only as many votes as decide.
    """

    epoch: int
    body: Digest
    by: Digest | None
    text: str
    changes: tuple[CharterChange, ...]
    intents: tuple[Digest, ...]
    ratified: tuple[Digest, ...]
    seen: int | None
    known_since: KnownSince | None

    @classmethod
    def of(cls, past: PastEpoch) -> EpochItem:
        from comity_client.trust_store import body_changes

        changes = tuple(body_changes(past.before, past.body))
        votes, times = (past.intents, past.ratified), (past.seen, past.known_since)
        return cls(past.body.epoch, past.body.digest, past.by, past.text, changes, *votes, *times)


@document("epochs")
class EpochsDocument:
    """The decided epochs, the newest first, as `comity proposal ls --decided --json` prints them."""

    charter: CharterItem = field(metadata=INLINE)
    epochs: tuple[EpochItem, ...]


@frozen
class FollowedItem:
    """The newest charter that the nodes of a quorum follow; how many members' nodes follow the newest one that is known
    here, and how many are needed.
    """

    epoch: int
    body: Digest
    members: int
    needed: int

    @classmethod
    def of(cls, found: Following) -> FollowedItem:
        return cls(found.followed.epoch, found.followed.digest, len(found.members), found.needed)


@frozen
class LackedItem:
    """A line that members' nodes lack, the nodes that show it, and those that would take it. If none shows it, no
    member knows it.
    """

    line: Digest
    what: str
    held_by: tuple[str, ...]
    takers: tuple[str, ...]

    @classmethod
    def of(cls, line: LackedLine) -> LackedItem:
        return cls(line.entry.digest, line.what, line.held_by, tuple(node.name for node in line.takers))


@document("proposals")
class ProposalsDocument:
    """Open drafts of the charter, as `comity proposal ls --json` prints them.

    `intents` and `ratified` list the members that voted, by round. `next` says who must act, and by which command.
    `followed` is null where no node was asked; `lacked` lists what `comity proposal deliver` would deliver.
    """

    charter: CharterItem = field(metadata=INLINE)
    drafts: tuple[DraftItem, ...]
    next: tuple[PendingItem, ...]
    followed: FollowedItem | None
    lacked: tuple[LackedItem, ...]
    alarms: AlarmsItem = field(metadata=INLINE)


@document("proposal")
class ProposalDocument:
    """A draft of the charter, as `comity proposal show --json` prints it."""

    draft: DraftItem = field(metadata=INLINE)
    next: tuple[PendingItem, ...]


@frozen
class ConfirmationItem:
    """How many members confirm that a charter is the newest. `seen` in POSIX seconds."""

    confirmed: int
    needed: int
    enough: bool
    seen: int | None
    elsewhere: tuple[Digest, ...]
    ahead: tuple[Digest, ...]

    @classmethod
    def of(cls, confirmed: Confirmation, now: float) -> ConfirmationItem:
        """Args: now: POSIX seconds."""
        return cls(
            confirmed=confirmed.confirmed,
            needed=confirmed.needed,
            enough=confirmed.enough,
            seen=confirmed.seen(now),
            elsewhere=tuple(head.member for head in confirmed.elsewhere),
            ahead=tuple(confirmed.ahead(now)),
        )


@frozen
class CharterSeat:
    """A member of a charter."""

    id: Digest
    name: str
    jurisdiction: str


@document("charter")
class CharterDocument:
    """A charter, as `comity found draft --json` and `comity found seal --json` print it."""

    federation: Digest
    body: Digest
    epoch: int
    predecessor: Digest | None
    members: tuple[CharterSeat, ...]
    quorum_change: int


def compare_words(words: str | None, federation: Digest) -> None:
    """Compare the words that a person heard, if any, with a federation's. Raises Untrusted (OTHER-FEDERATION)."""
    spoken = syllables(federation)
    if words is not None and words.replace("-", " ").split() != spoken.replace("-", " ").split():
        raise Untrusted("the words do not match the federation file", why=f"the words of this file are {spoken}",
                        hint="ask two members for the file again", code="OTHER-FEDERATION")  # fmt: skip


def show_charter(out: Output, body: Body) -> None:
    """Show the members, with the spoken words to compare, and the policy; with --json, as the document."""
    describe_charter(out, body)
    seats = tuple(CharterSeat(m.id, m.name, m.jurisdiction) for m in body.members)
    quorum_change = body.policy.quorum_change
    out.answer(CharterDocument(body.federation, body.digest, body.epoch, body.predecessor, seats, quorum_change))


def describe_charter(out: Output, body: Body) -> None:
    """Show the members, with the spoken words to compare, and the policy."""
    rows = [(m.name, m.jurisdiction, syllables(m.id), m.id[:16]) for m in body.members]
    out.prose(f"Charter of {plural(len(body.members), 'member')}, epoch {body.epoch}, sha256:{body.digest}")
    out.table(("member", "jur", "on the phone", "id"), rows)
    policy = body.policy
    out.say(
        f"A change needs {policy.quorum_change} of {len(body.active)} members. The policy asks for {policy.min_copies} "
        f"copies in {policy.min_jurisdictions} jurisdictions"
        + (f", so that fewer than {policy.min_reaches} cannot reach all." if policy.min_reaches else ".")
    )
    for name, publisher in body.namespaces.items():
        out.say(f"  {name}/…  is bound to publisher {publisher}")


def show_changes(out: Output, changes: Sequence[CharterChange]) -> None:
    """Show one change a row. Keys and digests in it are already shortened."""
    if changes:
        rows = [
            (
                change.what,
                change.name[:16] if change.what == "member" else change.name,
                change.before or "-",
                change.after or "-",
            )
            for change in changes
        ]
        out.table(("what", "name", "before", "after"), rows)


def show_pending(out: Output, found: Sequence[PendingAction], consent_node: str) -> None:
    """Show who must act next, and by which command. Members with the same duty share a line.

    Args:
        consent_node: where a newcomer can log its consent.
    """
    duties: dict[tuple[str, int, str], list[str]] = {}
    for duty in found:
        who = f"{duty.name} ({duty.jurisdiction})" if duty.jurisdiction else duty.name
        duties.setdefault((duty.action, duty.round, duty.command), []).append(who)
    if duties:
        out.say("\nNext")
    for (action, round_, command), names in duties.items():
        what = _DONE.get(action, action) + (f", round {round_}" if action != "consented" else "")
        out.say(textwrap.fill(printable(f"{what}: {', '.join(names)}"), initial_indent="  ", subsequent_indent="    "))
        rest = f"--node HOME --node {consent_node}" if action == "consented" else "--wait --node HOME"
        out.say(f"      {command} {rest}")


def show_following(out: Output, found: Following, lacked: Sequence[LackedLine], deliver: str) -> None:
    """Say what is known here and not followed by the nodes of a quorum, and which lines no member's node has.

    Args:
        deliver: the command that delivers them.
    """
    if found.ahead:
        out.warn(
            f"epoch {found.known.epoch} is decided by the votes known here, and not followed yet: by the nodes of "
            f"{plural(len(found.members), 'member')}, of {found.needed} that are needed. Until then epoch "
            f"{found.followed.epoch} holds"
        )
    stuck = [line for line in lacked if line.stuck]
    for what in dict.fromkeys(line.what for line in stuck if line.entry.statement.predicate in CHARTER_PREDICATES):
        takers = [node.name for line in stuck if line.what == what for node in line.takers]
        out.warn(f"no member's node has {what}: it waits here, or at the node of who signed it, for {takers[0]}")
    if stuck:
        out.hint(deliver)
    elif found.ahead:
        out.hint("comity proposal ls   again: nodes read each other's votes within seconds, if they are reachable")


def show_drafts(out: Output, charter_state: CharterState) -> None:
    """Show a row for each open draft: its proposer, its changes, and its votes."""
    rows = []
    for draft in charter_state.tally.drafts:
        intents, ratified = progress(charter_state, draft)
        missing = ", ".join(f"consent of {seat.name} missing" for seat in draft.missing)
        state = draft.objection or _advice(draft) or missing or "open"
        by = _proposer(charter_state, draft) or "-"
        rows.append((draft.body.digest[:12], by, summary(charter_state, draft), intents, ratified, state))
    if rows:
        out.table(("draft", "by", "changes", "intent", "ratify", "state"), rows)
    else:
        out.say("No draft is open.")


def _advice(draft: DraftState) -> str:
    """Why nobody is asked to vote for a draft; empty if members are."""
    return "withdrawn" if draft.withdrawn else "changes nothing" if draft.changes_nothing else ""


def show_past(out: Output, past: Sequence[PastEpoch]) -> None:
    """Show each decided epoch: what it changed, its dates, and who voted for it."""
    for epoch in past:
        seats = {seat.id: seat.name for seat in (*(epoch.before.members if epoch.before else ()), *epoch.body.members)}
        when = _dated(epoch) if epoch.before is not None else "founded by files, which nothing dates"
        out.say(f"Epoch {epoch.body.epoch}   {epoch.body.digest[:12]}   {when}")
        if epoch.before is not None:
            out.fact("changes", change_summary(epoch.before, epoch.body))
        if epoch.by is not None or epoch.text:
            out.fact("proposed by", seats.get(epoch.by, "") if epoch.by else "-")
        if epoch.text:
            out.fact("reason", epoch.text)
        voted = "consented" if epoch.before is None else "RATIFY by"
        out.fact(voted, ", ".join(sorted(seats.get(member, member[:12]) for member in epoch.ratified)))


def _dated(epoch: PastEpoch) -> str:
    """The earlier of the date that cosigners prove and the one that nodes claim; a proven one is named in any case."""
    proven = f"seen by cosigners on {day(epoch.seen)}" if epoch.seen is not None else "no date is proven"
    known = epoch.known_since
    if known is None or (epoch.seen is not None and day(known.at) >= day(epoch.seen)):
        return proven
    return f"known since {known_text(known)}; {proven}"


def show_draft(out: Output, charter_state: CharterState, draft: DraftState) -> None:
    """Show the changes of a draft, and the votes of each member by round."""
    out.say(f"Draft of epoch {draft.body.epoch}\n  sha256:{draft.body.digest}")
    out.fact("by", _proposer(charter_state, draft) or "unknown: only votes are known")
    if draft.text:
        out.fact("reason", draft.text)
    if draft.objection:
        out.warn(f"do not sign it: {draft.objection}")
    elif advice := _advice(draft):
        out.warn(f"there is no reason to vote for it: {advice}")
    show_changes(out, changes_of(charter_state, draft))
    rounds = sorted({*draft.intents, *draft.ratified})
    rows = [
        (seat.name, seat.jurisdiction, *(_signed(draft, at, seat.id) for at in rounds))
        for seat in charter_state.current.active
    ]
    out.table(("member", "jur", *(f"round {at}" for at in rounds)), rows)


def _proposer(charter_state: CharterState, draft: DraftState) -> str:
    by = charter_state.current.member(draft.by) if draft.by else None
    return by.name if by else ""


def _signed(draft: DraftState, at: int, member: Digest) -> str:
    parts = [part for part, rounds in (("INTENT", draft.intents), ("RATIFY", draft.ratified))
             if member in rounds.get(at, ())]  # fmt: skip
    return " ".join(parts) or "-"


def _votes(by_round: Mapping[int, frozenset[Digest]]) -> Votes:
    return {str(at): tuple(sorted(voted)) for at, voted in by_round.items()}


def changes_of(charter_state: CharterState, draft: DraftState) -> list[CharterChange]:
    from comity_client.trust_store import body_changes

    return body_changes(charter_state.current, draft.body)


def summary(charter_state: CharterState, draft: DraftState) -> str:
    """The changes of a draft in a few words, such as `+ BSC, ~ quorum_change`."""
    return change_summary(charter_state.current, draft.body)


def change_summary(before: Body, body: Body) -> str:
    """The changes from `before` to `body` in a few words."""
    from comity_client.trust_store import body_changes

    parts = []
    for change in body_changes(before, body):
        sign = "+" if not change.before else "-" if not change.after else "~"
        seat = body.member(Digest(change.name)) or before.member(Digest(change.name))
        parts.append(f"{sign} {seat.name if seat else change.name}")
    return ", ".join(parts) or "nothing"


def progress(charter_state: CharterState, draft: DraftState) -> tuple[str, str]:
    """The number of INTENT and of RATIFY votes of the quorum, in the draft's newest round."""
    at = max((*draft.ratified, *draft.intents), default=0)
    needed, where = charter_state.current.quorum, f" (round {at})" if at > 1 else ""
    return (
        f"{len(draft.intents.get(at, ()))} of {needed}{where}",
        f"{len(draft.ratified.get(at, ()))} of {needed}{where}",
    )


def show_alarms(out: Output, charter_state: CharterState) -> None:
    """Show forks, and members with proven equivocation."""
    tally = charter_state.tally
    for fork in tally.forks:
        epoch, rival = fork.first.body.epoch, fork.second.body.digest[:16]
        if fork.retired:
            out.warn(f"a second charter of epoch {epoch} ({rival}) was certified by retired keys; this is not a fork")
        else:
            out.warn(
                f"FORK: two charters of epoch {epoch} are certified, the second is {rival}. Governance is stopped."
            )
    for proof in tally.equivocations:
        seat = charter_state.current.member(proof.member)
        name = seat.name if seat else proof.member[:16]
        out.warn(f"{name} signed conflicting votes ({proof.kind}): do not rely on its statements")


def show_current(out: Output, charter_state: CharterState) -> None:
    """Show the current charter: `The charter: epoch 3, 5 members, changed by 4 of 5`, and its digest."""
    body = charter_state.current
    members = plural(len(body.members), "member")
    out.say(f"The charter: epoch {body.epoch}, {members}, changed by {body.quorum} of {len(body.active)}")
    out.say(f"  sha256:{body.digest}")


def show_confirmation(out: Output, confirmed: Confirmation, now: float) -> None:
    """Show how many members confirm that the charter is the newest, and how recent that is. Old is never a failure.

    Args:
        now: POSIX seconds.
    """
    seen = confirmed.seen(now)
    age = "never" if seen is None else f"{span(now - seen)} ago"
    count = f"{confirmed.confirmed} (of {confirmed.needed} needed)"
    out.say(f"  confirmed by {count} members with cosigned logs, the newest {age}")
    for head in confirmed.elsewhere:
        out.warn(f"{head.name} acts under a charter that is unknown here: this charter is old, or there is a fork")
    names = {head.member: head.name for head in confirmed.heads}
    for member, seconds in confirmed.ahead(now).items():
        name = names.get(member, member[:12])
        out.warn(f"{name} dates its cosignatures {span(seconds)} later than the clock of this machine: one is wrong")
    if not confirmed.enough:
        out.warn("this charter may be old: try again later, or get a federation file from members by another channel")
