"""`offer-fault`: a node says aloud that a chain breaks the rules, and where.

It proves nothing and is not asked to: whoever holds the log that it names computes the fault from the chain, and the
dossier (`dossier`) shows it to those who do not. Ours; the protocol asks that proofs are published (section 9).


The proof against a provider, for anybody who holds none of its log: records, each proven to stand in it.

    forked      two records of one chain and number that say different things, in whichever branches of the log
    overbooked  a chain from its first offer on, whose last record gives out more than there is
    broken      the same, whose last record may not follow

A dossier is JSON: the notes once, and for each record its line, index, inclusion hashes and which note they lead to.
It names the log; who its node is, and by which online key it speaks, says a node record. Source: I11, section 9.


Compute offers: what is lent, to whom, and whether a provider kept to what it had.

capacity   slices, windows, allocations: what there is and what is asked for
conditions where the machines stand, who may ask, terms, what runs them
offer      the offer document
records    what the provider's node says in the chain of an offer
parties    what the other side says: request, accept, redeem, give back, cut off, default
accounts   usage, and the balance of two members
profile    how many nodes are taken at each instant
state      where a chain stands: its grants, and what is free
rules      what a record does to it, and whether it may
book       what a chain adds up to, and what may follow
hearing    what one log says of offers, with the faults of its chains
deadlines  whether a grant was accepted in time, by the times of those who saw it
faults     how a chain may break the rules
accusing   a node says so
dossier    the proof against a provider, for anybody

An offer is named by its document's digest. A request, a grant, and everything else that is said is named by the digest
of its log line (`Entry.digest`). Sign what `record_statement`, `said_statement`, `usage_statement` and
`answer_statement` make with `comity.trust.statement.sign_statement`. Times are POSIX seconds, given by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import (
    MAX_INTEGER,
    Digest,
    Fields,
    Json,
    b64decode,
    b64encode,
    canonical,
    parse_canonical,
    sha256,
)
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import VerifyingKey
from comity.trust.offers.amounts import FAULTS, FORKED, kind_of
from comity.trust.offers.chain import ChainState
from comity.trust.offers.records import Record, is_record, read_record
from comity.trust.statement import MAX_OBJECT_BYTES, Author, Entry, Statement, Subject, parse_entry
from comity.trust.tlog.merkle import HASH_SIZE
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.trust.tlog.proof import MAX_INCLUSION_HASHES, TlogProof

OFFER_FAULT: Final = "offer-fault"


@dataclass(frozen=True, slots=True)
class Accused:
    """That `chain`, in the log of verifier key `log`, is at fault by its entry `index`, whose line digest is `line`."""

    chain: Digest
    log: str
    index: int
    line: Digest
    kind: str


def accusation_statement(accused: Accused, node: Author) -> Statement:
    """What the accusing node signs."""
    body: dict[str, Json] = {"log": accused.log, "index": accused.index, "line": accused.line, "kind": accused.kind}
    statement = Statement(OFFER_FAULT, (Subject("offer", accused.chain),), node, body)
    if read_accused(statement) != accused:
        raise Malformed("accusation is malformed", why="it cannot be read back as it was written")
    return statement


def read_accused(statement: Statement) -> Accused:
    """Raises Malformed."""
    if statement.predicate != OFFER_FAULT or statement.by is None or statement.by.kind != "node":
        raise Malformed("accusation is malformed", why="not an offer-fault statement of a node")
    fields, chain = statement.fields(), statement.sole_subject()
    log, index, line = fields.text("log"), fields.integer("index", most=MAX_INTEGER), fields.digest("line")
    accused = Accused(chain, str(VerifierKey.parse(log)), index, line, fields.choice("kind", FAULTS))
    fields.done()
    if accused.log != log or statement.subjects != (Subject("offer", chain),) or statement.objects:
        raise Malformed("accusation is malformed", why="it does not name an offer and a log in their one spelling")
    return accused


SCHEMA: Final = "comity/offer-dossier/v1"
MAX_NOTES: Final = 8
MAX_EXHIBITS: Final = 8192


@dataclass(frozen=True, slots=True)
class ProvenRecord:
    """A line, and its inclusion under one of the dossier's notes."""

    line: bytes
    index: int
    hashes: tuple[bytes, ...]
    note: int


@dataclass(frozen=True, slots=True)
class FaultProof:
    """Notes of one log, and records that stand under them; nothing in it is checked before `convict_provider`."""

    notes: tuple[SignedNote, ...]
    exhibits: tuple[ProvenRecord, ...]

    @classmethod
    def gather(cls, proven: Iterable[tuple[bytes, TlogProof]]) -> FaultProof:
        """Of records, each with its proof of inclusion. Proofs under one note make it small; it takes eight of them."""
        notes: dict[bytes, SignedNote] = {}
        exhibits = []
        for line, proof in proven:
            notes.setdefault(proof.checkpoint.encode(), proof.checkpoint)
            which = list(notes).index(proof.checkpoint.encode())
            exhibits.append(ProvenRecord(line, proof.index, proof.hashes, which))
        return cls(tuple(notes.values()), tuple(exhibits))

    @classmethod
    def parse(cls, data: bytes) -> FaultProof:
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


def convict_provider(dossier: FaultProof, log: VerifierKey, online: VerifyingKey) -> str:
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
    book = ChainState(records[0][0].link.chain)
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


def _exhibit(item: Json, notes: int) -> ProvenRecord:
    fields = Fields(item, "dossier exhibit")
    exhibit = ProvenRecord(
        b64decode(fields.take("line")),
        fields.integer("index"),
        tuple(b64decode(value, size=HASH_SIZE) for value in fields.items("hashes", most=MAX_INCLUSION_HASHES)),
        fields.integer("note", most=notes - 1),
    )
    fields.done()
    return exhibit


def _nothing(why: str) -> Untrusted:
    return Untrusted("no misbehaviour is shown", why=why, code="NO-MISBEHAVIOUR")
