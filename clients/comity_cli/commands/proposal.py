"""`comity proposal`: draft changes of the charter, vote on them, and show the tally."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from comity.trust.charter.document import Body, CharterPolicy
from comity.trust.encoding import short
from comity.trust.exit_statuses import PARTIAL
from comity.trust.names import parse_id

from comity_cli.charter.context import CharterContext, reading_options, signing_options
from comity_cli.charter.rendering import LackedItem
from comity_cli.command import Group, examples, output
from comity_cli.document import document
from comity_cli.files import FOLDER, NEW_FOLDER
from comity_cli.nodes import home_option, member_node_options
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity.trust.node_records import NodeRecord
    from comity_client.charter.state import CharterMaterial, CharterState
    from comity_client.node_card import NodeCard


@document("export")
class ProposalExportDocument:
    """How many new files a folder got, as `comity proposal export --json` prints it."""

    folder: Path
    files: int


@document("load")
class ProposalLoadDocument:
    """How many lines a node got, as `comity proposal load --json` prints it."""

    node: str
    lines: int


@document("delivered")
class DeliveredDocument:
    """How many lines each node got, as `comity proposal deliver --json` prints it. `lacked`: those that no member's
    node has.
    """

    lines: Mapping[str, int]
    lacked: tuple[LackedItem, ...]


@document("signed")
class NothingSignedDocument:
    """Why nothing is to be signed now, as `comity proposal approve --json` prints it."""

    complete: Literal[False] = field(default=False, kw_only=True)
    why: str


CHANGES: Final[Mapping[str, str]] = {
    "admit": "CARD",
    "succeed": "MEMBER CARD",
    "remove": "MEMBER",
    "rekey": "MEMBER",
    "observer": "MEMBER",
    "active": "MEMBER",
    "policy": "NAME=VALUE…",
    "namespace": "NAME=ID…",
}
"""Kinds of change, each with its arguments."""
MAX_DIGITS: Final = 9
"""Limit of digits of a policy value."""


def build_draft(
    kind: str,
    arguments: tuple[str, ...],
    charter_state: CharterState,
    card_named: Callable[[str], NodeCard],
    nodes: Collection[NodeRecord] = (),
) -> tuple[Body, CharterMaterial]:
    """The new body, and the statements about newcomers that others need to verify it.

    Args:
        kind: one of `CHANGES`.
        card_named: finds the card of a newcomer.
        nodes: the known nodes of the members.

    Raises click.UsageError for invalid arguments, and as `CharterState.member`, `card_named`, `check_newcomer` and
    `comity_client.charter.drafts` do.
    """
    from comity_client.charter import drafts
    from comity_client.charter.state import CharterMaterial
    from comity_client.node_card import check_newcomer, check_node_name

    current = charter_state.current
    match kind, arguments:
        case "admit", [name]:
            card = card_named(name)
            check_newcomer(card, nodes)
            return drafts.draft_admission(current, card.member), CharterMaterial.of(card.lines)
        case "succeed", [member, name]:
            card, old = card_named(name), charter_state.member(member)
            check_node_name(card, [record for record in nodes if record.member != old.id])
            return drafts.draft_succession(current, old, card.member), CharterMaterial.of(card.lines)
        case "remove", [member]:
            body = drafts.draft_removal(current, charter_state.member(member).id)
        case "rekey", [member]:
            body = drafts.draft_rekeying(current, charter_state.chain(charter_state.member(member).id).current)
        case "observer" | "active", [member]:
            body = drafts.draft_status(current, charter_state.member(member).id, kind)
        case "policy", _:
            body = drafts.draft_policy_change(current, dataclasses.replace(current.policy, **_policy_values(arguments)))
        case "namespace", _:
            body = drafts.draft_namespaces(current, {name: parse_id(id_) for name, id_ in _pairs(arguments).items()})
        case _:
            raise click.UsageError(f"write: comity proposal new {kind} {CHANGES[kind]}")
    return body, CharterMaterial()


def _policy_values(arguments: Iterable[str]) -> dict[str, int]:
    known, given = [field.name for field in dataclasses.fields(CharterPolicy)], _pairs(arguments)
    for name, value in given.items():
        if name not in known or not value.isdecimal() or len(value) > MAX_DIGITS:
            raise click.UsageError(f"{name}={value[:40]}: write a number for one of {', '.join(known)}")
    return {name: int(value) for name, value in given.items()}


def _pairs(arguments: Iterable[str]) -> dict[str, str]:
    found = dict[str, str]()
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator:
            raise click.UsageError(f"{argument[:80]!r}: write NAME=VALUE")
        if name in found:
            raise click.UsageError(f"{name} is given twice")
        found[name] = value
    return found


@examples(
    "comity proposal ls",
    "comity proposal new admit node-card.json --text 'BSC mirrors what we publish' --node node-ch",
    "comity proposal approve 9f2c41aa --node node-ch",
)
@click.group(cls=Group, name="proposal", short_help="Change the charter: draft, approve, follow.")
def command() -> None:
    """Change the charter. A draft becomes the next charter when a quorum votes for it twice: INTENT, then RATIFY.

    Each step shows its plan before anything is signed, and prints the next command.
    """


@examples("comity proposal ls", "comity proposal ls --decided", "comity proposal ls --offline --from /media/stick")
@command.command("ls", short_help="List open drafts, and the votes that are due; or what was decided.")
@click.option("--decided", is_flag=True, help="List the decided epochs instead: changes, votes by name, and dates.")
@reading_options
def ls(decided: bool, **options: Any) -> None:
    """List the open drafts, the number of votes, and the next action of each member. The tally is computed here from
    statements that members signed; no node is trusted for it. Statements have no time: a decision is dated by the
    clocks of the members that cosigned the log of a node that follows it."""
    from comity_client.charter.state import pending_actions

    from comity_cli.charter import rendering

    out, context = output(), CharterContext(**options)
    charter_state = context.charter_state
    rendering.show_alarms(out, charter_state)
    rendering.show_current(out, charter_state)
    if decided:
        past = context.governance.past_epochs(charter_state, offline=context.offline)
        rendering.show_past(out, past)
        items = tuple(map(rendering.EpochItem.of, past))
        out.answer(rendering.EpochsDocument(rendering.CharterItem.of(charter_state.current), items))
        return
    rendering.show_drafts(out, charter_state)
    if charter_state.current.epoch and not charter_state.tally.drafts:
        out.hint("comity proposal ls --decided   lists what was decided, when, and by whose votes")
    due = pending_actions(charter_state)
    rendering.show_pending(out, due, context.consent_node)
    following = None if context.offline else context.governance.following(charter_state)
    lacked = [] if following is None else context.governance.lacked(charter_state)
    if following is not None:
        rendering.show_following(out, following, lacked, context.deliver_command)
    out.answer(
        rendering.ProposalsDocument(
            rendering.CharterItem.of(charter_state.current),
            tuple(rendering.DraftItem.of(charter_state, draft) for draft in charter_state.tally.drafts),
            tuple(map(rendering.PendingItem.of, due)),
            rendering.FollowedItem.of(following) if following else None,
            tuple(map(rendering.LackedItem.of, lacked)),
            rendering.AlarmsItem.of(charter_state),
        )
    )


@examples("comity proposal show 9f2c41aa", "comity proposal show 9f2c41aa --json")
@command.command("show", short_help="Show the changes of a draft, and its votes.")
@click.argument("draft")
@reading_options
def show(draft: str, **options: Any) -> None:
    """Show a draft: every change, the votes of each round, and the next action of each member."""
    from comity_client.charter.state import pending_actions

    from comity_cli.charter import rendering

    out, context = output(), CharterContext(**options)
    charter_state = context.charter_state
    found = charter_state.draft(draft)
    rendering.show_alarms(out, charter_state)
    rendering.show_draft(out, charter_state, found)
    due = [pending for pending in pending_actions(charter_state) if pending.body == found.body.digest]
    rendering.show_pending(out, due, context.consent_node)
    next_ = tuple(map(rendering.PendingItem.of, due))
    out.answer(rendering.ProposalDocument(rendering.DraftItem.of(charter_state, found), next_))


@examples(
    "comity proposal new admit node-card.json --node node-ch --text 'they asked us on 3 May'",
    "comity proposal new remove BSC --node node-ch --text 'it asked to leave'",
    "comity proposal new policy min_copies=4 --node node-ch",
)
@command.command("new", short_help="Propose a change of the charter.")
@click.argument("kind", type=click.Choice(tuple(CHANGES)), metavar="KIND")
@click.argument("what", nargs=-1, required=True)
@click.option("--text", default="", help="Reason. Public.")
@click.option(
    "--despite-quorum", is_flag=True, help="Sign even if the members seen active are too few for the next quorum."
)
@click.option("--wait", is_flag=True, help="Sign every vote that is due, and wait for the others until it is decided.")
@signing_options
def new(kind: str, what: tuple[str, ...], text: str, despite_quorum: bool, wait: bool, **options: Any) -> None:
    """Draft the next charter and propose it.

    \b
    admit CARD              give a seat to the owner of a node card, or of a
                            request to join (its id)
    succeed MEMBER CARD     replace a seat whose keys are lost by a new one
    remove MEMBER           remove a seat; the member keeps its data
    rekey MEMBER            list the member's newest keys, after its own rotations
    observer|active MEMBER  take away, or give, a vote
    policy NAME=VALUE…      quorum_change, min_copies, min_jurisdictions,
                            min_reaches, cosigner_quorum
    namespace NAME=ID…      bind a namespace to a publisher, permanently
    """
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import propose_and_vote, sign_and_deliver

    context = CharterContext(**options)
    body, more = build_draft(kind, what, context.charter_state, context.card, context.nodes)
    plan = acts.propose_plan(
        context.charter_state.adding(more), context.governance_keys[0].public, body, text, despite_quorum=despite_quorum
    )
    if wait:
        propose_and_vote(context, plan, context.governance_keys, despite_quorum)
    else:
        sign_and_deliver(context, plan, context.governance_keys)


@examples(
    "comity proposal approve 9f2c41aa --node node-ch",
    "comity proposal approve 9f2c41aa --wait --node node-ch",
    "comity proposal approve 9f2c41aa --stalled --node node-ch",
)
@command.command("approve", short_help="Sign your member's next vote on a draft.")
@click.argument("draft")
@click.option("--stalled", is_flag=True, help="Do not wait for members that have not voted in this round.")
@click.option(
    "--despite-quorum", is_flag=True, help="Sign even if the members seen active are too few for the next quorum."
)
@click.option("--wait", is_flag=True, help="Sign every vote that is due, and wait for the others until it is decided.")
@signing_options
def approve(draft: str, stalled: bool, despite_quorum: bool, wait: bool, **options: Any) -> None:
    """Sign the vote that is due: INTENT first, RATIFY after a quorum of INTENT votes. Run it again for the next vote;
    with --wait it signs both, and waits in between. It can be interrupted, and goes on where it was.

    The vote file beside the key records its votes and is checked first, so that the key never signs conflicting votes.
    """
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import sign_and_deliver, vote_until_decided

    context = CharterContext(**options)
    charter_state = context.charter_state
    body, key = charter_state.draft(draft).body, context.governance_keys[0]
    if wait:
        vote_until_decided(context, body.digest, stalled=stalled, despite_quorum=despite_quorum)
        return
    plan = acts.vote_plan(charter_state, key, body, stalled=stalled, despite_quorum=despite_quorum)
    if isinstance(plan, acts.NothingToSign):
        out = output()
        out.say(f"Nothing to sign now: {plan.why}")
        out.answer(NothingSignedDocument(plan.why))
        out.hint(f"comity proposal show {short(body.digest)}")
    else:
        sign_and_deliver(context, plan, context.governance_keys)


@examples(
    "comity proposal withdraw 9f2c41aa --node node-ch",
    "comity proposal withdraw 9f2c41aa --node node-ch --text 'the keys were not rotated yet'",
)
@command.command("withdraw", short_help="Propose a draft no longer.")
@click.argument("draft")
@click.option("--text", default="", help="Reason. Public.")
@signing_options
def withdraw(draft: str, text: str, **options: Any) -> None:
    """State that your member no longer proposes a draft. Nobody is asked to vote for a draft that all its proposers
    withdrew. Votes that were signed for it stay valid, so a quorum of them can still decide it."""
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import sign_and_deliver

    context = CharterContext(**options)
    body = context.charter_state.draft(draft).body
    plan = acts.withdraw_plan(context.charter_state, context.governance_keys[0].public, body, text)
    sign_and_deliver(context, plan, context.governance_keys)


@examples("comity proposal consent 9f2c41aa --node node-es --node node-ch.example")
@command.command("consent", short_help="Consent to your seat in a draft.")
@click.argument("draft")
@signing_options
def consent(draft: str, **options: Any) -> None:
    """Consent to your seat in a draft, with all your keys. A newcomer must do this before a charter can admit it."""
    from comity_client.charter import proposals as acts
    from comity_client.charter.joining import card_of
    from comity_client.charter.state import CharterMaterial

    from comity_cli.charter.signing import sign_and_deliver

    context = CharterContext(**options)
    card = card_of(context.home)
    charter_state = context.charter_state.adding(CharterMaterial.of(card.lines))
    plan = acts.consent_plan(charter_state, charter_state.draft(draft).body, card.inception.id)
    sign_and_deliver(context, plan, context.governance_keys)


@examples("comity proposal rebase 9f2c41aa --node node-ch")
@command.command("rebase", short_help="Propose a superseded draft again on the current charter.")
@click.argument("draft")
@click.option("--text", default="", help="Reason. Public.")
@click.option(
    "--despite-quorum", is_flag=True, help="Sign even if the members seen active are too few for the next quorum."
)
@signing_options
def rebase(draft: str, text: str, despite_quorum: bool, **options: Any) -> None:
    """Take the changes of a draft of an earlier epoch, and propose them on the current charter. Fails (REBASE) if both
    changed the same thing: then a person decides."""
    from comity_client.charter import proposals as acts
    from comity_client.charter.drafts import rebase_draft

    from comity_cli.charter.signing import sign_and_deliver

    context = CharterContext(**options)
    charter_state = context.charter_state
    if not context.offline:
        charter_state = charter_state.adding(context.governance.past_material(charter_state))
    lost, before = charter_state.superseded(draft)
    body = rebase_draft(lost, before, charter_state.current)
    plan = acts.propose_plan(
        charter_state, context.governance_keys[0].public, body, text, despite_quorum=despite_quorum
    )
    sign_and_deliver(context, plan, context.governance_keys)


@examples("comity proposal export /media/stick")
@command.command("export", short_help="Write the open drafts and votes into a folder, to be carried.")
@click.argument("folder", type=NEW_FOLDER)
@reading_options
def export(folder: Path, **options: Any) -> None:
    """Write every line and body about the current charter into FOLDER, for a machine without a network."""
    from comity.content import durable
    from comity_client.charter.state import write_folder

    durable.make_folders(folder)
    count = write_folder(folder, CharterContext(**options).charter_state.material)
    output().done(f"{plural(count, 'new file')} in {folder}")
    output().answer(ProposalExportDocument(folder, count))
    output().hint(f"on the other machine: comity proposal ls --offline --from {folder}")


@examples("comity proposal deliver", "comity proposal deliver --node node-es")
@command.command("deliver", short_help="Log what members' nodes lack, where it is taken.")
@home_option("Your node, by its home: also what it has. Default: here.")
@click.option("--from", "carried", multiple=True, type=FOLDER, help="A folder with exported lines.")
@click.option("--federation", default="", metavar="ID", help="Which pinned federation, where there are several.")
def deliver(home: Path, carried: tuple[Path, ...], federation: str) -> int:
    """Log at members' nodes the votes and consents that are known here and that they lack. Signs nothing; running it
    twice is safe.

    Exit status: 8 if members' nodes still lack a line, because nobody that takes it answered."""
    from comity_cli.charter import rendering

    out, context = output(), CharterContext(federation=federation, carried=carried, home=home)
    own = context.own_material
    charter_state = context.charter_state.adding(own)
    results = context.governance.deliver_lacked(charter_state, context.governance.lacked(charter_state, own))
    for node, lines in results.items():
        accepted = sum(line.index is not None for line in lines)
        out.done(f"{plural(accepted, 'line')} logged at {node}")
    lacked = context.governance.lacked(charter_state, own)
    left = [line for line in lacked if line.stuck]
    if not results and not left:
        out.say("The members' nodes have all that is known here.")
    rendering.show_following(out, context.governance.following(charter_state), lacked, context.deliver_command)
    counts = {node: sum(line.index is not None for line in lines) for node, lines in results.items()}
    out.answer(DeliveredDocument(counts, tuple(map(rendering.LackedItem.of, left))))
    return PARTIAL if left else 0


@examples(
    "comity proposal load /media/stick --node node-ch", "comity proposal load /media/stick --node node-ch.example"
)
@command.command("load", short_help="Log the lines of a folder at a node.")
@click.argument("folder", type=FOLDER)
@member_node_options("Log them at this node.", "Default: the node whose home is here.")
@click.option("--federation", default="", metavar="ID", help="Which pinned federation, where there are several.")
def load(folder: Path, home: Path, to: str | None, federation: str) -> None:
    """Log the lines of FOLDER at a node. Running it twice is safe."""
    from comity_client.charter.state import read_folder

    from comity_cli.charter.signing import report

    context = CharterContext(federation=federation, home=home, to=to)
    where = context.target
    delivered = context.governance.deliver(read_folder(folder), where)
    report(delivered, where)
    output().answer(ProposalLoadDocument(where, len(delivered)))
