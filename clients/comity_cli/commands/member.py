"""`comity member`: who the members are, and who asks to become one."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from comity.trust.encoding import grouped, syllables

from comity_cli.command import Group, examples, output
from comity_cli.charter.office import Office, reading_options

F = TypeVar("F", bound=Callable[..., object])

if TYPE_CHECKING:
    from comity.trust.charter.document import Member
    from comity_client.charter.state import CharterState


def _own_node(command: F) -> F:
    """Which node of this machine is meant."""
    for option in (
        click.option("--dir", "home", type=click.Path(path_type=Path), help="Your node's home. Default: here."),
        click.option("--socket", type=click.Path(path_type=Path), help="Your node's operator socket instead."),
    ):
        command = option(command)
    return command


@examples("comity member ls", "comity member show BSC", "comity member asks")
@click.group(cls=Group, name="member", short_help="See who the members are, and who asks to join.")
def command() -> None:
    """See who the members of a federation are, by the newest charter that can be proven here."""


@examples("comity member ls", "comity member ls --json", "comity member ls --offline --from /media/stick")
@command.command("ls", short_help="List the members.")
@reading_options
def ls(**options: Any) -> None:
    """List the members of the newest charter, how many of them stand by it, and how fresh that is."""
    from comity_cli.charter import rendering

    out, office = output(), Office(**options)
    sitting, confirmed = office.sitting, office.confirmation
    rendering.show_alarms(out, sitting)
    rendering.show_where_it_stands(out, sitting)
    if confirmed is not None:
        rendering.show_confirmation(out, confirmed, time.time())
    seats = sitting.current.members
    rows = [(m.name, m.jurisdiction, m.status, _notes(sitting, m) or "-", syllables(m.id), m.id[:16]) for m in seats]
    out.table(("member", "jur", "status", "notes", "on the phone", "id"), rows)
    out.document(
        "members",
        {
            "federation": sitting.current.federation,
            "epoch": sitting.current.epoch,
            "body": sitting.current.digest,
            "members": [_member_json(sitting, seat) for seat in seats],
            "confirmation": rendering.confirmation_json(confirmed),
            **rendering.alarms_json(sitting),
        },
    )


@examples("comity member show BSC", "comity member show 51aa90c2 --json")
@command.command("show", short_help="Show a member: keys, recovery, successors.")
@click.argument("member")
@reading_options
def show(member: str, **options: Any) -> None:
    """Show one member: the keys that the charter lists, and those to which its own rotations lead."""
    out, sitting = output(), Office(**options).sitting
    seat = sitting.member(member)
    chain = sitting.chain(seat.id)
    out.say(f"{seat.name} ({seat.jurisdiction}), {seat.status}")
    out.fact("id", grouped(seat.id))
    out.fact("on the phone", syllables(seat.id))
    out.fact("keys", f"{seat.keys.threshold} of {', '.join(key.id[:16] for key in seat.keys.keys)}")
    out.fact("recovery", ", ".join(digest[:16] for digest in seat.recovery) or "none: its keys can never be changed")
    if chain.disputes:
        out.warn("two rotations of its keys exclude one another: nobody can say whose keys it has")
    elif chain.current != chain.start:
        now = ", ".join(key.id[:16] for key in chain.current.keys.keys)
        out.fact("rotated to", f"{now}; the charter lists the older ones until a member drafts: rekey")
    for note in filter(None, [_notes(sitting, seat)]):
        out.fact("notes", note)
    out.document("member", _member_json(sitting, seat))


@examples("comity member asks", "comity member asks --json")
@command.command("asks", short_help="List who asks to be admitted.")
@click.option("--federation", default="", metavar="ID", help="Which pinned federation, where there are several.")
def asks(federation: str) -> None:
    """List who asks to be admitted. A card proves its keys, not whose they are: have the words read to you."""
    out = output()
    found = Office(federation=federation).chamber.asking()
    rows = [
        (a.card.inception.label, a.card.inception.jurisdiction, _day(a.since), syllables(a.card.inception.id),
         a.card.inception.id[:16])
        for a in found
    ]  # fmt: skip
    out.table(("says it is", "jur", "since", "on the phone", "id"), rows)
    if not rows:
        out.say("Nobody asks to be admitted.")
    asking = [
        {"id": a.card.inception.id, "label": a.card.inception.label, "jurisdiction": a.card.inception.jurisdiction,
         "since": a.since}
        for a in found
    ]  # fmt: skip
    out.document("asks", {"asks": asking})
    if found:
        out.hint(f"comity proposal new admit {found[0].card.inception.id[:12]} --text WHY --dir HOME")


@examples("comity member keep 51aa90c2 --dir HOME", "comity member keep 51aa90c2 --socket /srv/comity/operator.sock")
@command.command("keep", short_help="Keep a request to join at your node, whatever else comes.")
@click.argument("who", metavar="ID")
@_own_node
def keep(who: str, socket: Path | None, home: Path | None) -> None:
    """Keep the request of ID (its first 8 digits or more): no flood of other requests takes its place."""
    _decide(who, socket, home, keep=True)


@examples("comity member dismiss 51aa90c2 --dir HOME")
@command.command("dismiss", short_help="Let a request to join go.")
@click.argument("who", metavar="ID")
@_own_node
def dismiss(who: str, socket: Path | None, home: Path | None) -> None:
    """Let the request of ID go from your node's list. Who made it may ask again, and may ask at other nodes."""
    _decide(who, socket, home, keep=False)


def _decide(who: str, socket: Path | None, home: Path | None, *, keep: bool) -> None:
    from comity_client.session import decide_ask, socket_of

    if socket is not None and home is not None:
        raise click.UsageError("--socket and --dir name the same thing; give one")
    out = output()
    member = decide_ask(socket or socket_of(home or Path()), who, keep=keep)
    out.say(f"{'Kept' if keep else 'Dismissed'}: {member}")
    out.document("ask", {"id": member, "kept": keep})


def _notes(sitting: CharterState, seat: Member) -> str:
    council = sitting.council
    notes = ["asks to leave"] if seat.id in council.left else []
    notes += ["PROVEN LIAR"] if any(lie.member == seat.id for lie in council.lies) else []
    notes += [f"successor of {seat.successor_of[:12]}"] if seat.successor_of else []
    return ", ".join(notes)


def _member_json(sitting: CharterState, seat: Member) -> dict[str, Any]:
    return {
        "id": seat.id,
        "name": seat.name,
        "jurisdiction": seat.jurisdiction,
        "status": seat.status,
        "keys": [key.id for key in seat.keys.keys],
        "threshold": seat.keys.threshold,
        "recovery": list(seat.recovery),
        "successor_of": seat.successor_of,
        "asks_to_leave": seat.id in sitting.council.left,
    }


def _day(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
