"""Governance for the node's operators: where it stands, whose turn it is, and how old what is known of others is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from comity.node.core import Core
from comity.node.governance.chamber import Chamber
from comity.trust.charter import Body, Council, DraftState
from comity.trust.digest import Digest, short
from comity.wire.values import DraftStatus, DutyStatus, ForkStatus, GovernanceStatus, LogStatus, MemberStatus

STALE: Final = 24 * 3600
"""Seconds after which a member's newest head counts as old. Nothing follows from it but a word to the operator."""


def report(core: Core, chamber: Chamber, logs: Mapping[str, LogStatus], asks: int) -> GovernanceStatus:
    """Args: logs: what is held of each log, by origin."""
    body, outlook = chamber.annals.newest, chamber.outlook
    council = outlook.council
    return GovernanceStatus(
        federation=body.federation,
        epoch=body.epoch,
        body=body.digest,
        stopped=outlook.stopped,
        round=council.round if council else 1,
        drafts=tuple(_draft(body, draft) for draft in council.drafts) if council else (),
        duties=tuple(_duties(core, body, council)) if council else (),
        forks=tuple(
            ForkStatus(fork.first.body.epoch, fork.first.body.digest, fork.second.body.digest, fork.retired)
            for fork in outlook.forks
        ),
        liars=tuple(dict.fromkeys(_name(body, lie.member) for lie in outlook.lies)),
        asks=asks,
        members=tuple(_members(core, chamber, logs)),
        crowded=tuple(log.partition("+")[0] for log in chamber.proceedings.full(body.digest)),
    )


def warnings(status: GovernanceStatus, now: float) -> Iterator[str]:
    """What an operator should look at, most pressing first."""
    for fork in status.forks:
        first, second = short(fork.first), short(fork.second)
        if fork.retired:
            yield f"epoch {fork.epoch} has a second certificate, {second}, made with retired keys: it changes nothing"
        else:
            yield (
                f"FORK: epoch {fork.epoch} was certified twice, as {first} and {second}; no epoch is taken up until "
                "people decide and [federation] branch in node.toml names one"
            )
    for name in status.liars:
        yield f"{name} has signed what excludes one another: comity log misbehaviour shows the proof"
    for duty in status.duties:
        if duty.own:
            yield f"waiting for this member: {duty.why}"
    if status.asks:
        yield f"{status.asks} ask to be admitted" if status.asks > 1 else "somebody asks to be admitted"
    for log in status.crowded:
        yield f"{log} says more about the next charter than is kept of one log"
    for member in status.members:
        if member.heard and now - member.heard > STALE:
            yield f"{member.name}: its newest head is {int((now - member.heard) // 3600)} h old"


def _draft(body: Body, draft: DraftState) -> DraftStatus:
    at = max((*draft.intents, *draft.ratified), default=0)
    return DraftStatus(
        body=draft.body.digest,
        by=_name(body, draft.by) if draft.by else "",
        text=draft.text,
        intents=len(draft.intents.get(at, ())),
        ratified=len(draft.ratified.get(at, ())),
        quorum=body.quorum,
        missing=tuple(seat.name for seat in draft.missing),
        objection=draft.objection or "",
    )


def _duties(core: Core, body: Body, council: Council) -> Iterator[DutyStatus]:
    for duty in council.duties:
        draft = council.draft(duty.body)
        seat = body.member(duty.member) or (draft.body.member(duty.member) if draft else None)
        own = duty.member == core.seat.inception.id
        name = seat.name if seat else duty.member[:12]
        yield DutyStatus(name, duty.action, duty.body, duty.round, duty.why, own)


def _members(core: Core, chamber: Chamber, logs: Mapping[str, LogStatus]) -> Iterator[MemberStatus]:
    epochs = {digest: epoch for epoch, digest in enumerate(chamber.annals.digests)}
    for seat in core.membership.others:
        nodes = core.membership.nodes_of(seat.id)
        said = [chamber.adopted.get(str(node.record.log)) for node in nodes]
        heard = [logs[node.origin].checkpoint_time for node in nodes if node.origin in logs]
        known = [epochs[body] for body in said if body in epochs]
        yield MemberStatus(seat.name, max(known, default=None), max(heard, default=0))


def _name(body: Body, member: Digest) -> str:
    seat = body.member(member)
    return seat.name if seat else member[:12]
