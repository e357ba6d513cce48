"""Audits: lost pieces are detected with the computed probability, and no stale, swapped or replayed answer passes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from comity.rules.audit import (
    MAX_CHALLENGED,
    MAX_ROWS,
    REASONS,
    Answer,
    AuditChallenge,
    AuditFailed,
    AuditFailure,
    AuditRow,
    AuditSummary,
    OlderAnswer,
    PieceNumbers,
    ReadPiece,
    answers_root,
    check_answer,
    check_failure,
    draw_challenge,
    draw_nonce,
    is_evidence,
    parse_audited,
    possession_hash,
    read_pieces,
    sign_answer,
    split_rows,
)
from comity.rules.pieces import FIXED_LAYOUT, PieceIndex, PieceLayout, fixed_pieces, tensor_pieces
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest, PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.statement import Entry, sign_statement
from support.audits import AUDITOR, FEDERATION, OTHER, PIECES, PROVER, THIRD, Copy, artifact
from support.world import Node

CHANCE = random.Random(14)


def big(count: int = 200) -> tuple[PieceNumbers, Copy]:
    data = CHANCE.randbytes(8 * count)
    return artifact((b"small", (5,)), (data, (8,) * count), (b"", ()), (b"the end", (3, 4)))


def challenge_of(numbers: PieceNumbers, count: int = 10, auditor: Digest | None = None) -> AuditChallenge:
    return draw_challenge(auditor or AUDITOR.record.node.id, PROVER.record.node.id, numbers, PIECES, count, CHANCE)


def answered(challenge: AuditChallenge, numbers: PieceNumbers, copy: Copy) -> tuple[bytes, list[tuple[bytes, ...]]]:
    nonce = draw_nonce(CHANCE)
    read = read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    entry = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1000, read, PROVER.online)
    return entry.line, [piece.path for piece in read]


def check(
    challenge: AuditChallenge, numbers: PieceNumbers, copy: Copy, line: bytes, paths: Sequence[Sequence[bytes]]
) -> None:
    def expected(number: int, nonce: Digest) -> Digest:
        (read,) = read_pieces(FEDERATION, replace(challenge, numbers=(number,)), nonce, numbers, copy)
        return read.digest

    check_answer(FEDERATION, challenge, numbers, PROVER.record, line, paths, expected)


def test_a_copy_passes() -> None:
    numbers, copy = big()
    challenge = challenge_of(numbers)
    check(challenge, numbers, copy, *answered(challenge, numbers, copy))


def test_pieces_are_numbered_through_all_files() -> None:
    numbers, _ = big(200)
    assert numbers.count == 203
    assert [(numbers.find(at).file.path, numbers.find(at).index) for at in (0, 1, 200, 201, 202)] == [
        ("file-0", 0),
        ("file-1", 0),
        ("file-1", 199),
        ("file-3", 0),
        ("file-3", 1),
    ]
    with pytest.raises(Malformed):
        numbers.find(203)


def test_an_artifact_without_bytes_has_nothing_to_audit() -> None:
    numbers, _ = artifact((b"", ()))
    with pytest.raises(Malformed):
        challenge_of(numbers)


def test_a_layout_whose_root_is_not_known_is_not_audited() -> None:
    manifest = Manifest.of([FileEntry("a", 1, sha256(b"a"))])
    with pytest.raises(Malformed):
        PieceNumbers(manifest, PieceIndex((("a", PieceLayout("unknown/1", 1, sha256(b""))),)))


@pytest.mark.parametrize(("lost_share", "pieces"), [(0.05, 10), (0.05, 30), (0.01, 30), (0.2, 5)])
def test_a_prover_that_lost_pieces_is_detected_with_the_computed_probability(lost_share: float, pieces: int) -> None:
    """Over 4,000 audits the share of failures is within four standard deviations of 1-(1-d)^c."""
    count, runs = 2_000, 4_000
    numbers, _ = artifact((b"\0" * count, (1,) * count))
    lost = frozenset(CHANCE.sample(range(count), int(lost_share * count)))
    caught = sum(bool(lost.intersection(challenge_of(numbers, pieces).numbers)) for _ in range(runs))
    expected = 1 - (1 - lost_share) ** pieces
    deviation = (expected * (1 - expected) / runs) ** 0.5
    # Pieces are drawn without repetition: at most a little more is caught than by the formula.
    assert -4 * deviation <= caught / runs - expected <= 4 * deviation + pieces**2 / (2 * count)


def test_a_copy_with_lost_pieces_fails_exactly_when_one_of_them_is_drawn() -> None:
    numbers, copy = big(100)
    (blob,) = (digest for digest, data in copy.files.items() if len(data) == 800)
    lost = frozenset(range(1, 100, 20))
    damaged = bytearray(copy.files[blob])
    for number in lost:
        damaged[8 * (number - 1)] ^= 1

    class Damaged(Copy):
        def records(self, file: FileEntry, layout: PieceLayout) -> Sequence[PieceRecord]:
            return copy.records(file, layout)

    damaged_copy = Damaged({**copy.files, blob: bytes(damaged)}, copy.cut)

    def pretend(challenge: AuditChallenge) -> tuple[bytes, list[tuple[bytes, ...]]]:
        """Answer with the true records and paths, and hashes over the remaining bytes."""
        nonce = draw_nonce(CHANCE)
        read = [
            replace(
                piece,
                digest=possession_hash(
                    FEDERATION, challenge, nonce, piece.number, damaged_copy.bytes_of(numbers, piece.number)
                ),
            )
            for piece in read_pieces(FEDERATION, challenge, nonce, numbers, copy)
        ]
        line = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, read, PROVER.online).line
        return line, [piece.path for piece in read]

    outcomes = set()
    for _ in range(200):
        challenge = challenge_of(numbers)
        try:
            check(challenge, numbers, copy, *pretend(challenge))
            failed = False
        except AuditFailed as error:
            assert (error.reason, error.piece in lost) == ("digest", True)
            failed = True
        with pytest.raises(Untrusted, match="damaged") if failed else contextlib.nullcontext():
            read_pieces(
                FEDERATION, challenge, draw_nonce(CHANCE), numbers, damaged_copy
            )  # an honest node signs no incorrect answer
        assert failed == bool(lost.intersection(challenge.numbers))
        outcomes.add(failed)
    assert outcomes == {True, False}


def test_stale_swapped_and_replayed_answers_are_always_detected() -> None:
    numbers, copy = big()
    others, other_copy = big()
    for _ in range(50):
        challenge = challenge_of(numbers)
        old = answered(challenge_of(numbers), numbers, copy)
        same_pieces_before = answered(replace(challenge, nonce=draw_nonce(CHANCE)), numbers, copy)
        of_another_auditor = answered(replace(challenge, auditor=THIRD.record.node.id), numbers, copy)
        of_another_artifact = answered(challenge_of(others), others, other_copy)
        without_lease = answered(replace(challenge, lease=60), numbers, copy)
        for given in (old, same_pieces_before, of_another_auditor, of_another_artifact, without_lease):
            with pytest.raises(AuditFailed) as failed:
                check(challenge, numbers, copy, *given)
            assert failed.value.reason == "challenge"


def test_an_answer_that_another_node_signed_is_refused() -> None:
    numbers, copy = big()
    challenge = challenge_of(numbers)
    nonce = draw_nonce(CHANCE)
    read = read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    stolen = sign_answer(OTHER.record, FEDERATION, challenge, nonce, 1, read, OTHER.online)
    forged = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, read, OTHER.online)
    for entry in (stolen, forged):
        with pytest.raises(AuditFailed) as failed:
            check(challenge, numbers, copy, entry.line, [piece.path for piece in read])
        assert failed.value.reason == "signature"


def relayed(challenge: AuditChallenge, holder: Node, numbers: PieceNumbers, copy: Copy) -> list[ReadPiece]:
    """What an honest holder answers to a challenge that another node passes on as one of its own."""
    own = replace(challenge, auditor=challenge.prover, prover=holder.record.node.id)
    return read_pieces(FEDERATION, own, draw_nonce(CHANCE), numbers, copy)


def test_what_another_holder_answers_is_of_no_use_to_a_node_without_a_copy() -> None:
    """Also if the holder, or the one who passes the challenge on, chooses the nonce of the other."""
    numbers, copy = big()
    challenge, nonce = challenge_of(numbers), draw_nonce(CHANCE)
    of_the_holder = replace(challenge, auditor=challenge.prover, prover=OTHER.record.node.id)
    swapped = replace(challenge, auditor=challenge.prover, prover=challenge.auditor)
    of_another = replace(challenge, prover=OTHER.record.node.id)
    for asked in (of_the_holder, swapped, of_another):
        read = read_pieces(FEDERATION, asked, nonce, numbers, copy)
        entry = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, read, PROVER.online)
        with pytest.raises(AuditFailed) as failed:
            check(challenge, numbers, copy, entry.line, [piece.path for piece in read])
        assert failed.value.reason == "digest"
    read = read_pieces(sha256(b"another federation"), challenge, nonce, numbers, copy)
    entry = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, read, PROVER.online)
    with pytest.raises(AuditFailed, match="hash of piece"):
        check(challenge, numbers, copy, entry.line, [piece.path for piece in read])


def test_a_node_without_a_copy_passes_only_with_the_bytes_of_the_challenged_pieces() -> None:
    """It gets all else from others: records, paths, hashes of other holders. Each byte of the pieces is counted that
    another holder had to send it."""
    numbers, copy = big()
    challenge, nonce, sent = challenge_of(numbers, MAX_CHALLENGED), draw_nonce(CHANCE), 0

    class Remote(Copy):
        """The copy of another holder, which sends what is asked of it."""

        def read(self, blob: Digest, offset: int, length: int) -> Iterable[bytes]:
            nonlocal sent
            for part in copy.read(blob, offset, length):
                sent += len(part)
                yield part

    told = relayed(challenge, OTHER, numbers, copy)
    without = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, told, PROVER.online).line
    with pytest.raises(AuditFailed, match="hash of piece"):
        check(challenge, numbers, copy, without, [piece.path for piece in told])
    fetched = read_pieces(FEDERATION, challenge, nonce, numbers, Remote(copy.files, copy.cut))
    passing = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, fetched, PROVER.online).line
    check(challenge, numbers, copy, passing, [piece.path for piece in fetched])
    assert sent == sum(piece.record.length for piece in fetched) > 0


def test_a_node_that_lacks_one_byte_of_the_challenged_pieces_fails() -> None:
    """Whatever it did not fetch it has to guess: each challenged piece is needed to its last byte."""
    numbers, copy = big()
    challenge, nonce = challenge_of(numbers, MAX_CHALLENGED), draw_nonce(CHANCE)
    read = read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    for lacking in read:
        data = bytearray(b"".join(copy.bytes_of(numbers, lacking.number)))
        data[-1] ^= 1
        guessed = replace(lacking, digest=possession_hash(FEDERATION, challenge, nonce, lacking.number, [bytes(data)]))
        said = [guessed if piece is lacking else piece for piece in read]
        line = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, said, PROVER.online).line
        with pytest.raises(AuditFailed) as failed:
            check(challenge, numbers, copy, line, [piece.path for piece in said])
        assert (failed.value.reason, failed.value.piece) == ("digest", lacking.number)


def older(challenge: AuditChallenge, numbers: PieceNumbers, copy: Copy) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """What a node of an older version answers: its hashes bind no node, and it names no federation."""
    nonce = draw_nonce(CHANCE)
    read = [
        replace(piece, digest=older_hash(challenge, nonce, piece.number, copy.bytes_of(numbers, piece.number)))
        for piece in read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    ]
    said = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, read, PROVER.online).statement
    body = {name: value for name, value in said.body.items() if name != "federation"}
    return sign_statement(replace(said, body=body), PROVER.online).line, [piece.path for piece in read]


def older_hash(challenge: AuditChallenge, nonce: Digest, number: int, data: Iterable[bytes]) -> Digest:
    named = b"".join(map(bytes.fromhex, (challenge.nonce, nonce, challenge.artifact)))
    return sha256(b"comity/audit/v1\n" + named + number.to_bytes(8, "big") + b"".join(data))


def test_an_answer_of_an_older_version_counts_neither_for_nor_against_its_node() -> None:
    numbers, copy = big()
    challenge = challenge_of(numbers)
    line, paths = older(challenge, numbers, copy)
    with pytest.raises(OlderAnswer) as refused:
        check(challenge, numbers, copy, line, paths)
    assert (refused.value.code, refused.value.hint) == ("AUDIT-OLD-FORM", "have its operator update")
    accused = AuditFailure(AUDITOR.record.node, challenge, 5, "digest", line, challenge.numbers[0])
    assert not is_evidence(accused, PROVER.record)
    assert check_failure(accused, PROVER.record, numbers, copy) is None


def test_hashes_for_another_nonce_of_the_prover_do_not_pass() -> None:
    """The hashes of an earlier challenge cannot be used under a nonce of the prover's choice."""
    numbers, copy = big()
    challenge = challenge_of(numbers)
    read = read_pieces(FEDERATION, challenge, draw_nonce(CHANCE), numbers, copy)
    entry = sign_answer(PROVER.record, FEDERATION, challenge, draw_nonce(CHANCE), 1, read, PROVER.online)
    with pytest.raises(AuditFailed, match="hash of piece"):
        check(challenge, numbers, copy, entry.line, [piece.path for piece in read])


