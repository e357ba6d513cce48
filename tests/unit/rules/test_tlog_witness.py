"""The bodies of add-checkpoint, as logs write them and witnesses answer."""

from __future__ import annotations

import pytest
from comity.rules.witness import AddCheckpoint, MirrorUpload, encode_signatures, parse_signatures
from comity.trust.encoding import b64encode
from comity.trust.errors import Malformed
from comity.trust.tlog.merkle import EMPTY_ROOT, MAX_SIZE, leaf_hash
from comity.trust.tlog.note import Checkpoint, cosign
from support.seeded import seeded_key

ORIGIN = "node-a.example/log"
KEY = seeded_key("ed25519", "tlog-witness")
NOTE = Checkpoint(ORIGIN, 3, leaf_hash(b"")).signed(KEY)
HASH = leaf_hash(b"hash")


@pytest.mark.parametrize("hashes", [0, 1, 63])
def test_a_request_reads_back(hashes: int) -> None:
    request = AddCheckpoint(2, (HASH,) * hashes, NOTE)
    assert AddCheckpoint.parse(request.encode()) == request
    assert request.origin == ORIGIN


def test_a_request_is_encoded_as_the_specification_shows() -> None:
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT).signed(KEY)
    expected = f"old 0\n{b64encode(HASH)}\n\n{ORIGIN}\n0\n{b64encode(EMPTY_ROOT)}\n\n{empty.signatures[0]}\n"
    assert AddCheckpoint(0, (HASH,), empty).encode().decode() == expected


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"3",
        b"old",
        b"old ",
        b"old 01",
        b"old -1",
        b"old +1",
        b"old 1 ",
        b"old 9223372036854775808",
        b"old 1\r",
        b"Old 1",
        "old \N{ARABIC-INDIC DIGIT ONE}".encode(),
        b"old 1\n" + b64encode(HASH)[:-1].encode(),
        b"old 1\n" + b64encode(HASH[:-1]).encode(),
        b"old 1\n" + b"\n".join([b64encode(HASH).encode()] * 64),
    ],
)
def test_another_spelling_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        AddCheckpoint.parse(head + b"\n\n" + NOTE.encode())


def test_a_request_without_a_checkpoint_is_refused() -> None:
    for body in (b"", b"old 0\n", b"old 0\n\n", b"old 0\n\n\n", b"old 0\n\nonly text\n"):
        with pytest.raises(Malformed):
            AddCheckpoint.parse(body)


def test_an_answer_reads_back() -> None:
    lines = [
        cosign(Checkpoint(ORIGIN, 3, leaf_hash(b"")), "w.example", seeded_key("ed25519", str(i)), i) for i in (1, 2)
    ]
    assert parse_signatures(encode_signatures(lines)) == tuple(lines)
    assert parse_signatures(b"") == ()


def test_an_answer_that_is_cut_short_or_not_text_is_refused() -> None:
    line = encode_signatures([cosign(Checkpoint(ORIGIN, 3, leaf_hash(b"")), "w.example", KEY, 1)])
    for body in (line[:-1], line * 101, b"\xff\n", b"\n", line + b"\n"):
        with pytest.raises(Malformed):
            parse_signatures(body)


def test_the_fields_of_a_request_are_bounded() -> None:
    for old in (0, MAX_SIZE):
        assert AddCheckpoint.parse(AddCheckpoint(old, (), NOTE).encode()).old == old
    for old, proof in ((-1, ()), (MAX_SIZE + 1, ()), (0, (HASH[:-1],)), (0, (HASH, HASH + b"x")), (0, (HASH,) * 64)):
        with pytest.raises(Malformed):
            AddCheckpoint(old, proof, NOTE)


def test_an_answer_has_up_to_a_hundred_lines() -> None:
    line = cosign(Checkpoint(ORIGIN, 3, leaf_hash(b"")), "w.example", KEY, 1)
    assert parse_signatures(encode_signatures([line] * 100)) == (line,) * 100


def test_an_upload_is_within_the_bounds_of_a_log() -> None:
    for start, end, ticket in ((0, 0, b""), (0, MAX_SIZE, bytes(65_535)), (MAX_SIZE, MAX_SIZE, b"t")):
        upload = MirrorUpload(ORIGIN, start, end, ticket)
        assert (upload.start, upload.end, upload.ticket) == (start, end, ticket)
    for start, end, ticket in ((-1, 0, b""), (1, 0, b""), (0, MAX_SIZE + 1, b""), (0, 0, bytes(65_536))):
        with pytest.raises(Malformed):
            MirrorUpload(ORIGIN, start, end, ticket)
