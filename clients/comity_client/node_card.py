"""Node cards: what a member gives to others, as a founder or to join: its identity and its node.

Its records prove themselves; its addresses are hints.

    {"schema":"comity/node-card/v1","inception":"…","rotations":["…"],"record":"…","mutual":["…"],"open":["…"]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.trust.charter.document import Member
from comity.trust.encoding import Fields, Json, parse_json
from comity.trust.errors import Conflict, Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, check_inception
from comity.trust.node_records import NodeRecord, check_node_record
from comity.trust.places import check_new_jurisdiction
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import MAX_LINE, parse_entry
from comity.wire.addresses import Address

SCHEMA: Final = "comity/node-card/v1"
MAX_CARD_ROTATIONS: Final = 64
MAX_CARD: Final = (2 + MAX_CARD_ROTATIONS) * MAX_LINE


@frozen
class NodeCard:
    """A verified card, made only by `of` and `parse`. People have to check by voice that it comes from the institution
    that it names.

    `state`: the member's current key state, from its inception or its newest rotation.
    """

    inception: Inception
    state: KeyState
    record: NodeRecord
    inception_line: bytes
    rotation_lines: tuple[bytes, ...]
    record_line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]

    @classmethod
    def of(
        cls,
        inception_line: bytes,
        rotation_lines: Sequence[bytes],
        record_line: bytes,
        mutual: Sequence[str],
        open_: Sequence[str],
    ) -> NodeCard:
        """Raises Malformed/Untrusted."""
        inception = check_inception(parse_entry(inception_line))
        chain = follow(KeyState.of_inception(inception), map(parse_entry, rotation_lines))
        record = check_node_record(parse_entry(record_line), chain.current.keys)
        if record.member != inception.id:
            raise Untrusted("node card refused", why="its node record is another member's", code="NODE-CARD")
        if chain.disputes or len(chain.steps) != len(rotation_lines):
            raise Untrusted(
                "node card refused", why="its rotations are not one chain from its inception", code="NODE-CARD"
            )
        if inception.kind != "member" or not inception.jurisdiction:
            raise Malformed("node card is malformed", why="its inception is not of a member with a jurisdiction")
        addresses = (
            tuple(str(Address.parse(address)) for address in mutual),
            tuple(str(Address.parse(address)) for address in open_),
        )
        return cls(inception, chain.current, record, inception_line, tuple(rotation_lines), record_line, *addresses)

    @classmethod
    def read(cls, path: Path) -> NodeCard:
        """Read a card from a file. Raises as `parse` does, and NotFound."""
        return cls.parse(read_bounded(path, MAX_CARD))

    @classmethod
    def parse(cls, data: bytes) -> NodeCard:
        """Raises Malformed/Untrusted."""
        fields = Fields(parse_json(data, limit=MAX_CARD, what="node card"), "node card")
        fields.constant("schema", SCHEMA)
        inception_line = fields.text("inception", most=MAX_LINE).encode()
        rotations = fields.items("rotations", most=MAX_CARD_ROTATIONS) if fields.has("rotations") else ()
        record_line = fields.text("record", most=MAX_LINE).encode()
        mutual, open_ = fields.items("mutual", most=8), fields.items("open", most=8)
        fields.done()
        return cls.of(
            inception_line,
            [_text(item).encode() for item in rotations],
            record_line,
            *([_text(item) for item in items] for items in (mutual, open_)),
        )

    def encode(self) -> bytes:
        document: dict[str, Json] = {"schema": SCHEMA, "inception": self.inception_line.decode()}
        if self.rotation_lines:
            document["rotations"] = [line.decode() for line in self.rotation_lines]
        document |= {"record": self.record_line.decode(), "mutual": list(self.mutual), "open": list(self.open)}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    @property
    def lines(self) -> tuple[bytes, ...]:
        """The lines that prove the card."""
        return (self.inception_line, *self.rotation_lines, self.record_line)

    @property
    def member(self) -> Member:
        """The seat for this card."""
        inception = self.inception
        return Member(inception.id, inception.label, inception.jurisdiction, self.state.keys, self.state.recovery)


def is_card(path: Path) -> bool:
    """Whether a file says that it is a node card, unchecked. Raises NotFound, and Malformed if it is too large."""
    try:
        document = json.loads(read_bounded(path, MAX_CARD))
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("schema") == SCHEMA


def _text(item: Json) -> str:
    return item if isinstance(item, str) else ""


def check_newcomer(card: NodeCard, nodes: Iterable[NodeRecord]) -> None:
    """Return if the member of `card` may get a seat beside the members of `nodes`. Raises Malformed for an unknown
    jurisdiction, and as `check_node_name`."""
    check_new_jurisdiction(card.inception.jurisdiction)
    check_node_name(card, nodes)


def check_node_name(card: NodeCard, nodes: Iterable[NodeRecord]) -> None:
    """Return if no node of another member in `nodes` has the name of the card's node. Raises Conflict
    (NODE-NAME-TAKEN)."""
    record = card.record
    if any(other.name.lower() == record.name.lower() and other.member != record.member for other in nodes):
        raise Conflict(
            f"the node of {card.inception.label} cannot be called {record.name}",
            why="a node of another member has this name",
            hint="the newcomer makes a new card: comity init --name OTHER-NAME --jurisdiction CODE --org NAME",
            code="NODE-NAME-TAKEN",
        )