def test_a_record_that_is_not_in_the_index_is_refused() -> None:
    numbers, copy = big()
    challenge = challenge_of(numbers)
    nonce = draw_nonce(CHANCE)
    read = read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    made_up = PieceRecord(8, b"\1" * 32)
    wrong = [replace(read[0], record=made_up), *read[1:]]
    entry = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, wrong, PROVER.online)
    with pytest.raises(AuditFailed) as failed:
        check(challenge, numbers, copy, entry.line, [piece.path for piece in read])
    assert (failed.value.reason, failed.value.piece) == ("record", challenge.numbers[0])


def test_the_hash_depends_on_every_part_of_the_challenge() -> None:
    numbers, _ = big()
    challenge, nonce = challenge_of(numbers), draw_nonce(CHANCE)
    base = possession_hash(FEDERATION, challenge, nonce, 3, [b"bytes"])
    assert base == possession_hash(FEDERATION, challenge, nonce, 3, [b"by", b"tes"])
    assert base not in {
        possession_hash(sha256(b"another"), challenge, nonce, 3, [b"bytes"]),
        possession_hash(FEDERATION, replace(challenge, auditor=nonce), nonce, 3, [b"bytes"]),
        possession_hash(FEDERATION, replace(challenge, prover=nonce), nonce, 3, [b"bytes"]),
        possession_hash(FEDERATION, replace(challenge, nonce=nonce), nonce, 3, [b"bytes"]),
        possession_hash(FEDERATION, challenge, challenge.nonce, 3, [b"bytes"]),
        possession_hash(FEDERATION, replace(challenge, artifact=nonce), nonce, 3, [b"bytes"]),
        possession_hash(FEDERATION, challenge, nonce, 4, [b"bytes"]),
        possession_hash(FEDERATION, challenge, nonce, 3, [b"bytez"]),
    }


