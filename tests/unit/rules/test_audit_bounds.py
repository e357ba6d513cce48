"""Bounds of audits: the values that a challenge, an answer and a statement may have; everything else is refused."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from comity.rules.audit import (
    MAX_CHALLENGED,
    MAX_FILE_PIECES,
    MAX_LEASE,
    MAX_ROWS,
    Answer,
    AuditChallenge,
    AuditFailed,
    AuditFailure,
    AuditRow,
    AuditSummary,
    DamagedPiece,
    PieceNumbers,
    answers_root,
    check_answer,
    draw_challenge,
    draw_nonce,
    is_evidence,
    parse_audited,
    possession_hash,
    read_pieces,
    sign_answer,
    split_rows,
)
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, PieceIndex, PieceLayout
from comity.rules.signing import sign_content
from comity.trust.artifact import PIECE_SIZE, RECORD_BYTES, FileEntry, Manifest, PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.statement import MAX_LINE, MAX_SUBJECTS, Author, Statement, Subject, parse_entry
from comity.trust.statement_kinds import AUDIT_ANSWER, AUDITED
from comity.trust.tlog.merkle import leaf_hash, verify_inclusion
from support.audits import (
    ANSWER,
    AUDITOR,
    CHALLENGE,
    FAILURE,
    FEDERATION,
    OTHER,
    PIECES,
    PROVER,
    SUMMARY,
    Copy,
    artifact,
)

NUMBERS, COPY = artifact((b"bytes", (2, 3)), (b"the end", (3, 4)))
NONCE = sha256(b"the prover's nonce")


@dataclass(frozen=True)
class Loaded:
    """A source of known random numbers: the last ones, and these bits."""

    bits: int = 1

    def sample(self, population: Sequence[int], k: int) -> list[int]:
        return list(population[-k:])[::-1] if k else []

    def getrandbits(self, k: int, /) -> int:
        assert k == 256
        return self.bits


def manifest_of(*sizes: int) -> Manifest:
    return Manifest.of([FileEntry(f"file-{at}", size, sha256(b"%d" % size)) for at, size in enumerate(sizes)])


def index_of(*counts: int, layout: str = FIXED_LAYOUT) -> PieceIndex:
    return PieceIndex(
        tuple((f"file-{at}", PieceLayout(layout, count, sha256(b"%d" % count))) for at, count in enumerate(counts))
    )


def challenge_of(*numbers: int, lease: int = 0) -> AuditChallenge:
    return AuditChallenge(
        AUDITOR.record.node.id, PROVER.record.node.id, NUMBERS.artifact, PIECES, sha256(b"n"), numbers, lease
    )


def test_the_piece_index_must_list_the_files_of_the_manifest_and_no_others() -> None:
    assert PieceNumbers(manifest_of(8, 9), index_of(1, 2)).count == 3
    for counts in ((1,), (1, 2, 3)):
        with pytest.raises(Malformed, match="does not list the manifest's files"):
            PieceNumbers(manifest_of(8, 9), index_of(*counts))


def test_a_file_has_a_known_layout_and_no_more_pieces_than_a_tree_is_made_of() -> None:
    for layout in (FIXED_LAYOUT, TENSOR_LAYOUT):
        assert PieceNumbers(manifest_of(8), index_of(MAX_FILE_PIECES, layout=layout)).count == MAX_FILE_PIECES
    with pytest.raises(Malformed, match="cannot be audited"):
        PieceNumbers(manifest_of(8), index_of(MAX_FILE_PIECES + 1))
    with pytest.raises(Malformed, match="cannot be audited"):
        PieceNumbers(manifest_of(8, 9), PieceIndex((*index_of(1).files, ("file-1", PieceLayout("x/1", 1, NONCE)))))


def test_there_is_no_piece_before_the_first_and_none_of_an_artifact_without_bytes() -> None:
    assert (NUMBERS.find(0).index, NUMBERS.find(3).index) == (0, 1)
    for number in (-1, 4):
        with pytest.raises(Malformed, match="no such piece"):
            NUMBERS.find(number)
    empty = PieceNumbers(Manifest.of([]), PieceIndex(()))
    assert empty.count == 0
    with pytest.raises(Malformed, match="no such piece"):
        empty.find(0)


def test_a_small_file_costs_its_bytes_and_the_same_file_twice_costs_its_records_once() -> None:
    same = sha256(b"same")
    manifest = Manifest.of([FileEntry("a", 10, same), FileEntry("b", 10, same), FileEntry("c", PIECE_SIZE + 1, NONCE)])
    layouts = [PieceLayout(FIXED_LAYOUT, count, sha256(b"r%d" % count)) for count in (1, 1, 2)]
    numbers = PieceNumbers(manifest, PieceIndex(tuple(zip("abc", layouts, strict=True))))
    assert numbers.cost([0]) == 10 + RECORD_BYTES
    assert numbers.cost([0, 1]) == 20 + RECORD_BYTES
    assert numbers.cost([0, 2]) == 10 + PIECE_SIZE + 3 * RECORD_BYTES
    assert numbers.cost([]) == 0


def test_a_challenge_asks_for_one_to_thirty_pieces_and_for_ten_minutes_at_most() -> None:
    assert challenge_of(*range(MAX_CHALLENGED)).numbers[-1] == MAX_CHALLENGED - 1
    assert challenge_of(0).lease == 0
    with pytest.raises(Malformed, match="ascending"):
        challenge_of(-1, 0)
    assert challenge_of(0, lease=MAX_LEASE).lease == 600
    for lease in (-1, MAX_LEASE + 1):
        with pytest.raises(Malformed, match="a lease has at most 600 seconds"):
            challenge_of(0, lease=lease)


def test_a_drawn_challenge_is_ascending_and_asks_for_no_more_than_there_is() -> None:
    auditor, prover = AUDITOR.record.node.id, PROVER.record.node.id
    drawn = draw_challenge(auditor, prover, NUMBERS, PIECES, 3, Loaded(), lease=7)
    assert (drawn.numbers, drawn.lease, drawn.pieces) == ((1, 2, 3), 7, PIECES)
    assert (drawn.auditor, drawn.prover) == (auditor, prover)
    assert draw_challenge(auditor, prover, NUMBERS, PIECES, 99, Loaded()).numbers == (0, 1, 2, 3)
    many = PieceNumbers(manifest_of(8), index_of(99))
    assert len(draw_challenge(auditor, prover, many, PIECES, 99, Loaded()).numbers) == MAX_CHALLENGED


def test_a_nonce_has_256_bits_and_keeps_those_that_are_0() -> None:
    assert draw_nonce(Loaded(1)) == "0" * 63 + "1"
    assert draw_nonce(Loaded(2**256 - 1)) == "f" * 64


def test_the_hash_of_a_piece_is_the_one_of_the_protocol() -> None:
    challenge = challenge_of(3)
    named = (FEDERATION, AUDITOR.record.node.id, PROVER.record.node.id, challenge.nonce, NONCE, challenge.artifact)
    before = b"comity/audit/v2\n" + b"".join(map(bytes.fromhex, named)) + struct.pack(">Q", 3)
    assert len(before) == 216
    expected = hashlib.sha256(before + b"bytes")
    assert possession_hash(FEDERATION, challenge, NONCE, 3, [b"by", b"tes"]) == expected.hexdigest()


def test_each_piece_is_read_where_it_begins_with_its_path_to_the_root() -> None:
    challenge = challenge_of(0, 1, 2, 3)
    read = read_pieces(FEDERATION, challenge, NONCE, NUMBERS, COPY)
    assert [piece.number for piece in read] == [0, 1, 2, 3]
    for piece, data in zip(read, (b"by", b"tes", b"the", b" end"), strict=True):
        found = NUMBERS.find(piece.number)
        assert piece.digest == possession_hash(FEDERATION, challenge, NONCE, piece.number, [data])
        root = bytes.fromhex(found.layout.root)
        verify_inclusion(leaf_hash(piece.record.encode()), found.index, found.layout.count, piece.path, root)


def test_a_damaged_own_copy_is_detected_before_anything_is_signed() -> None:
    fewer = replace(COPY, cut={digest: cut[:1] for digest, cut in COPY.cut.items()})
    with pytest.raises(Malformed, match="not those of the piece index"):
        read_pieces(FEDERATION, challenge_of(0), NONCE, NUMBERS, fewer)
    blob = sha256(b"the end")

    class Damaged(Copy):
        def records(self, file: FileEntry, layout: PieceLayout) -> Sequence[PieceRecord]:
            return COPY.records(file, layout)

    damaged = Damaged({**COPY.files, blob: b"the EnD"}, COPY.cut)
    assert len(read_pieces(FEDERATION, challenge_of(0, 1, 2), NONCE, NUMBERS, damaged)) == 3
    with pytest.raises(DamagedPiece, match="damaged") as found:
        read_pieces(FEDERATION, challenge_of(0, 3), NONCE, NUMBERS, damaged)
    assert (found.value.blob, found.value.why) == (blob, "piece 1 of file-1 differs from its record")


def statement(line: bytes, **changed: Any) -> Statement:
    return replace(parse_entry(line).statement, **changed)


def body(line: bytes, **changed: Any) -> Statement:
    said = parse_entry(line).statement
    return replace(said, body={**said.body, **changed})


def failed(**changed: Any) -> Statement:
    inner: Any = parse_entry(FAILURE).statement.body["failed"]
    return body(FAILURE, failed={**inner, **changed})


PIECE: Any = parse_entry(ANSWER).statement.body["pieces"]
IDENTITY = Author("identity", PROVER.record.node.id)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(statement(ANSWER, predicate=AUDITED), id="another predicate"),
        pytest.param(statement(ANSWER, by=None), id="without an author"),
        pytest.param(statement(ANSWER, by=IDENTITY), id="of an identity"),
        pytest.param(statement(ANSWER, subjects=(Subject("", NONCE), Subject("", PIECES))), id="two artifacts"),
        pytest.param(body(ANSWER, more=1), id="an unknown member"),
        pytest.param(body(ANSWER, pieces=[]), id="no piece"),
        pytest.param(body(ANSWER, pieces=[[at, *PIECE[0][1:]] for at in range(31)]), id="too many pieces"),
        pytest.param(body(ANSWER, pieces=[PIECE[0], PIECE[0]]), id="a piece twice"),
        pytest.param(body(ANSWER, pieces=[PIECE[0][:2]]), id="a row of two"),
        pytest.param(body(ANSWER, pieces=[[*PIECE[0], 1]]), id="a row of four"),
        pytest.param(body(ANSWER, pieces=["abc"]), id="a row that is a text"),
        pytest.param(body(ANSWER, pieces=[5]), id="a row that is a number"),
        pytest.param(body(ANSWER, pieces=[[0, "AA==", PIECE[0][2]]]), id="a short record"),
        pytest.param(body(ANSWER, pieces=[[-1, *PIECE[0][1:]]]), id="a piece before the first"),
        pytest.param(body(ANSWER, lease=MAX_LEASE + 1), id="a long lease"),
    ],
)
def test_an_invalid_answer_is_refused(changed: Statement) -> None:
    with pytest.raises(Malformed):
        Answer.parse(changed)


def test_an_answer_may_promise_the_longest_lease_and_have_the_most_pieces() -> None:
    assert Answer.parse(body(ANSWER, lease=MAX_LEASE)).challenge.lease == MAX_LEASE
    many = body(ANSWER, pieces=[[at, *PIECE[0][1:]] for at in range(MAX_CHALLENGED)])
    assert len(Answer.parse(many).pieces) == MAX_CHALLENGED


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_answer_has_one_path_for_each_piece(count: int) -> None:
    challenge = challenge_of(0, 1)
    read = read_pieces(FEDERATION, challenge, NONCE, NUMBERS, COPY)
    line = sign_answer(PROVER.record, FEDERATION, challenge, NONCE, 1, read, PROVER.online).line
    paths = [piece.path for piece in (*read, *read)][:count]
    with pytest.raises(AuditFailed, match="audit failed") as refused:
        check_answer(FEDERATION, challenge, NUMBERS, PROVER.record, line, paths, lambda number, _: read[number].digest)
    assert (refused.value.reason, refused.value.code) == ("malformed", "AUDIT-FAILED")
    assert refused.value.why == f"{count} Merkle paths instead of 2"


def test_an_answer_that_cannot_be_read_fails_the_audit_as_such() -> None:
    with pytest.raises(AuditFailed) as refused:
        check_answer(FEDERATION, CHALLENGE, NUMBERS, PROVER.record, b"{}", (), lambda *_: NONCE)
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(statement(FAILURE, predicate=AUDIT_ANSWER), id="another predicate"),
        pytest.param(statement(FAILURE, by=None), id="without an author"),
        pytest.param(statement(FAILURE, by=IDENTITY), id="of an identity"),
        pytest.param(body(FAILURE, more=1), id="an unknown member"),
        pytest.param(failed(more=1), id="an unknown member of the failure"),
        pytest.param(failed(numbers=[]), id="no piece"),
        pytest.param(failed(numbers=list(range(MAX_CHALLENGED + 1))), id="too many pieces"),
        pytest.param(failed(numbers=[1, 0]), id="descending pieces"),
        pytest.param(failed(numbers=["0"]), id="a piece that is no number"),
        pytest.param(failed(reason="bored"), id="an unknown reason"),
        pytest.param(failed(answer=5), id="an answer that is no text"),
        pytest.param(failed(answer="é"), id="an answer that is not ASCII"),
        pytest.param(failed(answer="x" * (MAX_LINE + 1)), id="a long answer"),
        pytest.param(failed(piece="0"), id="a wrong piece that is no number"),
        pytest.param(failed(lease=MAX_LEASE + 1), id="a long lease"),
        pytest.param(statement(SUMMARY, subjects=()), id="a summary of no artifact"),
        pytest.param(body(SUMMARY, more=1), id="an unknown member of the summary"),
        pytest.param(body(SUMMARY, nodes=[]), id="no node"),
        pytest.param(body(SUMMARY, results=[]), id="no result"),
        pytest.param(body(SUMMARY, results=[], answers=0), id="no result and no answer"),
        pytest.param(body(SUMMARY, results=[[1, 0, 1, 2, 3]]), id="an artifact that is not listed"),
        pytest.param(body(SUMMARY, results=[[0, 1, 1, 2, 3]]), id="a node that is not listed"),
        pytest.param(body(SUMMARY, results=[[0, 0, 1, 2]]), id="a result of four"),
        pytest.param(body(SUMMARY, answers=2), id="more answers than passed"),
        pytest.param(body(SUMMARY, answers=0), id="fewer answers than passed"),
    ],
)
def test_an_invalid_audited_statement_is_refused(changed: Statement) -> None:
    with pytest.raises(Malformed):
        parse_audited(changed)


def test_a_failure_for_no_reason_that_is_known_is_not_signed() -> None:
    said = AuditFailure(AUDITOR.record.node, CHALLENGE, 5, "bored")
    with pytest.raises(Malformed):
        sign_content(said, AUDITOR.online)


def test_an_answer_about_no_piece_is_not_signed() -> None:
    with pytest.raises(Malformed):
        sign_answer(PROVER.record, FEDERATION, challenge_of(0), NONCE, 1, [], PROVER.online)


def test_the_records_of_a_file_are_read_once_for_all_its_pieces() -> None:
    asked = list[str]()

    class Counted(Copy):
        def records(self, file: FileEntry, layout: PieceLayout) -> Sequence[PieceRecord]:
            asked.append(file.path)
            return COPY.records(file, layout)

    read_pieces(FEDERATION, challenge_of(0, 1, 2, 3), NONCE, NUMBERS, Counted(COPY.files, COPY.cut))
    assert asked == ["file-0", "file-1"]


def test_an_answer_in_the_name_of_another_node_is_refused() -> None:
    challenge = challenge_of(0)
    read = read_pieces(FEDERATION, challenge, NONCE, NUMBERS, COPY)
    line = sign_answer(OTHER.record, FEDERATION, challenge, NONCE, 1, read, PROVER.online).line
    with pytest.raises(AuditFailed) as refused:
        check_answer(FEDERATION, challenge, NUMBERS, PROVER.record, line, [read[0].path], lambda *_: read[0].digest)
    assert refused.value.reason == "signature"


def test_a_failure_may_rest_on_the_auditors_claim_only() -> None:
    node = AUDITOR.record.node
    assert isinstance(one := parse_audited(failed(numbers=[1])), AuditFailure) and one.challenge.numbers == (1,)
    said = AuditFailure(node, CHALLENGE, 5, "not-held")
    assert parse_audited(sign_content(said, AUDITOR.online).statement) == said
    read = parse_audited(failed(answer="x" * MAX_LINE, piece=0, numbers=list(range(MAX_CHALLENGED))))
    assert isinstance(read, AuditFailure)
    assert (read.answer, read.piece, len(read.challenge.numbers)) == (b"x" * MAX_LINE, 0, MAX_CHALLENGED)


@pytest.mark.parametrize("row", [(1, 1, 0), (1, MAX_CHALLENGED, 0), (0, 0, 1), (2, 2, 3)])
def test_a_result_may_have_one_to_thirty_pieces_for_each_audit_that_passed(row: tuple[int, int, int]) -> None:
    rows = (AuditRow(CHALLENGE.artifact, PROVER.record.node.id, *row),)
    summary = AuditSummary.of(AUDITOR.record.node, 20_000, rows, answers_root([]), row[0])
    assert parse_audited(sign_content(summary, AUDITOR.online).statement) == summary


def test_a_summary_may_have_as_many_results_and_artifacts_as_its_limits() -> None:
    def rows(artifacts: int, nodes: int) -> list[AuditRow]:
        copies = [(a, n) for a in range(artifacts) for n in range(nodes)]
        return [AuditRow(sha256(b"%d" % a), sha256(b"node %d" % n), 1, 1, 0) for a, n in copies]

    assert [len(part) for part in split_rows(rows(MAX_SUBJECTS, 1))] == [MAX_SUBJECTS]
    assert [len(part) for part in split_rows(rows(MAX_SUBJECTS + 1, 1))] == [MAX_SUBJECTS, 1]
    assert [len(part) for part in split_rows(rows(1, MAX_ROWS))] == [MAX_ROWS]
    assert [len(part) for part in split_rows(rows(1, 2 * MAX_ROWS + 2))] == [MAX_ROWS, MAX_ROWS, 2]
    assert split_rows([]) == []
    for full in (rows(1, MAX_ROWS), rows(MAX_SUBJECTS, 8)):
        summary = AuditSummary.of(AUDITOR.record.node, 1, tuple(full), sha256(b""), MAX_ROWS)
        assert parse_audited(sign_content(summary, AUDITOR.online).statement) == summary
    over = tuple(rows(1, MAX_ROWS + 1))
    with pytest.raises(Malformed):
        sign_content(AuditSummary.of(AUDITOR.record.node, 1, over, NONCE, len(over)), AUDITOR.online)


def test_a_failure_with_an_answer_of_another_signer_than_it_names_is_no_evidence() -> None:
    failure = parse_audited(parse_entry(FAILURE).statement)
    assert isinstance(failure, AuditFailure)
    assert is_evidence(failure, PROVER.record)
    assert not is_evidence(failure, OTHER.record)
    assert not is_evidence(replace(failure, challenge=replace(CHALLENGE, prover=OTHER.record.node.id)), OTHER.record)
    read = read_pieces(FEDERATION, challenge_of(0), NONCE, NUMBERS, COPY)
    forged = sign_answer(PROVER.record, FEDERATION, challenge_of(0), NONCE, 1, read, OTHER.online).line
    made_up = replace(failure, challenge=challenge_of(0), answer=forged, piece=0)
    assert not is_evidence(made_up, PROVER.record)
    honest = sign_answer(PROVER.record, FEDERATION, challenge_of(0), NONCE, 1, read, PROVER.online).line
    assert is_evidence(replace(made_up, answer=honest), PROVER.record)


def test_the_answers_of_a_summary_are_the_leaves_of_a_tree() -> None:
    assert answers_root([ANSWER]) == leaf_hash(ANSWER).hex()
    assert len({answers_root(lines) for lines in ([], [b"a"], [b"b"], [b"a", b"b"], [b"b", b"a"])}) == 5
