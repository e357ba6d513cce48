"""A session parses and checks each line, proof and note once, and does not confuse two of them."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import pytest
from comity.trust import evidence as evidence_module
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.evidence import EvidenceReader
from comity.trust.keys import PrivateKey, PublicKey
from comity.trust.statement import Entry, Statement, Subject, parse_entry, sign_statement
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, cosign, verify_cosignature, verify_note
from comity.trust.tlog.proof import TlogProof
from comity.trust.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import case, nodes
from support.examples import examples
from support.world import identity, signer

GOOD = case()
POLICY = GOOD.policy
LINE = GOOD.publication.line
OTHER_LINE = next(line for line in GOOD.claims if line != LINE)
PROOF = GOOD.proofs_of(LINE)[0].data
ORIGIN = TlogProof.parse(PROOF).checkpoint.text.partition("\n")[0]
LOG = next(node.record.log for node in nodes() if node.origin == ORIGIN)
OTHER_LOG = next(node.record.log for node in nodes() if node.origin != ORIGIN)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[bytes, bytes, bytes]]]:
    """Counts the verified signatures: (key, signature, message)."""
    found: Counter[tuple[bytes, bytes, bytes]] = Counter()
    real = PublicKey.verify

    def counted(key: PublicKey, signature: bytes, message: bytes) -> None:
        found[key.raw, signature, message] += 1
        real(key, signature, message)

    monkeypatch.setattr(PublicKey, "verify", counted)
    yield found


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    found: Counter[bytes] = Counter()

    def counted(line: bytes) -> Entry:
        found[line] += 1
        return parse_entry(line)

    monkeypatch.setattr(evidence_module, "parse_entry", counted)
    return found


def test_a_verdict_checks_each_signature_once_and_parses_each_line_once(
    checks: Counter[tuple[bytes, bytes, bytes]], parsed: Counter[bytes]
) -> None:
    verdict = verify(GOOD.evidence, POLICY)
    assert verdict.accepted
    assert set(checks.values()) == {1}
    assert parsed == Counter(set(GOOD.claims))


def test_the_next_verdict_of_a_session_checks_nothing_again(
    checks: Counter[tuple[bytes, bytes, bytes]], parsed: Counter[bytes]
) -> None:
    reader = EvidenceReader()
    first = verify(GOOD.evidence, POLICY, reader=reader)
    before = checks.copy(), parsed.copy()
    assert verify(GOOD.evidence, POLICY, reader=reader) == first
    assert (checks, parsed) == before


def test_a_line_a_proof_and_a_note_are_the_same_object_again() -> None:
    reader = EvidenceReader()
    assert reader.entry(LINE) is reader.entry(bytes(bytearray(LINE)))
    proof = reader.proof(PROOF)
    assert reader.proof(PROOF) is proof
    assert reader.note(proof.checkpoint.encode()) is proof.checkpoint


def test_proofs_notes_and_signatures_are_parsed_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Counter[str] = Counter()

    def counting(kind: Any) -> Any:
        def parse(*given: Any, **named: Any) -> Any:
            found[kind.__name__] += 1
            return kind.parse(*given, **named)

        return SimpleNamespace(parse=parse)

    for kind in (TlogProof, SignedNote, NoteSignature):
        monkeypatch.setattr(evidence_module, kind.__name__, counting(kind))
    reader = EvidenceReader()
    note = reader.proof(PROOF).checkpoint
    for _ in range(2):
        reader.proof(PROOF)
        reader.note(note.encode())
    assert found == {"TlogProof": 1, "SignedNote": 1, "NoteSignature": len(note.signatures)}
    fewer = replace(note, signatures=note.signatures[:-1])
    assert reader.note(fewer.encode()) == fewer
    assert found == {"TlogProof": 1, "SignedNote": 2, "NoteSignature": len(note.signatures)}


class Parsed:
    """What a line is parsed to, here. It lives for as long as somebody remembers it."""


def remembering(limit: int) -> EvidenceReader:
    """A reader that remembers lines of so many bytes: here a line weighs as much as it is long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "entry_weight", len)
        return EvidenceReader(2 * limit)


