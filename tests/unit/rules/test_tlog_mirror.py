"""The parts of an upload, as tlog-mirror defines them, and the mirror's own answers."""

from __future__ import annotations

import pytest
from comity.rules.tree_proofs import MemoryTree, subtree_proof
from comity.rules.witness import MirrorInfo, MirrorUpload, Package
from comity.trust.errors import Malformed, Untrusted
from comity.trust.tlog.merkle import leaf_hash

ENTRIES = [b"entry %d" % number for number in range(700)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
TREE = MemoryTree(LEAVES)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 0, []),
        (700, 700, []),
        (0, 1, [(0, 0, 1)]),
        (0, 256, [(0, 0, 256)]),
        (255, 257, [(0, 255, 256), (256, 256, 257)]),
        (300, 700, [(256, 300, 512), (512, 512, 700)]),
    ],
)
def test_packages_end_at_multiples_of_256(start: int, end: int, expected: list[tuple[int, int, int]]) -> None:
    packages = list(MirrorUpload("a.example/log", start, end).packages())
    assert packages == [Package(*bounds) for bounds in expected]


def test_the_head_is_encoded_as_the_specification_says() -> None:
    head = MirrorUpload("a/b", 258, 513, b"t").encode()
    assert head == b"\x00\x03a/b" + (258).to_bytes(8, "big") + (513).to_bytes(8, "big") + b"\x00\x01t"


def test_a_package_is_encoded_as_the_specification_says() -> None:
    assert Package(0, 0, 2).encode([b"x", b""], [bytes(32)]) == b"\x00\x01x\x00\x00\x01" + bytes(32)


@pytest.mark.parametrize(("start", "size"), [(0, 700), (300, 700), (699, 700), (255, 256), (256, 513)])
def test_entries_are_proven_after_those_that_are_known(start: int, size: int) -> None:
    for package in MirrorUpload("a.example/log", start, size).packages():
        before, entries = LEAVES[package.first : package.start], ENTRIES[package.start : package.end]
        proof = subtree_proof(package.first, package.end, size, TREE.node)
        package.verify(before, entries, proof, size, TREE.root(size))
        for wrong in ([*entries[:-1], b"another"], entries[:-1], [*entries, b"one more"]):
            with pytest.raises(Untrusted):
                package.verify(before, wrong, proof, size, TREE.root(size))


@pytest.mark.parametrize(("origin", "start", "end"), [("", 0, 0), ("a b", 0, 0), ("a", 2, 1), ("a", 0, 2**63)])
def test_an_invalid_upload_is_refused(origin: str, start: int, end: int) -> None:
    with pytest.raises(Malformed):
        MirrorUpload(origin, start, end)


def test_a_mirrors_state_is_three_lines() -> None:
    assert MirrorInfo(600, 256).encode() == b"600\n256\n\n"
    assert MirrorInfo.parse(b"600\n256\nAAA=\n") == MirrorInfo(600, 256, b"\x00\x00")
    for data in (b"", b"1\n2\n", b"1\n2\n\n\n", b"1\n02\n\n", b"1\n2\nA\n", b"\xff\n2\n\n", b"1\r\n2\r\n\r\n"):
        with pytest.raises(Malformed):
            MirrorInfo.parse(data)
