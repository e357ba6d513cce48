"""A founding in progress, as founders send it to one another: the cards of all, the charter, and the consents so far.

    {"schema":"comity/founding/v1","charter":"<base64>","cards":[{…}],"consents":["…"]}

Everybody can add a card or a consent; nothing in the file is believed because it is there. Cards prove themselves, a
consent counts if its member's governance keys signed exactly this charter, and a charter that does not have exactly the
members of the cards is drafted again, which drops the consents to it. When all have consented, the file holds all that
`seal_federation` needs. Source: protocol, section 7.3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.federation_file import Federation, read_federation
from comity.trust.charter.certificate import StatementSet, consenting
from comity.trust.charter.document import MAX_BYTES, Body
from comity.trust.encoding import Digest, Fields, Json, b64decode, b64encode, canonical, parse_json
from comity.trust.errors import Conflict, Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import MAX_LINE

from comity_client.founding import draft_genesis, own_seat, seal_federation
from comity_client.node_card import NodeCard

SCHEMA: Final = "comity/founding/v1"
MAX_FOUNDERS: Final = 64
MAX_FOUNDING: Final = 16 * 1024 * 1024
"""Bytes of the file: the cards and consents of `MAX_FOUNDERS` members, and a charter."""


@frozen
class Founding:
    """A founding in progress. `consents`: the lines of members that consented to `body`, by member; made only by
    `gather_founding` and `parse_founding`, which verify them."""

    cards: tuple[NodeCard, ...]
    body: Body
    consents: tuple[tuple[Digest, bytes], ...]

    @property
    def missing(self) -> tuple[NodeCard, ...]:
        """The cards of the members that have not consented."""
        consented = {member for member, _ in self.consents}
        return tuple(card for card in self.cards if card.inception.id not in consented)

    def encode(self) -> bytes:
        cards: list[Json] = [parse_json(card.encode(), limit=MAX_FOUNDING, what="node card") for card in self.cards]
        lines: list[Json] = [line.decode() for _, line in self.consents]
        document = {"schema": SCHEMA, "charter": b64encode(self.body.data), "cards": cards, "consents": lines}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    def with_consent(self, line: bytes) -> Founding:
        """This founding with one more consent; a line that does not count is left out."""
        return _made(self.cards, self.body, [*(each for _, each in self.consents), line])

    def seal(self) -> Federation:
        """The federation that everybody pins. Raises Untrusted naming the members that have not consented."""
        return seal_federation(self.body, [line for _, line in self.consents], self.cards)


def _made(cards: Sequence[NodeCard], body: Body, lines: Iterable[bytes]) -> Founding:
    found: dict[Digest, bytes] = {}
    for line in lines:
        for member in consenting(body, StatementSet.read([line])):
            found.setdefault(member, line)
    return Founding(tuple(sorted(cards, key=lambda card: card.inception.id)), body, tuple(sorted(found.items())))


def gather_founding(cards: Iterable[NodeCard], foundings: Iterable[Founding] = ()) -> Founding:
    """One founding with all these cards, and the consents to its charter: that of the `foundings` if it has exactly
    these members, else a new one.

    Raises Conflict (FOUNDING) if two cards are of one member, or two charters have these members; and as
    `draft_genesis`.
    """
    foundings, by_member = list(foundings), dict[Digest, NodeCard]()
    for card in (*cards, *(card for each in foundings for card in each.cards)):
        known = by_member.setdefault(card.inception.id, card)
        if known != card:
            why = f"{card.inception.label} made two cards: each founder sends its last one to all"
            raise Conflict("these cards do not fit together", why=why, code="FOUNDING")
    if len(by_member) > MAX_FOUNDERS:
        raise Malformed("too many founders", why=f"at most {MAX_FOUNDERS} found together; others join", code="FOUNDING")
    bodies = {each.body.digest: each.body for each in foundings if _seated(each.body) == by_member.keys()}
    if len(bodies) > 1:
        why = "two founders drafted different charters with the same members"
        raise Conflict("these foundings do not fit together", why=why, hint="go on with one of the files",
                       code="FOUNDING")  # fmt: skip
    body = next(iter(bodies.values())) if bodies else draft_genesis(by_member.values())
    lines = [line for each in foundings if each.body == body for _, line in each.consents]
    return _made(list(by_member.values()), body, lines)


def _seated(body: Body) -> set[Digest]:
    return {seat.id for seat in body.members}


def parse_founding(data: bytes) -> Founding:
    """Raises Malformed, Untrusted."""
    fields = Fields(parse_json(data, limit=MAX_FOUNDING, what="founding"), "founding")
    fields.constant("schema", SCHEMA)
    charter = b64decode(fields.text("charter", most=2 * MAX_BYTES))
    cards = [NodeCard.parse(canonical(item)) for item in fields.items("cards", most=MAX_FOUNDERS)]
    lines = [item.encode() for item in fields.items("consents", most=MAX_FOUNDERS) if isinstance(item, str)]
    fields.done()
    body = Body.parse(charter)
    if _seated(body) != {card.inception.id for card in cards} or len(cards) != len(body.members):
        raise Untrusted("founding refused", why="its charter has other members than its cards", code="FOUNDING")
    return _made(cards, body, [line for line in lines if len(line) <= MAX_LINE])


def is_founding(path: Path) -> bool:
    """Whether a file says that it is a founding, unchecked. Raises NotFound, and Malformed if it is too large."""
    try:
        document = json.loads(read_bounded(path, MAX_FOUNDING))
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("schema") == SCHEMA


def read_founding(path: Path) -> Founding:
    """Raises NotFound, Malformed, Untrusted."""
    return parse_founding(read_bounded(path, MAX_FOUNDING))


def install_federation(home: Path, file: Path) -> Federation:
    """Write the federation of `file`, a founding in which all consented or a federation file, into a node's home that
    has none. It has the seat of the home's member with its own keys: so this member consented to it.

    Raises Untrusted (NOT-MY-SEAT, and as `Founding.seal`), Conflict (FOUNDING) if the home has another federation.
    """
    federation = read_founding(file).seal() if is_founding(file) else read_federation(file)
    own_seat(federation.body, home)
    target = home / "federation.json"
    if target.exists():
        if read_federation(target).id != federation.id:
            why = f"{target} is of another one"
            raise Conflict("this node belongs to another federation", why=why, code="FOUNDING")
    else:
        durable.write_pieces(target, federation.encoded(), mode=0o644, point="home")
    return federation
