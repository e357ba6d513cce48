"""A node card: what a member hands to others, as a founder or to join. It says who it is, and which node is its own.

    {"schema":"comity/node-card/v1","inception":"…","rotations":["…"],"record":"…","mutual":["…"],"open":["…"]}

The records in it prove themselves; addresses are hints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.trust.charter import Member
from comity.trust.dsse import MAX_LINE
from comity.trust.encoding import Json, parse_json
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.identity import Inception, check_inception
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import parse_entry
from comity.trust.statements.node_record import NodeRecord, check_node_record
from comity.verifier import read_bounded
from comity.wire.address import Address

SCHEMA: Final = "comity/node-card/v1"
MAX_ROTATIONS: Final = 64
MAX_CARD: Final = (2 + MAX_ROTATIONS) * MAX_LINE


@dataclass(frozen=True, slots=True)
class NodeCard:
    """A card whose records are proven by their own signatures; only `of` and `parse` make one. That it comes from the
    institution that it names is for people to find out, by voice.

    `state` are the keys by which the member speaks now: those of its inception, or of its newest rotation.
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
            raise Untrusted("node card refused", why="its rotations do not lead from its inception", code="NODE-CARD")
        if inception.kind != "member" or not inception.jurisdiction:
            raise Malformed("node card is malformed", why="its inception claims no seat and jurisdiction")
        addresses = (
            tuple(str(Address.parse(address)) for address in mutual),
            tuple(str(Address.parse(address)) for address in open_),
        )
        return cls(inception, chain.current, record, inception_line, tuple(rotation_lines), record_line, *addresses)

    @classmethod
    def read(cls, path: Path) -> NodeCard:
        """The card in a file. Raises as `parse` does, and NotFound."""
        return cls.parse(read_bounded(path, MAX_CARD))

    @classmethod
    def parse(cls, data: bytes) -> NodeCard:
        """Raises Malformed/Untrusted."""
        fields = Fields(parse_json(data, limit=MAX_CARD, what="node card"), "node card")
        fields.constant("schema", SCHEMA)
        inception_line = fields.text("inception", most=MAX_LINE).encode()
        rotations = fields.items("rotations", most=MAX_ROTATIONS) if fields.has("rotations") else ()
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
        """All that proves it."""
        return (self.inception_line, *self.rotation_lines, self.record_line)

    @property
    def member(self) -> Member:
        """The seat that this card asks for."""
        who = self.inception
        return Member(who.id, who.label, who.jurisdiction, self.state.keys, self.state.recovery)


def _text(item: Json) -> str:
    return item if isinstance(item, str) else ""