@pytest.mark.parametrize("numbers", [(), (2, 1), (1, 1), tuple(range(MAX_CHALLENGED + 1)), (-1,)])
def test_a_challenge_is_bounded_and_ascending(numbers: tuple[int, ...]) -> None:
    with pytest.raises(Malformed):
        AuditChallenge(AUDITOR.record.node.id, PROVER.record.node.id, sha256(b"a"), PIECES, sha256(b"n"), numbers)


def test_the_largest_failure_fits_into_a_line() -> None:
    numbers, copy = big()
    challenge = challenge_of(numbers, MAX_CHALLENGED)
    line, _ = answered(challenge, numbers, copy)
    failure = AuditFailure(AUDITOR.record.node, challenge, 5, "digest", line, 7)
    assert parse_audited(sign_content(failure, AUDITOR.online).statement) == failure


def wrong_answer() -> tuple[AuditChallenge, PieceNumbers, Copy, Entry, int]:
    numbers, copy = big()
    challenge, nonce = challenge_of(numbers), draw_nonce(CHANCE)
    read = read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    wrong: list[ReadPiece] = [replace(read[0], digest=sha256(b"invented")), *read[1:]]
    return (
        challenge,
        numbers,
        copy,
        sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, wrong, PROVER.online),
        wrong[0].number,
    )


