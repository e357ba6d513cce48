"""Growth proofs: a larger checkpoint of a log, proven to continue a smaller one."""

from __future__ import annotations

import pytest
from comity.rules.tree_proofs import MemoryTree, consistency_proof
from comity.trust.errors import Malformed, Untrusted
from comity.trust.tlog.merkle import MAX_SIZE, leaf_hash
from comity.trust.tlog.proof import (
    MAX_CONSISTENCY_HASHES,
    MAX_CONSISTENCY_PROOF,
    ConsistencyProof,
    consistency_proofs,
    is_consistency_proof,
)

TREE = MemoryTree()
ROOTS = [TREE.root()]
for at in range(20):
    TREE.append(leaf_hash(b"%d" % at))
    ROOTS.append(TREE.root())


def growth(old: int, new: int) -> ConsistencyProof:
    return ConsistencyProof("node.example/log", old, new, consistency_proof(old, new, TREE.node))


def test_a_growth_proof_reads_back_and_is_valid() -> None:
    for old in range(21):
        for new in range(old, 21):
            again = ConsistencyProof.parse(growth(old, new).encode())
            assert again == growth(old, new)
            again.verify(ROOTS[old], ROOTS[new])


def test_other_roots_are_refused() -> None:
    with pytest.raises(Untrusted):
        growth(5, 12).verify(ROOTS[5], ROOTS[13])
    with pytest.raises(Untrusted):
        growth(5, 12).verify(ROOTS[6], ROOTS[12])


GOOD = growth(5, 12).encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GOOD[:-1], id="no line feed at its end"),
        pytest.param(b"c2sp.org/tlog-proof@v1\n" + GOOD.partition(b"\n")[2], id="another format"),
        pytest.param(GOOD.replace(b"5 12", b"12 5"), id="shrinking"),
        pytest.param(GOOD.replace(b"5 12", b"05 12"), id="a second spelling of a number"),
        pytest.param(GOOD.replace(b"5 12", b"5 12 13"), id="three sizes"),
        pytest.param(GOOD.replace(b"node.example/log", b"two words"), id="a name that is no origin"),
        pytest.param(GOOD + b"AAAA\n", id="a short hash"),
        pytest.param(GOOD + b"\n", id="an empty line"),
        pytest.param(b"comity/growth/v1\nx\n", id="no sizes"),
        pytest.param(GOOD + GOOD.splitlines(keepends=True)[-1] * (MAX_CONSISTENCY_HASHES + 1), id="too many hashes"),
        pytest.param(GOOD + b"A" * MAX_CONSISTENCY_PROOF + b"\n", id="too long"),
        pytest.param(GOOD.replace(b"node", b"n\xffde"), id="not UTF-8"),
    ],
)
def test_an_invalid_growth_proof_is_refused_and_skipped(data: bytes) -> None:
    with pytest.raises(Malformed):
        ConsistencyProof.parse(data)
    assert consistency_proofs([data, b"a licence", GOOD]) == {("node.example/log", 5, 12): [growth(5, 12)]}
    assert is_consistency_proof(GOOD) and not is_consistency_proof(data)


def test_sizes_and_lengths_up_to_the_limits_are_read() -> None:
    for old, new, count in ((0, 0, 0), (0, MAX_SIZE, MAX_CONSISTENCY_HASHES), (MAX_SIZE, MAX_SIZE, 0)):
        most = ConsistencyProof("node.example/log", old, new, (bytes(32),) * count)
        assert ConsistencyProof.parse(most.encode()) == most
    for old, new, count in ((-1, 0, 0), (0, MAX_SIZE + 1, 0), (5, 4, 0), (0, 1, MAX_CONSISTENCY_HASHES + 1)):
        with pytest.raises(Malformed):
            ConsistencyProof("node.example/log", old, new, (bytes(32),) * count)


def test_a_header_alone_does_not_make_a_growth_proof_of_other_objects() -> None:
    other = b"comity/growth/v2\n" + GOOD.partition(b"\n")[2]
    assert consistency_proofs([other]) == {}
    assert consistency_proofs([GOOD, GOOD])[("node.example/log", 5, 12)] == [growth(5, 12)] * 2
    with pytest.raises(Malformed):
        ConsistencyProof.parse(GOOD[:-1] + b"A")
