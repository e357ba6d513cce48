"""The chained piece layout: its format, what its records prove, and the hash engine that makes it."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from comity import hashing
from comity.hashing import INITIAL_STATE, ContinueFrom, FileHash, hash_by_chain, load, result_of, start_of
from comity.rules.pieces import chained_records, encode_records, records_root
from comity.trust.artifact import PIECE_SIZE, RECORD_BYTES, PieceRecord, check_chained
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from support import sha256 as oracle

SIZE = 3 * PIECE_SIZE + 1001
DATA = random.Random(1).randbytes(SIZE)
DIGEST = sha256(DATA)


@pytest.fixture(name="engine")
def _engine() -> ContinueFrom:
    engine = load()
    if engine is None:
        pytest.skip("libcrypto's SHA256_CTX is not usable here: install OpenSSL 3 (libcrypto.so.3)")
    return engine


def states_of(data: bytes, engine: ContinueFrom) -> list[bytes]:
    hashed = FileHash(len(data), engine)
    hashed.update(bytearray(data))
    assert hashed.digest() == hashlib.sha256(data).digest()
    assert hashed.states is not None
    return hashed.states


def records_of(data: bytes, engine: ContinueFrom) -> list[PieceRecord]:
    return chained_records(len(data), states_of(data, engine), sha256(data))


def pieces_of(data: bytes) -> list[bytes]:
    return [data[at : at + PIECE_SIZE] for at in range(0, len(data), PIECE_SIZE)]


def test_the_initial_state_is_that_of_the_standard() -> None:
    assert oracle.INITIAL == INITIAL_STATE
    assert oracle.digest_from(b"abc") == hashlib.sha256(b"abc").digest()


def test_records_have_the_form_of_other_records(engine: ContinueFrom) -> None:
    records = records_of(DATA, engine)
    encoded = encode_records(records)
    assert len(encoded) == 4 * RECORD_BYTES
    assert encoded[:4] == struct.pack(">I", PIECE_SIZE)
    assert encoded[-36:] == struct.pack(">I", 1001) + bytes.fromhex(DIGEST)
    assert check_chained(encoded, size=SIZE, digest=DIGEST) == records
    assert records_root(records) != records_root(records[:-1])


@pytest.mark.parametrize("size", [0, 1, 63, 64, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 2 * PIECE_SIZE])
def test_a_file_of_any_length_is_proven_by_its_records(engine: ContinueFrom, size: int) -> None:
    data = DATA[:size]
    records = records_of(data, engine)
    assert check_chained(encode_records(records), size=size, digest=sha256(data)) == records
    assert first_wrong(pieces_of(data), records, engine) is None


def test_a_file_of_one_piece_has_the_record_that_a_plain_layout_gives(engine: ContinueFrom) -> None:
    assert records_of(DATA[:5000], engine) == [PieceRecord(5000, hashlib.sha256(DATA[:5000]).digest())]


@pytest.mark.parametrize("at", [0, PIECE_SIZE - 1, PIECE_SIZE, 2 * PIECE_SIZE + 77, SIZE - 1])
def test_a_changed_byte_is_found_in_its_own_piece_alone(engine: ContinueFrom, at: int) -> None:
    records, wrong = records_of(DATA, engine), bytearray(DATA)
    wrong[at] ^= 1
    pieces = pieces_of(bytes(wrong))
    assert first_wrong(pieces, records, engine) == at // PIECE_SIZE
    found = [number for number in range(4) if not right(number, pieces[number], records, engine)]
    assert found == [at // PIECE_SIZE], "in any order"


def first_wrong(pieces: Sequence[bytes], records: list[PieceRecord], engine: ContinueFrom) -> int | None:
    """The first of all pieces of a file, in order, whose bytes do not lead to its record; None if all do."""
    for number, data in enumerate(pieces):
        hashed = engine(*start_of(records, number))
        hashed.update(data)
        if len(data) != records[number].length or result_of(records, number, hashed) != records[number].sha256:
            return number
    return None if len(pieces) == len(records) else len(pieces)


def right(number: int, data: bytes, records: list[PieceRecord], engine: ContinueFrom) -> bool:
    hashed = engine(*start_of(records, number))
    hashed.update(data)
    return (hashed.digest() if number == len(records) - 1 else hashed.state()) == records[number].sha256


def test_swapped_and_missing_pieces_are_wrong(engine: ContinueFrom) -> None:
    records, pieces = records_of(DATA, engine), pieces_of(DATA)
    assert first_wrong([pieces[1], pieces[0], *pieces[2:]], records, engine) == 0
    assert first_wrong([pieces[0], pieces[2], pieces[1], pieces[3]], records, engine) == 1
    assert first_wrong(pieces[:-1], records, engine) == 3
    assert first_wrong([*pieces[:-1], pieces[-1][:-1]], records, engine) == 3
    assert first_wrong([pieces[0], pieces[1][:-1], *pieces[2:]], records, engine) == 1


def test_states_from_which_wrong_bytes_follow_break_the_chain_elsewhere(engine: ContinueFrom) -> None:
    """The maker of the records, even the publisher, can make one piece with wrong bytes pass, but never all of them."""
    records, evil = records_of(DATA, engine), random.Random(2).randbytes(PIECE_SIZE)
    hashed = engine(*start_of(records, 1))
    hashed.update(evil)
    forged = [records[0], PieceRecord(PIECE_SIZE, hashed.state()), *records[2:]]
    assert check_chained(encode_records(forged), size=SIZE, digest=DIGEST) == forged, "records alone cannot be judged"
    pieces = pieces_of(DATA)
    assert right(1, evil, forged, engine), "one right piece proves nothing"
    assert first_wrong([pieces[0], evil, *pieces[2:]], forged, engine) == 2
    assert first_wrong(pieces, forged, engine) == 1, "nor is the true file accepted: the reader tries other records"


def test_records_of_another_file_are_refused_before_a_byte_is_read(engine: ContinueFrom) -> None:
    encoded = encode_records(records_of(DATA, engine))
    for data, size, digest in (
        (encoded, SIZE, sha256(b"other")),
        (encoded[:-RECORD_BYTES], SIZE, DIGEST),
        (encoded, SIZE + PIECE_SIZE, DIGEST),
        (b"", 0, DIGEST),
    ):
        with pytest.raises(Untrusted) as refused:
            check_chained(data, size=size, digest=digest)
        assert refused.value.code == "PIECE-RECORDS"


def test_records_with_other_cuts_are_refused() -> None:
    shorter = PIECE_SIZE - 64
    for lengths in ([shorter, PIECE_SIZE, 64 + 1001, PIECE_SIZE], [PIECE_SIZE, PIECE_SIZE, shorter, 64 + 1001]):
        encoded = encode_records(PieceRecord(length, bytes(32)) for length in lengths)
        with pytest.raises(Untrusted, match="not cut every"):
            check_chained(encoded, size=SIZE, digest=Digest("00" * 32))
    with pytest.raises(Malformed):
        check_chained(struct.pack(">I", 0) + bytes(32), size=1, digest=Digest("00" * 32))


def test_a_file_has_one_state_for_each_piece_but_the_last() -> None:
    assert chained_records(SIZE, [bytes(32)] * 3, DIGEST)[-1] == PieceRecord(1001, bytes.fromhex(DIGEST))
    for states in (2, 4):
        with pytest.raises(ValueError, match="zip"):
            chained_records(SIZE, [bytes(32)] * states, DIGEST)


def test_the_engine_agrees_with_the_standard_inside_a_file(engine: ContinueFrom) -> None:
    data = DATA[:640]
    for offset in range(0, 641, 64):
        state = oracle.state_after(data[:offset])
        hashed = engine(state, offset)
        hashed.update(data[offset:600])
        assert hashed.digest() == (
            hashlib.sha256(data[:600]).digest() if offset < 600 else oracle.digest_from(b"", state, offset)
        )


@pytest.mark.parametrize("offset", [1 << 29, (1 << 32) - 64, 1 << 32, 7 << 40])
def test_the_length_of_a_large_file_is_counted(engine: ContinueFrom, offset: int) -> None:
    hashed = engine(INITIAL_STATE, offset)
    hashed.update(b"tail")
    assert hashed.digest() == oracle.digest_from(b"tail", INITIAL_STATE, offset)


def test_a_state_inside_a_block_does_not_exist(engine: ContinueFrom) -> None:
    hashed = engine(INITIAL_STATE, 0)
    hashed.update(b"abc")
    with pytest.raises(ValueError, match="inside a block"):
        hashed.state()
    for state, offset in ((INITIAL_STATE, 63), (INITIAL_STATE, -64), (INITIAL_STATE[:-1], 0)):
        with pytest.raises(ValueError, match="32 bytes"):
            engine(state, offset)


def test_a_library_with_other_hashes_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    library = hashing._Library
    broken = []

    class Broken(library):  # type: ignore[misc, valid-type]
        def __init__(self, name: str) -> None:
            super().__init__(name)
            broken.append(name)
            complete = self.__dict__["update"]
            self.__dict__["update"] = lambda at, data, size: complete(at, data, size - 1 if size > 100 else size)

    monkeypatch.setattr(hashing, "_Library", Broken)
    assert load() is None
    assert load(("libnothing-of-the-kind.so.9",)) is None
    assert load(("libc.so.6",)) is None, "a library without these functions"


def test_without_an_engine_a_file_is_hashed_without_states(tmp_path: Path) -> None:
    hashed = FileHash(len(DATA), None)
    hashed.update(DATA)
    assert (hashed.digest(), hashed.states) == (hashlib.sha256(DATA).digest(), None)


def test_read_only_bytes_are_hashed_as_writable_ones(engine: ContinueFrom) -> None:
    for data in (DATA[:1000], memoryview(DATA[:1000]), bytearray(DATA[:1000]), memoryview(bytearray(DATA[:1000]))):
        hashed = engine(INITIAL_STATE, 0)
        hashed.update(data)
        hashed.update(type(data)(b""))
        assert hashed.digest() == hashlib.sha256(DATA[:1000]).digest()


def test_a_size_from_a_stranger_costs_no_memory() -> None:
    with pytest.raises(Untrusted):
        check_chained(b"", size=2**53 - 1, digest=DIGEST)


def hashed_on(path: Path, records: list[PieceRecord], workers: int = 3) -> tuple[Digest | None, int]:
    counts: list[int] = []
    with path.open("rb") as file:
        found = hash_by_chain(file.fileno(), records, workers, counts.append)
    return found, sum(counts)


def test_a_whole_file_is_hashed_by_threads_in_any_order(engine: ContinueFrom, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    assert hashed_on(tmp_path / "file", records_of(DATA, engine)) == (DIGEST, SIZE)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"\0" + data[1:]])
def test_another_file_does_not_match_the_chain(
    engine: ContinueFrom, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "file").write_bytes(change(DATA))
    assert hashed_on(tmp_path / "file", records_of(DATA, engine))[0] is None


def test_without_records_or_engine_nothing_is_claimed(engine: ContinueFrom, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    assert hashed_on(tmp_path / "file", []) == (None, 0)
    with (tmp_path / "file").open("rb") as file:
        assert hash_by_chain(file.fileno(), records_of(DATA, engine), 2, lambda count: None, None) is None
