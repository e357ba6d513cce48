"""Shows a plan, asks for confirmation, signs it, and delivers the signed line. Nothing is signed before its plan is
shown.
"""

from __future__ import annotations

import dataclasses
import textwrap
import time
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from comity.content import durable
from comity.trust.encoding import Digest, printable
from comity.trust.errors import Unavailable
from comity.trust.exit_statuses import PARTIAL
from comity.trust.statement_kinds import INTENT, ROTATED

from comity_cli.charter.context import CharterContext
from comity_cli.charter.rendering import FollowedItem, PendingItem, show_changes, show_following, show_pending
from comity_cli.command import agree, output
from comity_cli.document import document
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.charter.following import Following
    from comity_client.charter.proposals import Plan
    from comity_client.charter.state import CharterMaterial, CharterState, DeliveredLine
    from comity_client.signing.votes import GovernanceKey
    from comity_client.trust_store import CharterChange

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds for which a command that waits for statements of others waits before it asks again."""
FOLLOW_SECONDS = 10.0
"""How long a command waits for nodes to follow what its own vote decided."""
WIDTH = 80
"""Columns of the shown plan."""


@document("ceremony")
class CeremonyDocument:
    """A file for the next signer, as `comity keys sign --json` and other commands that sign write it.

    `missing`: which keys must sign still.
    """

    title: str
    complete: bool
    file: Path
    missing: tuple[str, ...]


@document("signed")
class SignedDocument:
    """A completely signed line, as `comity proposal new --json` and other commands that sign for a member print it.

    `where`: the folder, or the node that has it. `epoch`: of the newest charter that is known here. `next`: what
    members must sign next. `followed`: null if the line decided nothing, or no node was asked.
    """

    title: str
    complete: Literal[True] = field(default=True, kw_only=True)
    predicate: str
    subject: str
    line: Digest
    where: str
    changes: tuple[CharterChange, ...]
    epoch: int
    next: tuple[PendingItem, ...]
    followed: FollowedItem | None = None


def show_plan(plan: Plan) -> None:
    """Show a plan, in words made from the payload itself."""
    out = output()
    out.say(textwrap.fill(printable(plan.title), WIDTH))
    for name, value in (*plan.facts, *([("reason", plan.text)] if plan.text else [])):
        line, value = f"  {name:<18} {printable(value)}", printable(value)
        out.say(line if len(line) <= WIDTH else f"  {name}\n      {value}")
    show_changes(out, plan.changes)
    for warning in plan.warnings:
        out.warn(warning)


def sign_and_deliver(context: CharterContext, plan: Plan, keys: Sequence[GovernanceKey]) -> None:
    """Show `plan`, ask, sign with `keys`, and deliver the line; or write the ceremony file for the next signer."""
    from comity_client.charter import proposals

    show_plan(plan)
    if sum(wanted.count for wanted in plan.ceremony.missing) <= len(keys):
        context.check_destination()
    names = ", ".join(key.path.name for key in keys)
    agree(f"Sign this with {names}?", yes=context.yes)
    signed = proposals.sign_plan_with_all(plan, keys)
    if signed.ceremony.complete:
        deliver(context, signed)
    else:
        write_ceremony(signed)


def write_ceremony(plan: Plan, file: Path | None = None) -> Path:
    """Write the ceremony file, for the next signer, or for delivery if it is complete."""
    from comity.trust.encoding import sha256

    out, ceremony = output(), plan.ceremony
    where = file or Path(f"{ceremony.statement.predicate}-{sha256(ceremony.payload)[:8]}.ceremony.json")
    durable.write_file(where, ceremony.encode(where.name), mode=0o644, point="ceremony")
    needed = [f"{wanted.count} more of the {wanted.role} keys" for wanted in ceremony.missing]
    if needed:
        out.done(f"signed; {' and '.join(needed)} must sign: {where}")
        out.hint(f"give {where} to the next signer: comity keys sign {where} --key THEIR-KEY.pem")
    else:
        out.done(f"completely signed: {where}")
        out.hint(_next_step(plan, where))
    out.answer(CeremonyDocument(plan.title, ceremony.complete, where, tuple(needed)))
    return where


def _next_step(plan: Plan, where: Path) -> str:
    if plan.ceremony.statement.predicate == ROTATED:
        return f"on the node's machine: comity keys rotate --signed {where} --node HOME"
    return f"comity keys sign {where} --node NODE; or --out FOLDER, to write the line to a folder"


def deliver(context: CharterContext, plan: Plan, more: CharterMaterial | None = None) -> None:
    """Write the signed line and `more` to the --out folder, or submit them to the target node; then show the next
    duties."""
    from comity_client.charter.state import CharterMaterial, pending_actions, write_folder

    out, material = output(), plan.material | (more or CharterMaterial())
    if context.out is not None:
        durable.make_folders(context.out)
        write_folder(context.out, material)
        where = str(context.out)
        out.done(f"signed: the line is in {where}")
        out.hint(f"give the folder to another member: comity proposal load {where}")
    else:
        where = _log(context, plan, material)
    after, following = plan.charter_state.adding(material), None
    if after.current.epoch > plan.charter_state.current.epoch:
        following = _show_decision(context, after)
    due = pending_actions(after)
    show_pending(out, due, context.consent_node)
    out.answer(
        SignedDocument(
            title=plan.title,
            predicate=plan.entry.statement.predicate,
            subject=plan.entry.statement.subject,
            line=plan.entry.digest,
            where=where,
            changes=tuple(plan.changes),
            epoch=after.current.epoch,
            next=tuple(map(PendingItem.of, due)),
            followed=FollowedItem.of(following) if following else None,
        )
    )


@document("decision")
class DecisionDocument:
    """A charter that was decided, as `comity proposal approve --wait --json` prints it."""

    body: Digest
    epoch: int
    followed: FollowedItem


def vote_until_decided(
    context: CharterContext, body: Digest, *, asked: bool = False, stalled: bool = False, despite_quorum: bool = False
) -> None:
    """Sign each vote of this member for `body` when it is due, and wait for those of others, until `body` is decided.
    One confirmation is for both votes of a round, which are for the same charter; a further round is asked about again.

    Args:
        asked: the confirmation was given.
        stalled, despite_quorum: as in `vote_plan`; `stalled` for the first vote only.
    """
    from comity_client.charter import proposals

    _check_waits(context)
    out, waiting, signed_intent = output(), WaitForSigners(), False
    while True:
        now = dataclasses.replace(context)  # reads the statements again
        try:
            state = now.charter_state
        except Unavailable as error:
            waiting.on(str(error))
            continue
        epoch = next((each.body.epoch for each in state.tally.epochs if each.body.digest == body), None)
        if epoch is not None:
            following = now.governance.following(state)
            if following.ahead:
                waiting.on(f"{len(following.members)} of {following.needed} members' nodes follow epoch {epoch} so far")
                continue
            _say_decided(epoch, following)
            out.answer(DecisionDocument(body, epoch, FollowedItem.of(following)))
            return
        keys, draft = now.governance_keys, state.draft(body).body
        plan = proposals.vote_plan(state, keys[0], draft, stalled=stalled, despite_quorum=despite_quorum)
        if isinstance(plan, proposals.NothingToSign):
            waiting.on(plan.why)
            continue
        show_plan(plan)
        intent = plan.ceremony.statement.predicate == INTENT
        if not asked or (intent and signed_intent):  # a person decides about each further round
            agree("Sign INTENT now, and RATIFY as soon as a quorum has signed INTENT for this charter?", yes=now.yes)
        signed = proposals.sign_plan_with_all(plan, keys)
        if not signed.ceremony.complete:
            write_ceremony(signed)
            return
        _log(now, signed, signed.material)
        asked, stalled, signed_intent = True, False, signed_intent or intent


def _check_waits(context: CharterContext) -> None:
    """Raises click.UsageError without nodes to wait for."""
    if context.offline or context.out is not None:
        raise click.UsageError("--wait asks nodes: leave out --offline and --out")


@dataclasses.dataclass
class WaitForSigners:
    """Waits for what others sign: says once for what, and looks again after longer and longer pauses, because each look
    asks all nodes for all votes."""

    told: str = ""
    pause: float = FIRST_PAUSE

    def on(self, why: str) -> None:
        """Say what is waited for, unless it was said last, and rest."""
        changed = why != self.told
        if changed:
            output().say(f"Waiting: {why}")
        self.told = why
        self.rest(changed=changed)

    def rest(self, *, changed: bool) -> None:
        """Wait a little; longer each time while nothing has `changed`."""
        self.pause = FIRST_PAUSE if changed else min(self.pause * 1.5, LONGEST_PAUSE)
        time.sleep(self.pause)


def propose_and_vote(context: CharterContext, plan: Plan, keys: Sequence[GovernanceKey], despite_quorum: bool) -> None:
    """Sign a draft, and vote for it until it is decided. One confirmation is for all. If several keys must sign, it
    writes the ceremony file of the draft only."""
    from comity_client.charter import proposals

    _check_waits(context)
    show_plan(plan)
    context.check_destination()
    agree("Propose this, sign INTENT for it, and RATIFY as soon as a quorum has signed INTENT?", yes=context.yes)
    signed = proposals.sign_plan_with_all(plan, keys)
    if not signed.ceremony.complete:
        write_ceremony(signed)
        return
    _log(context, signed, signed.material)
    body = signed.entry.statement.subject
    output().hint(f"the other members type: comity proposal approve {body[:12]} --wait --node HOME")
    vote_until_decided(context, body, asked=True, despite_quorum=despite_quorum)


def _show_decision(context: CharterContext, after: CharterState) -> Following | None:
    """Say whether the nodes of a quorum follow what this machine computed, for which it waits a few seconds; None if no
    node was asked."""
    out, epoch = output(), after.current.epoch
    if context.offline or context.out is not None:
        out.done(f"decided, by the votes known here: the charter of epoch {epoch}")
        out.hint("comity proposal ls   shows whether the nodes follow it: each does when it has read these votes")
        return None
    governance, end = context.governance, time.monotonic() + FOLLOW_SECONDS
    with out.waiting("waiting for the members' nodes to follow"):
        while (found := governance.following(after)).ahead and time.monotonic() < end:
            time.sleep(0.5)
            after = governance.charter_state(*context.carried)
    if not found.ahead:
        _say_decided(epoch, found)
    else:
        show_following(out, found, governance.lacked(after), context.deliver_command)
    return found


def _say_decided(epoch: int, found: Following) -> None:
    follow = plural(len(found.members), "member")
    output().done(f"decided: the charter of epoch {epoch}; the nodes of {follow} follow it")


def _log(context: CharterContext, plan: Plan, material: CharterMaterial) -> str:
    """Have the target node log `material`; what a newcomer signed also nodes of members, which read no newcomer's log.
    Returns the target."""
    where = context.target
    report(context.governance.deliver(material, where), where)
    by = plan.entry.statement.by
    if context.to or by is None or plan.charter_state.current.member(by.id) is not None:
        return where
    told = context.governance.deliver_to_members(material)
    for node, delivered in told.items():
        report(delivered, node)
    if not told:
        out = output()
        out.warn("no node of a member took it: until one has it, nobody but you knows that you signed")
        out.hint(f"say it again there: the same command with --node {context.consent_node}")
    return where


def report(delivered: Sequence[DeliveredLine], where: str) -> None:
    """Show what a node accepted. Raises the first refusal, with exit status 8 if other lines were accepted."""
    out = output()
    refused = [item.refusal for item in delivered if item.refusal is not None]
    accepted = len(delivered) - len(refused)
    for refusal in refused:
        out.warn(f"refused: {refusal}")
    if refused:
        refused[0].exit_status = PARTIAL if accepted else refused[0].exit_status
        raise refused[0]
    out.done(f"{plural(accepted, 'line')} logged at {where}")
