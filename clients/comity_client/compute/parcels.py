"""Lines and proofs about an offer in one file, to be carried where no network leads.

    {"schema":"comity/parcel/v1","next":"…","lines":[{"origin":"node-ch/log","index":12,"line":"…"},…],
     "proofs":[{"line":"<sha256>","proof":"…"},…]}

`origin` and `index` say where whoever wrote the file found a line, or are absent for one that is in no log yet: claims,
until a proof in the same file holds. `next` is a command for people; nothing reads it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.digest import Digest
from comity.trust.dsse import MAX_LINE
from comity.trust.encoding import MAX_INTEGER, Json, parse_json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.statement import Entry, parse_entry
from comity.verifier import read_bounded
from comity.wire.limits import PROOF

SCHEMA: Final = "comity/parcel/v1"
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_LINES: Final = 16_384


@dataclass(frozen=True, slots=True)
class Placed:
    """A line, and where it is said to stand; an empty origin for one that is in no log yet."""

    line: bytes
    origin: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is known, or carried: nothing in it is proven by being here. `proofs` are tlog-proofs by line digest."""

    lines: tuple[Placed, ...] = ()
    proofs: tuple[tuple[Digest, bytes], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Parcel:
        """Raises Malformed (PARCEL)."""
        try:
            fields = Fields(parse_json(data, limit=MAX_BYTES, what="parcel"), "parcel")
            fields.constant("schema", SCHEMA)
            lines = tuple(_placed(item) for item in fields.items("lines", most=MAX_LINES))
            proofs = tuple(_proof(item) for item in fields.items("proofs", most=MAX_LINES))
            fields.text("next", least=0, lines=True)
            fields.done()
        except Malformed as error:
            raise _refused(error.why or error.what) from error
        return cls(lines, proofs)

    @classmethod
    def read(cls, path: Path) -> Parcel:
        """Raises NotFound, Malformed (PARCEL)."""
        return cls.parse(read_bounded(path, MAX_BYTES))

    def encode(self, following: str = "") -> bytes:
        """The file; `following` is the command for whoever gets it."""
        lines: list[Json] = [
            {"line": p.line.decode(), **({"origin": p.origin, "index": p.index} if p.origin else {})}
            for p in self.lines
        ]
        proofs: list[Json] = [{"line": digest, "proof": proof.decode()} for digest, proof in self.proofs]
        document: dict[str, Json] = {"schema": SCHEMA, "next": following, "lines": lines, "proofs": proofs}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    def write(self, path: Path, following: str = "") -> None:
        """Raises OutOfSpace, Unavailable."""
        durable.write_file(path, self.encode(following), mode=0o644, point="carried")

    def __or__(self, other: Parcel) -> Parcel:
        return Parcel(
            tuple(dict.fromkeys((*self.lines, *other.lines))), tuple(dict.fromkeys((*self.proofs, *other.proofs)))
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The lines that are statements, each once, as they come."""
        return tuple(parsed for line in dict.fromkeys(p.line for p in self.lines) if (parsed := readable(line)))

    @property
    def unplaced(self) -> list[bytes]:
        """Lines that are in no log yet."""
        return [placed.line for placed in self.lines if not placed.origin]

    def find(self, line: Digest) -> Entry | None:
        return next((entry for entry in self.entries if entry.digest == line), None)


def readable(line: bytes) -> Entry | None:
    """The statement in a line, if it is one."""
    try:
        return parse_entry(line)
    except Malformed:
        return None


def unlogged(lines: Iterable[bytes]) -> Parcel:
    """Lines that are in no log yet."""
    return Parcel(tuple(Placed(line) for line in dict.fromkeys(lines)))


def _placed(item: Json) -> Placed:
    fields = Fields(item, "parcel line")
    line = fields.text("line", most=MAX_LINE).encode("utf-8", "surrogatepass")
    placed = Placed(line)
    if fields.has("origin"):
        placed = Placed(line, fields.text("origin", most=256), fields.integer("index", most=MAX_INTEGER))
    fields.done()
    return placed


def _proof(item: Json) -> tuple[Digest, bytes]:
    fields = Fields(item, "parcel proof")
    made = fields.digest("line"), fields.text("proof", most=PROOF, lines=True).encode("utf-8", "surrogatepass")
    fields.done()
    return made


def _refused(why: str) -> Malformed:
    return Malformed("this is no parcel", why=why, hint="have it written again with --out FILE", code="PARCEL")