def test_a_wrong_answer_proves_a_fault_to_every_reader_that_has_the_piece() -> None:
    challenge, numbers, copy, entry, piece = wrong_answer()
    failure = AuditFailure(AUDITOR.record.node, challenge, 5, "digest", entry.line, piece)
    assert is_evidence(failure, PROVER.record)
    assert check_failure(failure, PROVER.record, numbers, copy) == "digest"


def test_a_lying_auditor_has_no_evidence_against_an_honest_node() -> None:
    """If an auditor logs a failure for a correct answer, readers find nothing wrong with the answer that the prover
    signed.
    """
    numbers, copy = big()
    challenge = challenge_of(numbers)
    line, _ = answered(challenge, numbers, copy)
    honest = AuditFailure(AUDITOR.record.node, challenge, 5, "digest", line, challenge.numbers[0])
    assert check_failure(honest, PROVER.record, numbers, copy) is None
    for claimed in (
        replace(honest, answer=None),
        replace(honest, piece=None),
        replace(honest, piece=numbers.count),
        replace(honest, answer=b"{}"),
        replace(honest, challenge=replace(challenge, prover=OTHER.record.node.id)),
        replace(honest, challenge=challenge_of(numbers)),  # an answer to another challenge proves no fault
        replace(honest, challenge=replace(challenge, auditor=THIRD.record.node.id)),
    ):
        assert not is_evidence(claimed, PROVER.record)
        assert check_failure(claimed, PROVER.record, numbers, copy) is None
    for reason in REASONS:
        assert check_failure(replace(honest, reason=reason), PROVER.record, numbers, copy) is None