LINES = [bytes([letter]) * length for letter, length in enumerate((1, 1, 2, 2, 3, 4), start=97)]


@given(st.lists(st.tuples(st.sampled_from(LINES), st.booleans()), max_size=24), st.integers(2, 16))
@settings(max_examples=examples(150))
def test_lines_that_were_used_last_are_remembered_and_never_more_than_the_limit(
    used: list[tuple[bytes, bool]], limit: int
) -> None:
    """`at_once`: another thread parses the same line at the same time, and is faster."""
    reader, alive, parsed = remembering(limit), WeakKeyDictionary[Parsed, int](), Counter[bytes]()
    last: dict[bytes, int] = {}
    faster: list[bytes] = []

    def parse(line: bytes) -> Parsed:
        parsed[line] += 1
        if faster:
            reader.entry(faster.pop())
        made = Parsed()
        alive[made] = len(line)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "parse_entry", parse)
        for at, (line, at_once) in enumerate(used):
            since = {other for other, _ in used[last[line] + 1 : at]} - {line} if line in last else None
            before = parsed[line]
            faster[:] = [line] if at_once else []
            assert reader.entry(line) is reader.entry(line) or 2 * len(line) > limit
            if since is not None and sum(map(len, since)) + len(line) <= limit // 2:
                assert parsed[line] == before
            assert sum(alive.values()) <= limit
            last[line] = at


def test_lines_are_remembered_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = WeakSet[Parsed]()

    def parse(line: bytes) -> Parsed:
        made = Parsed()
        alive.add(made)
        return made

    monkeypatch.setattr(evidence_module, "parse_entry", parse)
    reader, remembered = remembering(8), []
    for number in range(14):
        reader.entry(bytes([number]))
        remembered.append(len(alive))
    assert remembered == [1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8, 5, 6]


def test_a_line_that_two_threads_parse_at_once_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, faster = EvidenceReader(), list[object]()

    def parse(line: bytes) -> Parsed:
        if not faster:
            faster.append(object())  # the other thread parses too
            faster.append(reader.entry(line))
        return Parsed()

    monkeypatch.setattr(evidence_module, "parse_entry", parse)
    assert reader.entry(b"line") is faster[1]
    assert reader.entry(b"line") is faster[1]


def test_malformed_bytes_are_refused_each_time() -> None:
    reader = EvidenceReader()
    for _ in range(2):
        with pytest.raises(Malformed):
            reader.entry(b"{}")
        assert reader.readable(b"{}") is None
        with pytest.raises(Malformed):
            reader.proof(b"no proof")


def test_the_least_recently_used_documents_are_dropped_at_the_limit(parsed: Counter[bytes]) -> None:
    first, second, third = GOOD.claims[:3]
    reader = remembering(2 * max(map(len, (first, second, third))))
    for line in (first, second, second, third, third, first):
        reader.entry(line)
    assert parsed == {first: 2, second: 1, third: 1}


def test_documents_that_are_used_again_are_kept(parsed: Counter[bytes]) -> None:
    first, second, third = GOOD.claims[:3]
    reader = remembering(2 * max(map(len, (first, second, third))))
    for line in (first, second, first, third, first):
        reader.entry(line)
    assert parsed[first] == 1


def test_a_document_above_the_limit_is_read_and_not_kept(parsed: Counter[bytes]) -> None:
    reader = remembering(2 * len(LINE) - 1)
    assert reader.entry(LINE) == reader.entry(LINE) == parse_entry(LINE)
    assert parsed[LINE] == 2


def test_valid_signatures_prove_no_other_payload(checks: Counter[tuple[bytes, bytes, bytes]]) -> None:
    envelope, publisher = GOOD.publication.envelope, identity("Swiss AI", "CH").signer.public
    envelope = replace(envelope)  # what this module checked before is not known to it
    assert envelope.has_valid_signature(publisher) and envelope.has_valid_signature(publisher)
    assert set(checks.values()) == {1}
    assert not replace(envelope, payload=envelope.payload + b" ").has_valid_signature(publisher)


