"""`comity proposal`: what members would change of the charter, and how far that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from comity.trust.encoding import short

from comity_cli.command import Group, examples, output
from comity_cli.files import FOLDER, NEW_FOLDER
from comity_cli.charter import motions
from comity_cli.charter.office import Office, acting_options, reading_options
from comity_cli.output import plural


@examples(
    "comity proposal ls",
    "comity proposal new admit node-card.json --text 'BSC mirrors what we publish' --dir node-ch",
    "comity proposal approve 9f2c41aa --dir node-ch",
)
@click.group(cls=Group, name="proposal", short_help="Change the charter: draft, approve, follow.")
def command() -> None:
    """Change the charter together. A draft becomes the next charter when a quorum reads it twice: INTENT, then RATIFY.

    Each step shows its plan before anything is signed, and prints the command for whoever comes next.
    """


@examples("comity proposal ls", "comity proposal ls --json", "comity proposal ls --offline --from /media/stick")
@command.command("ls", short_help="List open drafts, and whose turn it is.")
@reading_options
def ls(**options: Any) -> None:
    """List the drafts that are open, how many have read them, and who must do what next. Computed here from what
    members signed; no node's word is taken."""
    from comity_client.charter.state import turns

    from comity_cli.charter import rendering

    out, sitting = output(), Office(**options).sitting
    rendering.show_alarms(out, sitting)
    rendering.show_where_it_stands(out, sitting)
    rendering.show_drafts(out, sitting)
    due = turns(sitting)
    rendering.show_turns(out, due)
    out.document(
        "proposals",
        {
            "federation": sitting.current.federation,
            "epoch": sitting.current.epoch,
            "body": sitting.current.digest,
            "drafts": [rendering.draft_json(sitting, draft) for draft in sitting.council.drafts],
            "next": rendering.turns_json(due),
            **rendering.alarms_json(sitting),
        },
    )


@examples("comity proposal show 9f2c41aa", "comity proposal show 9f2c41aa --json")
@command.command("show", short_help="Show what a draft changes, and who has read it.")
@click.argument("draft")
@reading_options
def show(draft: str, **options: Any) -> None:
    """Show a draft: every change, who has read it in which round, and who must do what next."""
    from comity_client.charter.state import turns

    from comity_cli.charter import rendering

    out, sitting = output(), Office(**options).sitting
    found = sitting.draft(draft)
    rendering.show_alarms(out, sitting)
    rendering.show_draft(out, sitting, found)
    due = [turn for turn in turns(sitting) if turn.body == found.body.digest]
    rendering.show_turns(out, due)
    out.document("proposal", {**rendering.draft_json(sitting, found), "next": rendering.turns_json(due)})


@examples(
    "comity proposal new admit node-card.json --dir node-ch --text 'they asked us on 3 May'",
    "comity proposal new remove BSC --dir node-ch --text 'it asked to leave'",
    "comity proposal new policy min_copies=4 --dir node-ch",
)
@command.command("new", short_help="Put a change of the charter forward.")
@click.argument("kind", type=click.Choice(tuple(motions.MOTIONS)), metavar="KIND")
@click.argument("what", nargs=-1, required=True)
@click.option("--text", default="", help="Why; everybody reads it.")
@click.option("--despite-quorum", is_flag=True, help="Even if the quorum could not be met by members seen active.")
@acting_options
def new(kind: str, what: tuple[str, ...], text: str, despite_quorum: bool, **options: Any) -> None:
    """Draft the next charter and put it forward.

    \b
    admit CARD              a seat for who sent this node card, or asks to join (its id)
    succeed MEMBER CARD     a new seat in place of one whose keys are lost
    remove MEMBER           no seat any more; it keeps all that it has
    rekey MEMBER            list the keys to which the member's own rotations lead
    observer|active MEMBER  without, or with, a vote
    policy NAME=VALUE…      quorum_change, min_copies, min_jurisdictions, cosigner_quorum
    namespace NAME=ID…      bind a namespace to a publisher, for ever
    """
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import sign_and_deliver

    office = Office(**options)
    body, more = motions.draft(kind, what, office.sitting, office.card)
    plan = acts.propose_plan(
        office.sitting.adding(more), office.desk[0].public, body, text, despite_quorum=despite_quorum
    )
    sign_and_deliver(office, plan, office.desk)


