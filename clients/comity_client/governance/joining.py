"""Asking to be admitted, and how far that is. A request promises nothing: some member has to draft the charter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.content.keyfile import read_signer
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.statement import parse_entry
from comity.trust.statements.claims import parse_addresses, sign_addresses
from comity.wire.values import AskReceipt, JoinRequest

from comity_client.governance.sitting import Sitting
from comity_client.node_home.card import NodeCard
from comity_client.nodes.session import Session


@dataclass(frozen=True, slots=True)
class Asked:
    """What the nodes did with a request: where it waits, and who did not take it."""

    member: Digest
    waiting: tuple[tuple[str, AskReceipt], ...]
    refused: tuple[tuple[str, ComityError], ...]


@dataclass(frozen=True, slots=True)
class Hope:
    """A draft that would admit somebody: whether they consented, and how many of `quorum` intend and ratified it in
    the round in which it is farthest."""

    body: Digest
    by: str
    text: str
    consented: bool
    round: int
    intents: int
    ratified: int
    quorum: int


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks to be admitted, by a card that proves itself; `since` is what the node says."""

    card: NodeCard
    since: int


def card_of(home: Path) -> NodeCard:
    """The card in a node's home. Raises NotFound, Malformed, Untrusted."""
    return NodeCard.read(home / "node-card.json")


def card_lines(home: Path) -> tuple[bytes, ...]:
    """What a request holds: the card's lines, and the node's addresses under its own signature.

    Raises NotFound, Refused, Malformed, Untrusted for what the home lacks.
    """
    card = card_of(home)
    online = read_signer(home / "keys" / "online.pem")
    return (*card.lines, sign_addresses(card.record, card.mutual, card.open, online).line)


async def ask(session: Session, lines: Sequence[bytes]) -> Asked:
    """Put a request to every node of the session. Raises Unavailable, Refused where none takes it."""
    answers = await session.ask(lambda client: client.ask(lines))
    if not answers.found:
        raise answers.failure("nobody took the request to join")
    waiting = tuple((node.name, receipt) for node, receipt in answers.found.items())
    member = parse_entry(lines[0]).statement.subject
    if any(receipt.member != member for _, receipt in waiting):
        raise Untrusted("the request was taken for somebody else's", why="a node names another identity", code="ASK")
    return Asked(member, waiting, tuple((node.name, error) for node, error in answers.failed.items()))


async def asking(session: Session) -> list[Asking]:
    """Who waits, as the nodes tell; cards that do not prove themselves are left out. Raises Unavailable."""
    answers = await session.ask(lambda client: client.asks())
    if not answers.found:
        raise answers.failure("nobody says who asks to join")
    found: dict[Digest, Asking] = {}
    for requests in answers.found.values():
        for request in requests:
            if (card := _card(request)) is not None:
                found.setdefault(card.inception.id, Asking(card, request.since))
    return list(found.values())


def hopes(sitting: Sitting, member: Digest) -> list[Hope]:
    """The open drafts that would give `member` a seat; none where nobody drafted one, or where it has one."""
    if sitting.current.member(member) is not None:
        return []
    found = []
    for draft in sitting.council.drafts:
        if draft.body.member(member) is None:
            continue
        at = max((*draft.intents, *draft.ratified), default=0)
        by = sitting.current.member(draft.by) if draft.by else None
        consented = all(seat.id != member for seat in draft.missing)
        counts = len(draft.intents.get(at, ())), len(draft.ratified.get(at, ()))
        name = by.name if by else ""
        found.append(Hope(draft.body.digest, name, draft.text, consented, at, *counts, sitting.current.quorum))
    return found


def _card(request: JoinRequest) -> NodeCard | None:
    """The card of a request: inception, rotations, a node record; its addresses are the asker's own claim."""
    try:
        entries = [parse_entry(line) for line in request.lines]
        lines = {kind: [e.line for e in entries if e.statement.predicate == kind] for kind in _KINDS}
        said = [parse_addresses(entry.statement) for entry in entries if entry.statement.predicate == "addresses"]
        mutual, open_ = (said[-1].mutual, said[-1].open) if said else ((), ())
        return NodeCard.of(lines["inception"][0], lines["rotated"], lines["node-record"][-1], mutual, open_)
    except (ComityError, IndexError):
        return None


_KINDS = ("inception", "rotated", "node-record")
