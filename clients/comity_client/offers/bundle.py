"""Bundle files of offers: lines with their claimed places, and proofs, for transfer without a network.

    {"schema":"comity/parcel/v1","next":"…","lines":[{"origin":"node-ch/log","index":12,"line":"…"},…],
     "proofs":[{"line":"<sha256>","proof":"…"},…]}

`origin` and `index` are the claimed place of a line, absent if it is in no log yet. `next` is a command for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.trust.encoding import MAX_INTEGER, Digest, Fields, Json, parse_json
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.wire.limits import PROOF

SCHEMA: Final = "comity/parcel/v1"
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_LINES: Final = 16_384


@frozen
class PlacedLine:
    """A line and its claimed place; an empty origin if it is in no log yet."""

    line: bytes
    origin: str = ""
    index: int = 0


@frozen
class OfferBundle:
    """Lines and proofs about offers, unverified. `proofs` are tlog-proofs by line digest."""

    lines: tuple[PlacedLine, ...] = ()
    proofs: tuple[tuple[Digest, bytes], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> OfferBundle:
        """Inverse of `encode`. Raises Malformed (PARCEL)."""
        try:
            fields = Fields(parse_json(data, limit=MAX_BYTES, what="offer bundle"), "offer bundle")
            fields.constant("schema", SCHEMA)
            lines = tuple(_read_placed(item) for item in fields.items("lines", most=MAX_LINES))
            proofs = tuple(_proof(item) for item in fields.items("proofs", most=MAX_LINES))
            fields.text("next", least=0, lines=True)
            fields.done()
        except Malformed as error:
            raise _refused(error.why or error.what) from error
        return cls(lines, proofs)

    @classmethod
    def read(cls, path: Path) -> OfferBundle:
        """Read a file. Raises NotFound, Malformed (PARCEL)."""
        return cls.parse(read_bounded(path, MAX_BYTES))

    def encode(self, next_command: str = "") -> bytes:
        """The bytes of the file. `next_command` is a command for the receiver."""
        lines: list[Json] = [
            {"line": p.line.decode(), **({"origin": p.origin, "index": p.index} if p.origin else {})}
            for p in self.lines
        ]
        proofs: list[Json] = [{"line": digest, "proof": proof.decode()} for digest, proof in self.proofs]
        document: dict[str, Json] = {"schema": SCHEMA, "next": next_command, "lines": lines, "proofs": proofs}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    def write(self, path: Path, next_command: str = "") -> None:
        """Write the file. Raises OutOfSpace, Unavailable."""
        durable.write_file(path, self.encode(next_command), mode=0o644, point="carried")

    def __or__(self, other: OfferBundle) -> OfferBundle:
        return OfferBundle(
            tuple(dict.fromkeys((*self.lines, *other.lines))), tuple(dict.fromkeys((*self.proofs, *other.proofs)))
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The lines that parse as statements, each once, in order."""
        return tuple(parsed for line in dict.fromkeys(p.line for p in self.lines) if (parsed := parse_line(line)))

    @property
    def unplaced(self) -> list[bytes]:
        """Lines that are in no log yet."""
        return [placed.line for placed in self.lines if not placed.origin]

    def find(self, line: Digest) -> Entry | None:
        return next((entry for entry in self.entries if entry.digest == line), None)


def parse_line(line: bytes) -> Entry | None:
    """The entry of a line; None if it does not parse."""
    try:
        return parse_entry(line)
    except Malformed:
        return None


def unlogged(lines: Iterable[bytes]) -> OfferBundle:
    """A bundle of lines that are in no log yet."""
    return OfferBundle(tuple(PlacedLine(line) for line in dict.fromkeys(lines)))


def _read_placed(item: Json) -> PlacedLine:
    fields = Fields(item, "bundle line")
    line = fields.text("line", most=MAX_LINE).encode("utf-8", "surrogatepass")
    placed = PlacedLine(line)
    if fields.has("origin"):
        placed = PlacedLine(line, fields.text("origin", most=256), fields.integer("index", most=MAX_INTEGER))
    fields.done()
    return placed


def _proof(item: Json) -> tuple[Digest, bytes]:
    fields = Fields(item, "bundle proof")
    made = fields.digest("line"), fields.text("proof", most=PROOF, lines=True).encode("utf-8", "surrogatepass")
    fields.done()
    return made


def _refused(why: str) -> Malformed:
    return Malformed(
        "not an offer bundle", why=why, hint="ask the sender to write the file again: --out FILE", code="PARCEL"
    )
