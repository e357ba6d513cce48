"""The open changes of the charter, as pages show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Literal

from comity.node.charter.follower import CharterFollower
from comity.node.members import Membership
from comity.rules.tally import DraftState
from comity.trust.charter.document import Body, Member
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.statement_kinds import CONSENTED

MAX_DRAFTS: Final = 50
MAX_CHANGES: Final = 200


@frozen
class CharterSide:
    """What a line of the charter says, with words such as `observer` and `new keys`, which pages translate."""

    text: str
    words: tuple[str, ...] = ()


@frozen
class CharterDifference:
    """One changed line of the charter: a member, a namespace or a rule. No `before` or `after`: added or removed."""

    what: Literal["member", "namespace", "policy"]
    name: str
    before: CharterSide | None
    after: CharterSide | None


@frozen
class PendingVote:
    """Whose turn it is, and the command with which that member signs. `why` is in English."""

    member: str
    action: str
    why: str
    command: str
    own: bool


@frozen
class ProposalView:
    """An open change. Votes count for the newest round. `objection`: why no honest member signs it, or empty."""

    body: Digest
    epoch: int
    by: str
    text: str
    intents: tuple[str, ...]
    ratified: tuple[str, ...]
    quorum: int
    members: int
    changes: tuple[CharterDifference, ...]
    pending: tuple[PendingVote, ...]
    objection: str


def proposals(membership: Membership, follower: CharterFollower | None) -> list[ProposalView]:
    """The open changes, in the order of the tally."""
    tally = follower.findings.tally if follower else None
    if follower is None or tally is None:
        return []
    own = membership.own_node.inception.id
    pending: dict[Digest, list[PendingVote]] = {}
    for duty in tally.duties:
        verb, both = ("consent", "") if duty.action == CONSENTED else ("approve", " --wait")
        vote = PendingVote(
            member_name(tally.current, duty.member),
            duty.action,
            duty.why,
            f"comity proposal {verb} {duty.body[:12]}{both} --node HOME",
            duty.member == own,
        )
        pending.setdefault(duty.body, []).append(vote)
    return [
        _proposal(tally.current, draft, tuple(pending.get(draft.body.digest, ())))
        for draft in tally.drafts[:MAX_DRAFTS]
    ]


def _proposal(current: Body, draft: DraftState, pending: tuple[PendingVote, ...]) -> ProposalView:
    at = max((*draft.intents, *draft.ratified), default=0)

    def names(votes: Mapping[int, frozenset[Digest]]) -> tuple[str, ...]:
        return tuple(sorted(member_name(current, member) for member in votes.get(at, ())))

    return ProposalView(
        body=draft.body.digest,
        epoch=draft.body.epoch,
        by=member_name(current, draft.by) if draft.by else "",
        text=draft.text,
        intents=names(draft.intents),
        ratified=names(draft.ratified),
        quorum=current.quorum,
        members=len(current.active),
        changes=tuple(islice(differences(current, draft.body), MAX_CHANGES)),
        pending=pending,
        objection=draft.objection or "",
    )


def differences(old: Body, new: Body) -> Iterator[CharterDifference]:
    """What `new` changes: members first, then rules, then namespaces."""
    before = {member.id: _seat(member) for member in old.members}
    after = {member.id: _seat(member) for member in new.members}
    names = {member.id: member.name for member in (*old.members, *new.members)}
    keys = {member.id: member.keys for member in old.members}
    for member in new.members:
        if member.id in keys and member.keys != keys[member.id] and before[member.id] == after[member.id]:
            yield CharterDifference("member", member.name, before[member.id], _seat(member, "new keys"))
    for identity in sorted({*before, *after}, key=lambda identity: names[identity]):
        if before.get(identity) != after.get(identity):
            yield CharterDifference("member", names[identity], before.get(identity), after.get(identity))
    for rule in ("quorum_change", "min_copies", "min_jurisdictions", "min_reaches", "cosigner_quorum"):
        was, will = str(getattr(old.policy, rule)), str(getattr(new.policy, rule))
        if was != will:
            yield CharterDifference("policy", rule, CharterSide(was), CharterSide(will))
    for name in sorted({*old.namespaces, *new.namespaces}):
        bound, binds = old.namespaces.get(name), new.namespaces.get(name)
        if bound != binds:
            yield CharterDifference("namespace", name, _publisher(bound), _publisher(binds))


def _seat(member: Member, *more: str) -> CharterSide:
    return CharterSide(f"{member.name} ({member.jurisdiction})", (member.status, *more))


def _publisher(identity: Digest | None) -> CharterSide | None:
    return CharterSide(identity[:12]) if identity else None


def member_name(body: Body, member: Digest) -> str:
    """The name of a seat with its jurisdiction; the first digits of its id without a seat."""
    seat = body.member(member)
    return f"{seat.name} ({seat.jurisdiction})" if seat else member[:12]