def test_a_proven_leaf_proves_no_other_leaf_and_no_other_log() -> None:
    proof = TlogProof.parse(PROOF)
    assert proof.verify(LINE, LOG) == proof.verify(LINE, LOG)
    with pytest.raises(Untrusted):
        proof.verify(OTHER_LINE, LOG)
    with pytest.raises(Untrusted):
        proof.verify(LINE, OTHER_LOG)
    assert proof.verify(LINE, LOG).origin == LOG.name


def test_a_valid_note_signature_signs_no_other_text() -> None:
    note = TlogProof.parse(PROOF).checkpoint
    assert verify_note(note, [LOG]) == verify_note(note, [LOG]) == (LOG,)
    with pytest.raises(Untrusted):
        verify_note(replace(note, text=note.text.replace("\n", "\n1", 1)), [LOG])
    assert verify_note(note, [LOG]) == (LOG,)


def test_a_cosignature_of_one_checkpoint_does_not_count_for_another() -> None:
    proof = TlogProof.parse(PROOF)
    checkpoint = proof.including(LINE)
    cosigners = [key for node in nodes() for key in node.record.cosigners]
    key, line = next((key, line) for line in proof.checkpoint.signatures for key in cosigners if line.by(key))
    at = verify_cosignature(line, key, checkpoint)
    with pytest.raises(Untrusted):
        verify_cosignature(line, key, replace(checkpoint, size=checkpoint.size + 1))
    later = NoteSignature(line.name, line.key_id, (at + 1).to_bytes(8, "big") + line.signature[8:])
    with pytest.raises(Untrusted):
        verify_cosignature(later, key, checkpoint)
    assert verify_cosignature(line, key, checkpoint) == at


def made(kind: str, number: int) -> bytes:
    """Bytes of a kind that a reader reads, each time others: small ones, whose objects weigh more than they."""
    checkpoint = Checkpoint(f"node-{number}.example/log", number + 1, bytes(32))
    cosigned = [cosign(checkpoint, f"node-{each}.example", SIGNER, number + each) for each in range(3)]
    note = checkpoint.signed(SIGNER).with_signatures(*cosigned)
    if kind == "note":
        return note.encode()
    if kind == "proof":
        hashes = tuple(sha256(f"{number} {each}".encode()).encode()[:32] for each in range(8))
        return TlogProof(number, hashes, note).encode()
    subject = Subject("", sha256(str(number).encode()))
    return sign_statement(Statement("noted", (subject,), GOOD.publication.statement.by, {}, ()), SEAT).line


SIGNER = PrivateKey.generate("ed25519")
SEAT = signer("a small line", ("ed25519",))
LARGE = {"entry": GOOD.claims, "proof": tuple(each.data for each in GOOD.proofs)}


@pytest.mark.parametrize("kind", ["entry", "proof", "note"])
def test_what_is_remembered_takes_no_more_memory_than_the_limit(kind: str) -> None:
    """With what the bytes are parsed to, and the answers that these objects keep."""
    limit = 192 * 1024
    reader = EvidenceReader(limit)
    read = getattr(reader, kind)
    gc.collect()
    tracemalloc.start()
    try:
        most = 0
        for number in range(200):
            read(made(kind, number))
            most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert limit // 16 < most <= limit


@pytest.mark.parametrize("kind", ["entry", "proof"])
def test_a_large_value_weighs_no_less_than_it_takes(kind: str) -> None:
    """Lines with signatures of two algorithms, and what a verdict leaves in them."""
    reader = EvidenceReader()
    gc.collect()
    tracemalloc.start()
    try:
        kept = [getattr(reader, kind)(bytes(bytearray(data))) for data in LARGE[kind]]
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(kept) == len(LARGE[kind])
    weighed = sum(each._size for each in (reader._entries, reader._proofs, reader._notes, reader._signatures))
    assert taken <= weighed <= 3 * taken