def test_an_invented_record_proves_a_fault_of_the_prover() -> None:
    numbers, copy = big()
    challenge, nonce = challenge_of(numbers), draw_nonce(CHANCE)
    read = read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    wrong = [replace(read[0], record=PieceRecord(8, b"\1" * 32)), *read[1:]]
    line = sign_answer(PROVER.record, FEDERATION, challenge, nonce, 1, wrong, PROVER.online).line
    failure = AuditFailure(AUDITOR.record.node, challenge, 5, "record", line, read[0].number)
    assert check_failure(failure, PROVER.record, numbers, copy) == "record"


def test_summaries_read_back() -> None:
    rows = tuple(
        AuditRow(
            sha256(b"%d" % at), (PROVER if at % 2 else OTHER).record.node.id, at % 3, 10 * (at % 3), (at + 1) % 2 + 1
        )
        for at in range(60)
    )
    summary = AuditSummary.of(
        AUDITOR.record.node, 20_000, rows, answers_root([b"a", b"b"]), sum(row.passed for row in rows)
    )
    entry = sign_content(summary, AUDITOR.online)
    assert parse_audited(entry.statement) == summary


def test_results_of_a_day_are_split_into_lines_of_bounded_size() -> None:
    rows = [AuditRow(sha256(b"%d" % (at // 3)), sha256(b"node %d" % (at % 3)), 1, 10, 0) for at in range(1_000)]
    parts = split_rows(rows)
    assert [row for part in parts for row in part] == rows
    for part in parts:
        summary = AuditSummary.of(AUDITOR.record.node, 1, tuple(part), sha256(b""), len(part))
        assert parse_audited(sign_content(summary, AUDITOR.online).statement) == summary
    one = [AuditRow(sha256(b"a"), sha256(b"node %d" % at), 0, 0, 1) for at in range(MAX_ROWS + 1)]
    assert [len(part) for part in split_rows(one)] == [MAX_ROWS, 1]


@pytest.mark.parametrize(
    "row",
    [
        AuditRow(sha256(b"a"), sha256(b"n"), 0, 0, 0),
        AuditRow(sha256(b"a"), sha256(b"n"), 2, 1, 0),
        AuditRow(sha256(b"a"), sha256(b"n"), 1, MAX_CHALLENGED + 1, 0),
    ],
)
def test_an_impossible_result_is_refused(row: AuditRow) -> None:
    with pytest.raises(Malformed):
        sign_content(AuditSummary.of(AUDITOR.record.node, 1, (row,), sha256(b""), row.passed), AUDITOR.online)


def test_a_copy_is_listed_once_in_a_summary() -> None:
    row = AuditRow(sha256(b"a"), sha256(b"n"), 1, 1, 0)
    with pytest.raises(Malformed, match="twice"):
        sign_content(AuditSummary.of(AUDITOR.record.node, 1, (row, row), sha256(b""), 2), AUDITOR.online)


def test_an_answer_reads_back() -> None:
    numbers, copy = big()
    challenge, nonce = replace(challenge_of(numbers), lease=60), draw_nonce(CHANCE)
    read = read_pieces(FEDERATION, challenge, nonce, numbers, copy)
    answer = Answer.parse(sign_answer(PROVER.record, FEDERATION, challenge, nonce, 77, read, PROVER.online).statement)
    assert (answer.challenge, answer.nonce, answer.time, answer.by) == (challenge, nonce, 77, PROVER.record.node)
    assert answer.pieces == {piece.number: (piece.record, piece.digest) for piece in read}


def test_the_cost_of_an_answer_is_known_before_it_is_read() -> None:
    lengths = fixed_pieces(9 * 1024 * 1024)
    assert lengths == tensor_pieces(9 * 1024 * 1024, 9 * 1024 * 1024, ())
    file = FileEntry("a", 9 * 1024 * 1024, sha256(b"a"))
    numbers = PieceNumbers(Manifest.of([file]), PieceIndex((("a", PieceLayout(FIXED_LAYOUT, 3, sha256(b"r"))),)))
    assert numbers.cost([0, 2]) == 2 * 4 * 1024 * 1024 + 3 * 36
