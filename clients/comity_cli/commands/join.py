"""`comity join`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from comity.content import durable
from comity.federation_file import Federation, read_federation
from comity.trust.encoding import Digest, syllables
from comity.trust.errors import ComityError, Unavailable
from comity.trust.frozen import frozen

from comity_cli.charter.context import CharterContext
from comity_cli.charter.rendering import FollowedItem, LackedItem, compare_words, show_changes, show_following
from comity_cli.command import Command, agree, client, examples, output
from comity_cli.document import ABSENT, Absent, document
from comity_cli.files import FILE
from comity_cli.nodes import home_option
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity_client.charter.joining import AdmissionDraft
    from comity_client.charter.state import CharterMaterial, CharterState
    from comity_client.node_card import NodeCard


@frozen
class AdmissionItem:
    """A draft that would admit the applicant, and its votes in the newest round."""

    body: Digest
    by: str
    consented: bool
    intents: int
    ratified: int
    quorum: int


@document("join")
class JoinDocument:
    """State of a membership, as `comity join --json` prints it.

    `decided`: votes that are known here admit the member, and the nodes of a quorum do not follow them yet. `epoch`
    with the states `member`, `left` and `decided`; `pinned_epoch` with `member`; `followed` and `lacked` with
    `decided`; `waiting_at` and `drafts` with `asked`.
    """

    member: Digest
    state: Literal["member", "left", "asked", "decided"]
    epoch: int | Absent = ABSENT
    pinned_epoch: int | Absent = ABSENT
    waiting_at: tuple[str, ...] | Absent = ABSENT
    drafts: tuple[AdmissionItem, ...] | Absent = ABSENT
    followed: FollowedItem | Absent = ABSENT
    lacked: tuple[LackedItem, ...] | Absent = ABSENT


@examples(
    "comity join federation.json --node node-es",
    "comity join federation.json --node node-es --words 'babad-cadef-…'",
    "comity join federation.json --node node-es --wait",
    "comity join --node node-es",
)
@click.command(cls=Command, name="join", short_help="Ask a federation to admit your member.")
@click.argument("file", type=FILE, required=False)
@home_option("Your node, by the home that `comity init` made. Default: here.")
@click.option(
    "--words", help="The federation's words, as two members read them to you; the command fails unless they match."
)
@click.option("--yes", is_flag=True, help="Pin, ask, and with --wait consent, without confirmation.")
@click.option("--wait", is_flag=True, help="Stay until your member is admitted, and sign its consent when it is due.")
@click.option("--federation", default="", metavar="ID", help="Which pinned federation, where there are several.")
def command(file: Path | None, home: Path, words: str | None, yes: bool, wait: bool, federation: str) -> None:
    """Ask a federation to admit your member, and show the progress. Run it again at any time to see what is missing;
    with --wait it stays, and asks you to sign your consent when a member has drafted a charter with your seat.

    Once the charter has your member, and certificates lead there from the charter that you pinned, it moves your pin.

    FILE is the federation file. Get it from two members through separate channels and compare the words. Reading,
    mirroring and verifying need no membership.
    """
    from comity_client.charter.joining import card_of

    from comity_cli.charter.signing import WaitForSigners

    out, card = output(), card_of(home)
    if file is not None:
        federation = _pin(out, file, words, yes=yes)
    context = CharterContext(federation=federation, home=home, yes=yes)
    _store_federation_file(home, context.governance.federation)
    shown = _progress(out, context, card)
    consents: dict[Digest, CharterMaterial] = {}
    waiting, before = WaitForSigners(), shown
    while wait and shown.state in ("asked", "decided"):
        waiting.rest(changed=shown != before)
        before, context = shown, CharterContext(federation=federation, home=home, yes=yes)
        with contextlib.suppress(Unavailable):  # the nodes answer again later, and are asked again
            if not _consent(out, context, card, consents):
                shown = _progress(out, context, card, before=shown)
    out.answer(shown)


def _progress(out: Output, context: CharterContext, card: NodeCard, before: JoinDocument | None = None) -> JoinDocument:
    """Deliver what members' nodes lack, ask to be admitted, and say where the admission is.

    Args:
        before: what was said last; the same is not said again.
    """
    who, own, home = card.inception, context.own_material, context.home
    charter_state = context.charter_state.adding(own) if own.lines else context.charter_state
    charter_state = _deliver_own(out, context, charter_state, own, told=before is not None)
    following = context.governance.following(charter_state)
    seat, epoch = charter_state.current.member(who.id), charter_state.current.epoch
    if seat is not None and following.followed.member(who.id) is None:
        lacked = context.governance.lacked(charter_state, own)
        items = tuple(map(LackedItem.of, lacked))
        made = JoinDocument(who.id, "decided", epoch, followed=FollowedItem.of(following), lacked=items)
        if made != before:
            out.say(f"Votes that are known here admit {seat.name} ({seat.jurisdiction}), as epoch {epoch}.")
            show_following(out, following, lacked, context.deliver_command)
        return made
    if seat is not None:
        out.done(f"{seat.name} ({seat.jurisdiction}) is a member, by the charter of epoch {epoch}")
        pinned = _advance_pin(out, context, charter_state)
        out.hint(f"comity serve --node {home}   then   comity status")
        if epoch > pinned:
            out.hint(f"comity trust pin   takes up epoch {epoch}, with your node; your pin is of epoch {pinned}")
        return JoinDocument(who.id, "member", epoch, pinned)
    left = _left_epoch(context.governance.federation, charter_state, who.id)
    if left is not None and before is None:
        out.say(f"{who.label} ({who.jurisdiction}) was a member up to epoch {left - 1}; the charter of epoch {left} "
                "does not list it any more.")  # fmt: skip
        if out.as_json and not context.yes:
            return JoinDocument(who.id, "left", left)
        agree("Ask to be admitted again?", yes=context.yes)
    return _asked(out, context, card, charter_state, before)


def _asked(
    out: Output, context: CharterContext, card: NodeCard, charter_state: CharterState, before: JoinDocument | None
) -> JoinDocument:
    """Send the request, which nodes keep once, and say which drafts would admit the member."""
    from comity_client.charter.joining import admission_drafts

    who, home = card.inception, context.home
    asked = None if before is not None else context.governance.ask(home)
    found = admission_drafts(charter_state, who.id)
    waiting_at = tuple(name for name, _ in asked.waiting) if asked else _given(before)
    items = tuple(AdmissionItem(h.body, h.by, h.consented, h.intents, h.ratified, h.quorum) for h in found)
    made = JoinDocument(who.id, "asked", waiting_at=waiting_at, drafts=items)
    if before is not None and before.drafts == made.drafts:
        return made
    if asked is not None:
        out.done(f"request of {who.label} ({who.jurisdiction}) waits at {', '.join(waiting_at)}")
        for name, refusal in asked.refused:
            out.warn(f"{name}: {refusal}")
    for draft in found:
        _show(out, draft, home, context.consent_node)
    if not found:
        out.say(f"  No member has drafted a charter with you yet. It needs {charter_state.current.quorum} of "
                f"{plural(len(charter_state.current.active), 'member')}, in two rounds.")  # fmt: skip
        out.fact("read out", f"{syllables(who.id)}   to two of them, by phone")
        out.hint(f"send to one of them: comity proposal new admit {who.id[:12]} --text WHY --wait --node HOME")
        out.hint(f"comity serve --node {home}   to mirror from now on;   comity join --node {home}   to look again")
    return made


def _given(before: JoinDocument | None) -> tuple[str, ...]:
    """The nodes at which the request waits, by what was said last."""
    return before.waiting_at if before is not None and isinstance(before.waiting_at, tuple) else ()


def _consent(out: Output, context: CharterContext, card: NodeCard, consents: dict[Digest, CharterMaterial]) -> bool:
    """Show each draft that lacks the newcomer's consent, sign it if the person agrees, and deliver the line to members'
    nodes. Returns whether something was delivered.

    Args:
        consents: what was signed before, by body; it is delivered again, and not signed again.
    """
    from comity_client.charter import proposals
    from comity_client.charter.joining import admission_drafts
    from comity_client.charter.state import CharterMaterial

    from comity_cli.charter.signing import report, show_plan, write_ceremony

    state, told = context.charter_state.adding(CharterMaterial.of(card.lines)), False
    for each in admission_drafts(state, card.inception.id):
        if each.consented:
            continue
        if each.body not in consents:
            plan = proposals.consent_plan(state, state.draft(each.body).body, card.inception.id)
            show_plan(plan)
            agree("Sign this consent with the governance keys of your member?", yes=context.yes)
            signed = proposals.sign_plan_with_all(plan, context.governance_keys)
            if not signed.ceremony.complete:  # other signers go on, and deliver it
                write_ceremony(signed)
            consents[each.body] = signed.material if signed.ceremony.complete else CharterMaterial()
        if consents[each.body].lines:
            for node, delivered in context.governance.deliver_to_members(consents[each.body]).items():
                report(delivered, node)
                told = True
    return told


def _deliver_own(
    out: Output, context: CharterContext, charter_state: CharterState, own: CharterMaterial, *, told: bool
) -> CharterState:
    """Have members' nodes log what the newcomer signed, if none of them shows it. Returns the charter state of now.

    Args:
        told: it was said before; a node shows a line some seconds after it logged it.
    """
    lacked = context.governance.lacked(charter_state, own)
    if not any(line.stuck for line in lacked):
        return charter_state
    results = context.governance.deliver_lacked(charter_state, lacked)
    for node, lines in results.items():
        if (accepted := sum(line.index is not None for line in lines)) and not told:
            out.done(
                f"{node} lacked {plural(accepted, 'line')} of yours, and has {'it' if accepted == 1 else 'them'} now"
            )
    return context.governance.charter_state().adding(own) if results else charter_state


def _advance_pin(out: Output, context: CharterContext, charter_state: CharterState) -> int:
    """Move the pin to the charter that has the member, if certificates lead there from the pinned one. Returns the
    pinned epoch; where a fork is open, or a step is not proven, the pin stays: the owner decides."""
    governance = context.governance
    pinned = governance.federation.body.epoch
    ahead = governance.following(charter_state).ahead
    if charter_state.current.epoch <= pinned or charter_state.tally.stopped or ahead:
        return pinned
    try:
        newest = governance.newest_federation(charter_state)
        found = client().diff(newest)
        if found.relation != "forward":
            return pinned
        moved = client().pin(newest).federation.body.epoch
    except ComityError as error:
        out.warn(f"the pin was not moved: {error}")
        return pinned
    out.say(f"Your pin was of epoch {pinned}. Certificates of its members lead to epoch {moved}:")
    show_changes(out, found.changes)
    out.done(f"pinned charter of epoch {moved}, body sha256:{found.new}")
    return moved


def _left_epoch(federation: Federation, charter_state: CharterState, member: Digest) -> int | None:
    """The epoch in which a former member was left out; None if it never was a member."""
    bodies = (*federation.chain, *(certificate.body for certificate in charter_state.tally.epochs))
    seated = [body.epoch for body in bodies if body.member(member) is not None]
    return max(seated) + 1 if seated else None


def _show(out: Output, draft: AdmissionDraft, home: Path, node: str) -> None:
    """Args: node: a member's node, which logs what a newcomer signs."""
    out.fact("draft", f"{draft.body[:12]} by {draft.by or 'a member'}: {draft.intents} of {draft.quorum} INTENT votes, "
                      f"{draft.ratified} of {draft.quorum} RATIFY votes")  # fmt: skip
    if not draft.consented:
        out.hint(f"your consent is missing: comity proposal consent {draft.body[:12]} --node {home} --node {node}")


def _pin(out: Output, file: Path, words: str | None, *, yes: bool) -> str:
    """Pin the federation in `file` if it is not pinned yet, after its words were compared. Returns its id."""
    federation = read_federation(file)
    compare_words(words, federation.id)
    spoken = syllables(federation.id)
    api = client()
    if all(pin.id != federation.id for pin in api.pins()):
        body = federation.body
        out.say(f"Federation {spoken}: epoch {body.epoch}, {plural(len(body.members), 'member')}")
        out.table(("member", "jur", "on the phone"), [(m.name, m.jurisdiction, syllables(m.id)) for m in body.members])
        agree("Are these the words that two members read to you? Pin it?", yes=yes or words is not None)
        api.pin(federation)
    return federation.id


def _store_federation_file(home: Path, federation: Federation) -> None:
    """Write the federation file into the home of a node that has none."""
    target = home / "federation.json"
    if not target.exists():
        durable.write_pieces(target, federation.encoded(), mode=0o644, point="home")
