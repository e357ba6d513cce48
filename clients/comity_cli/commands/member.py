"""`comity member`: list members, and the requests to join."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar

import click
from comity.trust.encoding import Digest, format_id, syllables
from comity.trust.frozen import frozen

from comity_cli.charter.context import CharterContext, reading_options
from comity_cli.command import Group, examples, output
from comity_cli.copies_view import date
from comity_cli.document import INLINE, document
from comity_cli.nodes import node_option

F = TypeVar("F", bound=Callable[..., object])

if TYPE_CHECKING:
    from comity.trust.charter.document import Member
    from comity_client.charter.state import CharterState

    from comity_cli.charter.rendering import AlarmsItem, CharterItem, ConfirmationItem


@frozen
class MemberItem:
    """A member, with the keys that the charter lists."""

    id: Digest
    name: str
    jurisdiction: str
    status: str
    keys: tuple[Digest, ...]
    threshold: int
    recovery: tuple[Digest, ...]
    successor_of: Digest | None
    asks_to_leave: bool

    @classmethod
    def of(cls, charter_state: CharterState, seat: Member) -> MemberItem:
        return cls(
            id=seat.id,
            name=seat.name,
            jurisdiction=seat.jurisdiction,
            status=seat.status,
            keys=tuple(key.id for key in seat.keys.keys),
            threshold=seat.keys.threshold,
            recovery=tuple(seat.recovery),
            successor_of=seat.successor_of,
            asks_to_leave=seat.id in charter_state.tally.left,
        )


@document("members")
class MembersDocument:
    """Members of the charter, as `comity member ls --json` prints them.

    `confirmation` is null where no node was asked.
    """

    charter: CharterItem = field(metadata=INLINE)
    members: tuple[MemberItem, ...]
    confirmation: ConfirmationItem | None
    alarms: AlarmsItem = field(metadata=INLINE)


@document("member")
class MemberDocument:
    """A member of the charter, as `comity member show --json` prints it.

    `home_origin_of`: the other member whose log has the origin of its home log; empty for none.
    """

    member: MemberItem = field(metadata=INLINE)
    home_origin_of: str


@frozen
class AskItem:
    """A request to join, by the identity that it claims. `since` in POSIX seconds."""

    id: Digest
    label: str
    jurisdiction: str
    since: int


@document("asks")
class AsksDocument:
    """The requests to join, as `comity member asks --json` prints them."""

    asks: tuple[AskItem, ...]


@document("ask")
class AskDocument:
    """What became of a request, as `comity member keep --json` and `comity member dismiss --json` print it."""

    id: Digest
    kept: bool


_own_node = node_option("Your node, by its home or operator socket. Default: here.", old=("--dir", "--socket"))


@examples("comity member ls", "comity member show BSC", "comity member asks")
@click.group(cls=Group, name="member", short_help="Show the members, and the requests to join.")
def command() -> None:
    """Show the members of a federation, by the newest charter that is proven here."""


@examples("comity member ls", "comity member ls --json", "comity member ls --offline --from /media/stick")
@command.command("ls", short_help="List the members.")
@reading_options
def ls(**options: Any) -> None:
    """List the members of the newest charter, how many of them confirm it, and when they did."""
    from comity_cli.charter import rendering

    out, context = output(), CharterContext(**options)
    charter_state, confirmed, now = context.charter_state, context.confirmation, time.time()
    rendering.show_alarms(out, charter_state)
    rendering.show_current(out, charter_state)
    if confirmed is not None:
        rendering.show_confirmation(out, confirmed, now)
    seats = charter_state.current.members
    rows = [
        (m.name, m.jurisdiction, m.status, _notes(charter_state, m) or "-", syllables(m.id), m.id[:16]) for m in seats
    ]
    out.table(("member", "jur", "status", "notes", "on the phone", "id"), rows)
    out.answer(
        MembersDocument(
            rendering.CharterItem.of(charter_state.current),
            tuple(MemberItem.of(charter_state, seat) for seat in seats),
            rendering.ConfirmationItem.of(confirmed, now) if confirmed else None,
            rendering.AlarmsItem.of(charter_state),
        )
    )


@examples("comity member show BSC", "comity member show 51aa90c2 --json")
@command.command("show", short_help="Show a member: keys, recovery, successors.")
@click.argument("member")
@reading_options
def show(member: str, **options: Any) -> None:
    """Show one member: the keys that the charter lists, and the newest keys after the member's own rotations."""
    out, charter_state = output(), CharterContext(**options).charter_state
    seat = charter_state.member(member)
    chain = charter_state.chain(seat.id)
    out.say(f"{seat.name} ({seat.jurisdiction}), {seat.status}")
    out.fact("id", format_id(seat.id))
    out.fact("on the phone", syllables(seat.id))
    out.fact("keys", f"{seat.keys.threshold} of {', '.join(key.id[:16] for key in seat.keys.keys)}")
    out.fact("recovery", ", ".join(digest[:16] for digest in seat.recovery) or "none: its keys can never be changed")
    if chain.disputes:
        out.warn("two rotations of its keys contradict each other: nobody can decide which keys belong to it")
    elif chain.current != chain.start:
        now = ", ".join(key.id[:16] for key in chain.current.keys.keys)
        out.fact("rotated to", f"{now}; the charter lists the older ones until a `rekey` draft is certified")
    if (taken := charter_state.taken_origin(seat)) is not None:
        from comity_client.charter.proposals import taken_origin_warning

        out.warn(taken_origin_warning(seat, *taken))
    for note in filter(None, [_notes(charter_state, seat)]):
        out.fact("notes", note)
    out.answer(MemberDocument(MemberItem.of(charter_state, seat), taken[1] if taken else ""))


