"""Published faults of offer chains, and the proof of a fault for readers who do not hold the log.

`offer-fault` is a node's statement that a chain breaks the rules, and at which entry. It proves nothing: a reader who
holds the log computes the fault from the chain. `FaultProof` proves it to all others: records with inclusion proofs.

    forked      two different records with one chain and number, in any branches of the log
    overbooked  a chain from its first offer on, whose last record grants more than there is
    broken      a chain from its first offer on, whose last record the rules do not allow

The proof is JSON: the notes once, and for each record its line, index, inclusion hashes and note number. It names the
log; a node record says which node writes the log and with which online key. Source: invariant I11; protocol, section 9
(proofs are published). The statement `offer-fault` is an addition of this implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Final

from comity.rules.offers.amounts import FAULTS, FORKED, fault_kind
from comity.rules.offers.chain import ChainState
from comity.rules.offers.records import OfChain, Record, is_record, read_record
from comity.trust.codec import JsonRead, JsonWord
from comity.trust.content import SubjectDigest
from comity.trust.encoding import (
    Digest,
    Fields,
    Json,
    b64decode,
    b64encode,
    canonical,
    parse_canonical,
    sha256,
)
from comity.trust.errors import Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import VerifyingKey
from comity.trust.statement import MAX_OBJECT_BYTES, Entry, parse_entry
from comity.trust.statement_kinds import OFFER_FAULT
from comity.trust.tlog.merkle import HASH_SIZE
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.trust.tlog.proof import MAX_INCLUSION_HASHES, TlogProof


def _log_key(text: str) -> str:
    VerifierKey.parse(text)
    return text


@frozen
class OfferFault(OfChain):
    """A chain breaks the rules, and where. Chain `chain` in the log of verifier key `log` has a fault at entry `index`,
    whose line digest is `line`."""

    predicate: ClassVar = OFFER_FAULT
    chain: SubjectDigest
    log: Annotated[str, JsonRead(_log_key, "noteKey")]
    index: int
    line: Digest
    kind: Annotated[str, JsonWord(FAULTS)]


SCHEMA: Final = "comity/offer-dossier/v1"
MAX_NOTES: Final = 8
MAX_PROOF_RECORDS: Final = 8192


@frozen
class ProvenRecord:
    """A line, and its inclusion proof under note number `note` of the proof."""

    line: bytes
    index: int
    hashes: tuple[bytes, ...]
    note: int


@frozen
class FaultProof:
    """Notes of one log, and records with their inclusion proofs. Nothing is checked before `verify_fault_proof`."""

    notes: tuple[SignedNote, ...]
    records: tuple[ProvenRecord, ...]

    @classmethod
    def of(cls, proven: Iterable[tuple[bytes, TlogProof]]) -> FaultProof:
        """Build from record lines with their inclusion proofs. `parse` accepts at most 8 different notes."""
        notes: dict[bytes, SignedNote] = {}
        records = []
        for line, proof in proven:
            notes.setdefault(proof.checkpoint.encode(), proof.checkpoint)
            which = list(notes).index(proof.checkpoint.encode())
            records.append(ProvenRecord(line, proof.index, proof.hashes, which))
        return cls(tuple(notes.values()), tuple(records))

    @classmethod
    def parse(cls, data: bytes) -> FaultProof:
        """Inverse of `encode`. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_OBJECT_BYTES, what="fault proof"), "fault proof")
        fields.constant("schema", SCHEMA)
        notes = tuple(SignedNote.parse(b64decode(item)) for item in fields.items("notes", most=MAX_NOTES))
        items = fields.items("exhibits", least=1, most=MAX_PROOF_RECORDS)
        records = tuple(_read_record(item, len(notes)) for item in items)
        fields.done()
        return cls(notes, records)

    def encode(self) -> bytes:
        items: list[Json] = [
            {
                "line": b64encode(record.line),
                "index": record.index,
                "hashes": [b64encode(value) for value in record.hashes],
                "note": record.note,
            }
            for record in self.records
        ]
        notes: list[Json] = [b64encode(note.encode()) for note in self.notes]
        return canonical({"schema": SCHEMA, "notes": notes, "exhibits": items})


def verify_fault_proof(proof: FaultProof, log: VerifierKey, online: VerifyingKey) -> str:
    """Return the kind of fault that the proof shows for the node that writes `log` and signs with `online`.

    (1) each record is in the log, by its inclusion proof; (2) the node signed each record; (3) two records conflict, or
    the chain is shown from its first offer and the rules do not allow its last record. Raises Malformed, and Untrusted
    for an invalid inclusion proof or (NO-MISBEHAVIOUR) if an honest provider may have written all records.
    """
    records: list[tuple[Record, Entry]] = []
    for item in proof.records:
        TlogProof(item.index, item.hashes, proof.notes[item.note]).verify(item.line, log)  # (1)
        entry = parse_entry(item.line)
        if not is_record(entry.statement) or not entry.envelope.verified_by(online):  # (2)
            raise _no_fault("a line is not a record signed by this node")
        records.append((read_record(entry.statement), entry))
    if len({record.link.chain for record, _ in records}) != 1:
        raise _no_fault("the records belong to several chains")
    if _has_fork(records):
        return FORKED
    return _fault_of_last(records)  # (3)


def _has_fork(records: Sequence[tuple[Record, Entry]]) -> bool:
    payloads: dict[int, str] = {}
    return any(
        payloads.setdefault(record.link.seq, sha256(entry.envelope.payload)) != sha256(entry.envelope.payload)
        for record, entry in records
    )


def _fault_of_last(records: Sequence[tuple[Record, Entry]]) -> str:
    state = ChainState(records[0][0].link.chain)
    for record, entry in records[:-1]:
        state.append(record, entry.envelope, entry.line)
    record, entry = records[-1]
    try:
        state.append(record, entry.envelope, entry.line)
    except Untrusted as error:
        if record.link.seq == state.seq + 1 and record.link.prev == state.last:
            return fault_kind(error)
        raise _no_fault("records before the last one are missing") from error
    raise _no_fault("the rules allow each record")


def _read_record(item: Json, notes: int) -> ProvenRecord:
    fields = Fields(item, "fault proof record")
    record = ProvenRecord(
        b64decode(fields.take("line")),
        fields.integer("index"),
        tuple(b64decode(value, size=HASH_SIZE) for value in fields.items("hashes", most=MAX_INCLUSION_HASHES)),
        fields.integer("note", most=notes - 1),
    )
    fields.done()
    return record


def _no_fault(why: str) -> Untrusted:
    return Untrusted("the proof shows no fault", why=why, code="NO-MISBEHAVIOUR")