@examples("comity proposal approve 9f2c41aa --dir node-ch", "comity proposal approve 9f2c41aa --stalled --dir node-ch")
@command.command("approve", short_help="Sign the next reading that your member owes a draft.")
@click.argument("draft")
@click.option("--stalled", is_flag=True, help="Do not wait longer for those who are silent in this round.")
@click.option("--despite-quorum", is_flag=True, help="Even if the quorum could not be met by members seen active.")
@acting_options
def approve(draft: str, stalled: bool, despite_quorum: bool, **options: Any) -> None:
    """Sign the reading that is due: INTENT first; RATIFY when a quorum meant it to. Run it again for the next one.

    What this key has signed is kept beside it and asked first: it never says two things that exclude one another.
    """
    from comity_client.charter import proposals as acts

    from comity_cli.charter.signing import sign_and_deliver

    office = Office(**options)
    sitting = office.sitting
    body, key = sitting.draft(draft).body, office.desk[0]
    plan = acts.reading_plan(sitting, key, body, stalled=stalled, despite_quorum=despite_quorum)
    if isinstance(plan, acts.NothingToSign):
        out = output()
        out.say(f"Nothing to sign now: {plan.why}")
        out.document("signed", {"complete": False, "why": plan.why})
        out.hint(f"comity proposal show {short(body.digest)}")
    else:
        sign_and_deliver(office, plan, office.desk)


@examples("comity proposal consent 9f2c41aa --dir node-es --to node-ch.example")
@command.command("consent", short_help="Agree to the seat that a draft gives you.")
@click.argument("draft")
@acting_options
def consent(draft: str, **options: Any) -> None:
    """Agree to your seat in a draft, with all your keys. A newcomer does this once; without it nobody can admit it."""
    from comity_client.charter import proposals as acts
    from comity_client.charter.joining import card_of
    from comity_client.charter.state import CharterMaterial

    from comity_cli.charter.signing import sign_and_deliver

    office = Office(**options)
    card = card_of(office.home)
    sitting = office.sitting.adding(CharterMaterial.of(card.lines))
    plan = acts.consent_plan(sitting, sitting.draft(draft).body, card.inception.id)
    sign_and_deliver(office, plan, office.desk)


@examples("comity proposal rebase 9f2c41aa --dir node-ch")
@command.command("rebase", short_help="Put a losing draft upon the charter that won.")
@click.argument("draft")
@click.option("--text", default="", help="Why; everybody reads it.")
@click.option("--despite-quorum", is_flag=True, help="Even if the quorum could not be met by members seen active.")
@acting_options
def rebase(draft: str, text: str, despite_quorum: bool, **options: Any) -> None:
    """Take what a draft of an earlier epoch changes, and put it forward upon the current charter. Nothing is merged
    where both changed the same thing: that, a person decides."""
    from comity_client.charter import proposals as acts
    from comity_client.charter import proposals as drafting

    from comity_cli.charter.signing import sign_and_deliver

    office = Office(**options)
    sitting = office.sitting
    if not office.offline:
        sitting = sitting.adding(office.chamber.past(sitting))
    lost, before = sitting.superseded(draft)
    body = drafting.rebase_draft(lost, before, sitting.current)
    plan = acts.propose_plan(sitting, office.desk[0].public, body, text, despite_quorum=despite_quorum)
    sign_and_deliver(office, plan, office.desk)


@examples("comity proposal export /media/stick")
@command.command("export", short_help="Write all that is open into a folder, to be carried.")
@click.argument("folder", type=NEW_FOLDER)
@reading_options
def export(folder: Path, **options: Any) -> None:
    """Write every line and body about the current charter into FOLDER: for a desk without a network."""
    from comity.content import durable
    from comity_client.charter.state import write_folder

    durable.make_folders(folder)
    count = write_folder(folder, Office(**options).sitting.material)
    output().done(f"{plural(count, 'new file')} in {folder}")
    output().document("export", {"folder": str(folder), "files": count})
    output().hint(f"there: comity proposal ls --offline --from {folder}")


@examples("comity proposal load /media/stick --dir node-ch", "comity proposal load /media/stick --to node-ch.example")
@command.command("load", short_help="Have a node log what a folder brings.")
@click.argument("folder", type=FOLDER)
@click.option("--dir", "home", type=FOLDER, default=Path(), help="The home of your member's node. Default: here.")
@click.option("--to", metavar="NODE", help="A node's name, or its operator's socket. Default: the node of --dir.")
@click.option("--federation", default="", metavar="ID", help="Which pinned federation, where there are several.")
def load(folder: Path, home: Path, to: str | None, federation: str) -> None:
    """Have a node log the lines that FOLDER brings. Doing it twice does no harm."""
    from comity_client.charter.state import read_folder

    from comity_cli.charter.signing import report

    office = Office(federation=federation, home=home, to=to)
    where = office.target
    delivered = office.chamber.deliver(read_folder(folder), where)
    report(delivered, where)
    output().document("load", {"node": where, "lines": len(delivered)})
