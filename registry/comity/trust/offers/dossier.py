"""The proof against a provider, for anybody who holds none of its log: records, each proven to stand in it.

    forked      two records of one chain and number that say different things, in whichever branches of the log
    overbooked  a chain from its first offer on, whose last record gives out more than there is
    broken      the same, whose last record may not follow

A dossier is JSON: the notes once, and for each record its line, index, inclusion hashes and which note they lead to.
It names the log; who its node is, and by which online key it speaks, says a node record. Source: I11, section 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import sha256
from comity.trust.encoding import Json, b64decode, b64encode, canonical, parse_canonical
from comity.trust.errors import Untrusted
from comity.trust.fields import Fields
from comity.trust.keys import VerifyingKey
from comity.trust.offers.book import Book
from comity.trust.offers.faults import FORKED, kind_of
from comity.trust.offers.records import Record, is_record, read_record
from comity.trust.statement import MAX_OBJECT_BYTES, Entry, parse_entry
from comity.trust.tlog.merkle import HASH_SIZE
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.trust.tlog.proof import MAX_HASHES, TlogProof

SCHEMA: Final = "comity/offer-dossier/v1"
MAX_NOTES: Final = 8
MAX_EXHIBITS: Final = 8192


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A line, and its inclusion under one of the dossier's notes."""

    line: bytes
    index: int
    hashes: tuple[bytes, ...]
    note: int


@dataclass(frozen=True, slots=True)
class Dossier:
    """Notes of one log, and records that stand under them; nothing in it is checked before `convict_provider`."""

    notes: tuple[SignedNote, ...]
    exhibits: tuple[Exhibit, ...]

    @classmethod
    def gather(cls, proven: Iterable[tuple[bytes, TlogProof]]) -> Dossier:
        """Of records, each with its proof of inclusion. Proofs under one note make it small; it takes eight of them."""
        notes: dict[bytes, SignedNote] = {}
        exhibits = []
        for line, proof in proven:
            notes.setdefault(proof.checkpoint.encode(), proof.checkpoint)
            which = list(notes).index(proof.checkpoint.encode())
            exhibits.append(Exhibit(line, proof.index, proof.hashes, which))
        return cls(tuple(notes.values()), tuple(exhibits))

    @classmethod
    def parse(cls, data: bytes) -> Dossier:
        """Inverse of `encode`. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_OBJECT_BYTES, what="dossier"), "dossier")
        fields.constant("schema", SCHEMA)
        notes = tuple(SignedNote.parse(b64decode(item)) for item in fields.items("notes", least=1, most=MAX_NOTES))
        items = fields.items("exhibits", least=1, most=MAX_EXHIBITS)
        exhibits = tuple(_exhibit(item, len(notes)) for item in items)
        fields.done()
        return cls(notes, exhibits)

    def encode(self) -> bytes:
        exhibits: list[Json] = [
            {
                "line": b64encode(exhibit.line),
                "index": exhibit.index,
                "hashes": [b64encode(value) for value in exhibit.hashes],
                "note": exhibit.note,
            }
            for exhibit in self.exhibits
        ]
        notes: list[Json] = [b64encode(note.encode()) for note in self.notes]
        return canonical({"schema": SCHEMA, "notes": notes, "exhibits": exhibits})


def convict_provider(dossier: Dossier, log: VerifierKey, online: VerifyingKey) -> str:
    """The kind of fault that the dossier proves against the node that writes `log` and speaks by `online`.

    (1) each record stands in the log, by its proof; (2) the node signed it; (3) two of them exclude one another, or, in
    the order of their chain and from its beginning, the last may not follow. Raises Malformed, and Untrusted: for a
    proof that does not hold, and (NO-MISBEHAVIOUR) where an honest provider may have written all of it.
    """
    records: list[tuple[Record, Entry]] = []
    for exhibit in dossier.exhibits:
        TlogProof(exhibit.index, exhibit.hashes, dossier.notes[exhibit.note]).verify(exhibit.line, log)  # (1)
        entry = parse_entry(exhibit.line)
        if not is_record(entry.statement) or not entry.envelope.verified_by(online):  # (2)
            raise _nothing("a line is no record that this node signed")
        records.append((read_record(entry.statement), entry))
    if len({record.link.chain for record, _ in records}) != 1:
        raise _nothing("the records are of several chains")
    if _two_of_one_number(records):
        return FORKED
    return _last_that_may_not_follow(records)  # (3)


def _two_of_one_number(records: Sequence[tuple[Record, Entry]]) -> bool:
    said: dict[int, str] = {}
    return any(
        said.setdefault(record.link.seq, sha256(entry.envelope.payload)) != sha256(entry.envelope.payload)
        for record, entry in records
    )


def _last_that_may_not_follow(records: Sequence[tuple[Record, Entry]]) -> str:
    book = Book(records[0][0].link.chain)
    for record, entry in records[:-1]:
        book.take(record, entry.envelope, entry.line)
    record, entry = records[-1]
    if record.link.seq > 0 and not book.offers:
        raise _nothing("the chain is not shown from its beginning")
    try:
        book.take(record, entry.envelope, entry.line)
    except Untrusted as error:
        if record.link.seq == book.seq + 1 and record.link.prev == book.last:
            return kind_of(error)
        raise _nothing("records between the last two are not shown") from error
    raise _nothing("each record may follow the one before it")


def _exhibit(item: Json, notes: int) -> Exhibit:
    fields = Fields(item, "dossier exhibit")
    exhibit = Exhibit(
        b64decode(fields.take("line")),
        fields.integer("index"),
        tuple(b64decode(value, size=HASH_SIZE) for value in fields.items("hashes", most=MAX_HASHES)),
        fields.integer("note", most=notes - 1),
    )
    fields.done()
    return exhibit


def _nothing(why: str) -> Untrusted:
    return Untrusted("no misbehaviour is shown", why=why, code="NO-MISBEHAVIOUR")
