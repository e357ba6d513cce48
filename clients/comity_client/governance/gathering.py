"""Proceedings from nodes, and back to them. What nodes say is material: the sitting that it gives is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.charter.body import MAX_BYTES as MAX_BODY
from comity.trust.charter.proposing import CONSENTED, DRAFT, LEFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.federation import Federation
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.wire.client import NodeClient
from comity.wire.values import Located

from comity_client.events import OnEvent, ignore
from comity_client.governance.sitting import Material
from comity_client.nodes.session import Session
from comity_client.nodes.uplink import Uplink, log_lines

MAX_BODIES: Final = 64
"""Bodies that one node is asked for; a draft too many is gathered from another, or the next time."""
MAX_ANSWERS: Final = 8
"""Answers about epochs that one node is asked for: 8,000 epochs, or 512 MiB of them."""

MAX_COPIES: Final = 4
"""Envelopes of one statement that are taken from one node; from another one they count anew."""

_ORDER: Final = ("inception", "rotated", "node-record", DRAFT, CONSENTED, LEFT, INTENT, RATIFIED)
"""A node takes a line when it knows who speaks, and of what: in this order."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What nodes handed out, and who they were; `silent` are those that did not, each with the reason."""

    material: Material
    answered: tuple[str, ...]
    silent: tuple[tuple[str, ComityError], ...]


@dataclass(frozen=True, slots=True)
class Delivered:
    """One line as a node took it: `index` in its log, or `refusal`."""

    line: bytes
    index: int | None
    refusal: ComityError | None = None


async def gather(session: Session, federation: Federation, known: Material) -> Gathered:
    """Ask every node of the session for the epochs after the pinned one and for what is open after the newest.

    Args:
        known: what is here already; its bodies are not fetched again.

    Raises NotFound, Refused, Unavailable where none of them answers.
    """
    answers = await session.ask(lambda client: _from_node(client, federation, known))
    if not answers.found:
        raise answers.failure("nobody says how governance stands")
    material = Material()
    for found in answers.found.values():
        material |= found
    silent = tuple((node.name, error) for node, error in answers.failed.items())
    return Gathered(material, tuple(node.name for node in answers.found), silent)


async def gather_past(session: Session, prevs: Sequence[Digest], known: Material) -> Material:
    """What nodes keep about epochs that are decided: for each body in `prevs`, the lines about its successor, and
    the drafts that lost. A node that keeps nothing of them, or is silent, is missing."""
    answers = await session.ask(lambda client: _about_successors(client, prevs, known))
    material = Material()
    for found in answers.found.values():
        material |= found
    return material


async def gather_each(session: Session, federation: Federation) -> dict[Digest, Material]:
    """The same, node by node, joined by member: what each of them holds by itself. One that is silent is missing."""
    answers = await session.ask(lambda client: _from_node(client, federation, Material()))
    copies: dict[Digest, Material] = {}
    for node, found in answers.found.items():
        copies[node.member.id] = copies.get(node.member.id, Material()) | found
    return copies


async def deliver(uplink: Uplink, material: Material, *, on_event: OnEvent = ignore) -> list[Delivered]:
    """Hand lines to a node one after the other, with the bodies that they name. One that is refused does not keep back
    the others; repeating it does no harm. Raises Unavailable where the node is gone."""
    delivered = []
    for entry in sorted(_entries(material.lines), key=_rank):
        named = {item.digest: material.objects[item.digest] for item in entry.statement.objects
                 if item.digest in material.objects}  # fmt: skip
        try:
            (receipt,) = await log_lines(uplink, [entry.line], named, {}, link=False, on_event=on_event)
        except NotFound as error:
            delivered.append(Delivered(entry.line, None, error))
        except ComityError as error:
            if error.exit_status == 5:
                raise
            delivered.append(Delivered(entry.line, None, error))
        else:
            delivered.append(Delivered(entry.line, receipt.index))
    return delivered


async def _from_node(client: NodeClient, federation: Federation, known: Material) -> Material:
    lines, bodies = await _epochs(client, federation.body.epoch)
    here = Material.of((*lines, *_few_copies(await client.proceedings())), bodies)
    return here | await _missing_bodies(client, here | known)


async def _about_successors(client: NodeClient, prevs: Iterable[Digest], known: Material) -> Material:
    here = Material()
    for prev in prevs:
        try:
            here |= Material.of(_few_copies(await client.proceedings(prev)))
        except NotFound:
            continue
    return here | await _missing_bodies(client, here | known)


def _few_copies(told: Iterable[Located]) -> Iterator[bytes]:
    """The lines of one node's answer, of each statement a few envelopes: whoever hands out a thousand copies of what
    others signed, with signatures that do not hold, has none of them judged."""
    copies: Counter[Digest] = Counter()
    for located in told:
        try:
            statement = parse_entry(located.line).statement_digest
        except Malformed:
            continue
        copies[statement] += 1
        if copies[statement] <= MAX_COPIES:
            yield located.line


async def _missing_bodies(client: NodeClient, here: Material) -> Material:
    """The charters that lines speak of, as far as the node holds them."""
    named = (item.digest for entry in _entries(here.lines) for item in _bodies(entry))
    wanted, bodies = dict.fromkeys(digest for digest in named if digest not in here.objects), list[bytes]()
    for digest in list(wanted)[:MAX_BODIES]:
        try:
            bodies.append(await client.object(digest))
        except NotFound:
            continue
    return Material.of((), bodies)


async def _epochs(client: NodeClient, epoch: int) -> tuple[list[bytes], list[bytes]]:
    """Certificate lines and bodies of the epochs after `epoch` that the node holds. Raises Malformed (UNBOUNDED)."""
    lines, bodies = list[bytes](), list[bytes]()
    for _ in range(MAX_ANSWERS):
        try:
            found = await client.epochs(epoch + 1)
        except NotFound:
            return lines, bodies
        lines += [line for charter in found for line in charter.certificate]
        bodies += [charter.body for charter in found]
        epoch = found[-1].epoch
    raise Malformed("the epochs do not end", why=f"{MAX_ANSWERS} answers, and there are more", code="UNBOUNDED")


def _bodies(entry: Entry) -> Sequence[SideObject]:
    """The charter bodies that a line names as side objects."""
    if entry.statement.predicate not in (DRAFT, CONSENTED, LEFT):
        return ()
    return [item for item in entry.statement.objects if item.size <= MAX_BODY]


def _rank(entry: Entry) -> int:
    predicate = entry.statement.predicate
    return _ORDER.index(predicate) if predicate in _ORDER else len(_ORDER)


def _entries(lines: Iterable[bytes]) -> Iterable[Entry]:
    for line in sorted(lines):
        try:
            yield parse_entry(line)
        except Malformed:
            continue