@examples("comity member asks", "comity member asks --json")
@command.command("asks", short_help="List the requests to join.")
@click.option("--federation", default="", metavar="ID", help="Which pinned federation, where there are several.")
def asks(federation: str) -> None:
    """List the requests to join. A card proves its keys, not their owner: have the words read to you."""
    out = output()
    found = CharterContext(federation=federation).governance.applicants()
    rows = [
        (a.card.inception.label, a.card.inception.jurisdiction, date(a.since // 86_400), syllables(a.card.inception.id),
         a.card.inception.id[:16])
        for a in found
    ]  # fmt: skip
    out.table(("claims to be", "jur", "since", "on the phone", "id"), rows)
    if not rows:
        out.say("There are no requests to join.")
    asking = [(a.card.inception, a.since) for a in found]
    out.answer(AsksDocument(tuple(AskItem(i.id, i.label, i.jurisdiction, since) for i, since in asking)))
    if found:
        out.hint(f"comity proposal new admit {found[0].card.inception.id[:12]} --text WHY --wait --node HOME")


@examples("comity member keep 51aa90c2 --node HOME", "comity member keep 51aa90c2 --node /srv/comity/operator.sock")
@command.command("keep", short_help="Protect a request to join from being replaced.")
@click.argument("applicant", metavar="ID")
@_own_node
def keep(applicant: str, node: str | None) -> None:
    """Keep the request of ID (its first 8 digits or more): new requests cannot replace it."""
    _decide(applicant, node, keep=True)


@examples("comity member dismiss 51aa90c2 --node HOME")
@command.command("dismiss", short_help="Remove a request to join.")
@click.argument("applicant", metavar="ID")
@_own_node
def dismiss(applicant: str, node: str | None) -> None:
    """Remove the request of ID from your node's list. The applicant may ask again, and may ask at other nodes."""
    _decide(applicant, node, keep=False)


def _decide(applicant: str, node: str | None, *, keep: bool) -> None:
    from comity_client.own_node import decide_ask, own_socket

    out = output()
    member = decide_ask(own_socket(node), applicant, keep=keep)
    out.say(f"{'Kept' if keep else 'Dismissed'}: {member}")
    out.answer(AskDocument(member, keep))


def _notes(charter_state: CharterState, seat: Member) -> str:
    tally = charter_state.tally
    notes = ["asks to leave"] if seat.id in tally.left else []
    notes += ["CONFLICTING VOTES"] if any(proof.member == seat.id for proof in tally.equivocations) else []
    notes += [f"successor of {seat.successor_of[:12]}"] if seat.successor_of else []
    return ", ".join(notes)
