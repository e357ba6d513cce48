"""Merkle trees (RFC 6962): roots, inclusion proofs and consistency proofs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from comity.rules.tiles import tiles_between
from comity.rules.tree_proofs import (
    Frontier,
    MemoryTree,
    consistency_proof,
    inclusion_proof,
    is_subtree,
    subtree_proof,
    tree_root,
    verify_subtree,
)
from comity.trust.errors import Malformed, Untrusted
from comity.trust.tlog.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

N = 64
TRIED_WHOLE = 40
"""Sizes up to which each proof is tried with each other index or size: beyond one that is a power of two."""
LEAVES = [leaf_hash(b"leaf %d" % i) for i in range(N)]
TREE = MemoryTree(LEAVES)
OTHER = leaf_hash(b"something else")


def recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, as written there."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


def test_all_ways_to_a_root_agree_for_every_size() -> None:
    frontier = Frontier.empty()
    for size in range(N + 1):
        expected = recursive_root(LEAVES[:size])
        assert root(LEAVES[:size]) == expected
        assert TREE.root(size) == expected
        assert frontier.root() == expected
        assert Frontier.read(size, TREE.node) == frontier == Frontier.empty().extend(LEAVES[:size])
        if size < N:
            frontier = frontier.append(LEAVES[size])


def refuses(check: Callable[..., None], *claim: object) -> bool:
    try:
        check(*claim)
    except Untrusted:
        return True
    return False


def test_every_inclusion_proof_holds_and_no_mutation_of_it_does() -> None:
    for size in range(1, TRIED_WHOLE + 1):
        top = TREE.root(size)
        for index in range(size):
            proof = inclusion_proof(index, size, TREE.node)
            leaf = LEAVES[index]
            verify_inclusion(leaf, index, size, proof, top)
            assert refuses(verify_inclusion, OTHER, index, size, proof, top)
            assert refuses(verify_inclusion, leaf, index, size, proof, OTHER)
            assert refuses(verify_inclusion, leaf, index, size, (*proof, OTHER), top)
            assert refuses(verify_inclusion, leaf, index, size, (OTHER, *proof), top)
            for i in range(len(proof)):
                for bad in ((*proof[:i], OTHER, *proof[i + 1 :]), (*proof[:i], *proof[i + 1 :])):
                    assert refuses(verify_inclusion, leaf, index, size, bad, top)
            for wrong in range(size):
                if wrong != index:
                    assert refuses(verify_inclusion, leaf, wrong, size, proof, top)


def test_an_inclusion_proof_for_another_size_holds_only_where_the_path_is_the_same() -> None:
    for size in range(1, TRIED_WHOLE + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, TREE.node)
            for wrong in (*range(TRIED_WHOLE + 1), N, size * 2, size + 1000):
                same_path = wrong > index and sides(index, wrong) == sides(index, size)
                refused = refuses(verify_inclusion, LEAVES[index], index, wrong, proof, TREE.root(size))
                assert refused is not same_path


@functools.cache
def sides(index: int, size: int) -> list[str]:
    """On which side the sibling is, from the leaf up; computed recursively, unlike in the verifier."""
    if size == 1:
        return []
    k = 1
    while k * 2 < size:
        k *= 2
    return [*sides(index, k), "right"] if index < k else [*sides(index - k, size - k), "left"]


def test_every_consistency_proof_holds_and_no_mutation_of_it_does() -> None:
    for new in range(N + 1):
        new_root = TREE.root(new)
        for old in range(new + 1):
            proof = consistency_proof(old, new, TREE.node)
            old_root = TREE.root(old)
            verify_consistency(old, old_root, new, new_root, proof)
            assert refuses(verify_consistency, old, OTHER, new, new_root, proof)
            if old:
                assert refuses(verify_consistency, old, old_root, new, OTHER, proof)
            assert refuses(verify_consistency, old, old_root, new, new_root, (*proof, OTHER))
            for i in range(len(proof)):
                for bad in ((*proof[:i], OTHER, *proof[i + 1 :]), (*proof[:i], *proof[i + 1 :])):
                    assert refuses(verify_consistency, old, old_root, new, new_root, bad)


def test_a_consistency_proof_does_not_hold_for_another_old_size() -> None:
    for new in range(2, TRIED_WHOLE + 1):
        for old in range(1, new):
            proof = consistency_proof(old, new, TREE.node)
            for wrong in range(new + 1):
                if wrong != old:
                    assert refuses(verify_consistency, wrong, TREE.root(old), new, TREE.root(new), proof)


def test_two_roots_for_one_size_are_never_consistent() -> None:
    with pytest.raises(Untrusted) as refusal:
        verify_consistency(5, TREE.root(5), 5, OTHER, ())
    assert refusal.value.code == "CONSISTENCY"


def test_nothing_is_included_in_an_empty_tree() -> None:
    with pytest.raises(Untrusted) as refusal:
        verify_inclusion(LEAVES[0], 0, 0, (), EMPTY_ROOT)
    assert refusal.value.code == "INCLUSION"


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (0, -1), (3, MAX_SIZE + 1)])
def test_numbers_outside_a_log_are_refused(index: int, size: int) -> None:
    with pytest.raises(Untrusted):
        verify_inclusion(LEAVES[0], index, size, (), EMPTY_ROOT)
    with pytest.raises(Untrusted):
        verify_consistency(index, EMPTY_ROOT, size, EMPTY_ROOT, ())


def test_a_proof_longer_than_the_tree_is_high_is_refused() -> None:
    with pytest.raises(Untrusted, match="instead of"):
        verify_inclusion(LEAVES[0], 0, MAX_SIZE, [OTHER] * 64, OTHER)
    with pytest.raises(Untrusted, match="instead of"):
        verify_consistency(3, OTHER, MAX_SIZE, OTHER, [OTHER] * 66)


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(Malformed):
        verify_inclusion(LEAVES[0], 0, 2, (b"short",), EMPTY_ROOT)
    with pytest.raises(Malformed):
        verify_consistency(1, LEAVES[0], 2, b"short", (LEAVES[1],))
    with pytest.raises(Malformed):
        Frontier(1, (b"short",))


def test_a_frontier_has_one_hash_for_each_bit_of_its_size() -> None:
    with pytest.raises(Malformed):
        Frontier(3, (LEAVES[0],))
    with pytest.raises(Malformed):
        Frontier(-1, (LEAVES[0],))


def test_a_proof_outside_the_tree_cannot_be_made() -> None:
    for attempt in (
        lambda: inclusion_proof(5, 5, TREE.node),
        lambda: inclusion_proof(-1, 5, TREE.node),
        lambda: consistency_proof(6, 5, TREE.node),
        lambda: consistency_proof(-1, 5, TREE.node),
        lambda: TREE.node(0, N),
        lambda: TREE.node(-1, 0),
        lambda: TREE.node(0, -1),
    ):
        with pytest.raises(Malformed) as refusal:
            attempt()
        assert refusal.value.code == "RANGE"


def test_a_root_is_read_from_complete_subtrees_only() -> None:
    asked: list[tuple[int, int]] = []

    def node(level: int, index: int) -> bytes:
        asked.append((level, index))
        return TREE.node(level, index)

    assert tree_root(13, node) == TREE.root(13)
    assert asked == [(3, 0), (2, 2), (0, 12)]


SUBTREES = [
    (start, end, size)
    for size in range(1, 18)
    for start in range(size)
    for end in range(start + 1, size + 1)
    if is_subtree(start, end)
]


def test_every_subtree_of_every_small_tree_is_proven_and_nothing_else_by_the_same_proof() -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(17)]
    tree = MemoryTree(leaves)
    for start, end, size in SUBTREES:
        top, proof = root(leaves[start:end]), subtree_proof(start, end, size, tree.node)
        verify_subtree(start, end, top, size, tree.root(size), proof)
        wrong = [
            (start, end, leaf_hash(b"x"), size, tree.root(size), proof),
            (start, end, top, size, leaf_hash(b"x"), proof),
            (start, end, top, size, tree.root(size), (*proof, top)),
            *((start, end, top, size, tree.root(size), (*proof[:i], top, *proof[i + 1 :])) for i in range(len(proof))),
        ]
        for case in wrong:
            with pytest.raises(Untrusted):
                verify_subtree(*case)


def test_a_subtree_proof_is_the_inclusion_or_consistency_proof_where_it_is_one() -> None:
    tree = MemoryTree(leaf_hash(b"%d" % number) for number in range(17))
    for index in range(17):
        assert subtree_proof(index, index + 1, 17, tree.node) == inclusion_proof(index, 17, tree.node)
        assert subtree_proof(0, index + 1, 17, tree.node) == consistency_proof(index + 1, 17, tree.node)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (1, 0), (-1, 1), (1, 3), (2, 5), (4, 9), (0, 18)])
def test_leaves_that_are_no_subtree_have_no_proof(start: int, end: int) -> None:
    tree = MemoryTree(leaf_hash(b"%d" % number) for number in range(17))
    with pytest.raises(Malformed):
        subtree_proof(start, end, 17, tree.node)
    with pytest.raises(Untrusted):
        verify_subtree(start, end, leaf_hash(b""), 17, tree.root(), ())


def test_places_before_and_behind_a_tree_are_refused() -> None:
    assert not is_subtree(-1, 0) and not is_subtree(-2, 0)
    for claim in ((LEAVES[0], -1, 2, [LEAVES[1]], TREE.root(2)), (LEAVES[0], -1, 1, [], LEAVES[0])):
        assert refuses(verify_inclusion, *claim)
    assert refuses(verify_consistency, -1, LEAVES[0], 1, LEAVES[0], [LEAVES[0]])
    assert refuses(verify_consistency, -1, LEAVES[0], 1, LEAVES[0], [])
    for level, index in ((7, 0), (6, 1), (-1, 0), (0, -1), (0, N)):
        with pytest.raises(Malformed):
            TREE.node(level, index)


def test_hashes_on_a_path_have_thirty_two_bytes() -> None:
    """A shorter one beside a longer one would give the same root."""
    left, right = LEAVES[0] + LEAVES[1][:1], LEAVES[1][1:]
    assert node_hash(left, right) == TREE.root(2)
    calls: tuple[Callable[[], None], ...] = (
        lambda: verify_inclusion(left, 0, 2, [right], TREE.root(2)),
        lambda: verify_consistency(1, LEAVES[0], 2, TREE.root(2), [right]),
        lambda: verify_consistency(3, TREE.root(3), 4, TREE.root(4), [LEAVES[2][:-1], LEAVES[3], TREE.root(2)]),
        lambda: verify_subtree(0, 1, left, 2, TREE.root(2), [right]),
    )
    for call in calls:
        with pytest.raises((Malformed, Untrusted), match="32 bytes"):
            call()


def test_a_tree_may_have_as_many_leaves_as_the_limit() -> None:
    hashes = (OTHER,) * MAX_SIZE.bit_count()
    assert Frontier(MAX_SIZE, hashes).size == MAX_SIZE
    with pytest.raises(Malformed):
        Frontier(MAX_SIZE + 1, (OTHER,))
    assert tiles_between(MAX_SIZE, MAX_SIZE) == []
    for old, new in ((-1, 0), (MAX_SIZE, MAX_SIZE + 1)):
        with pytest.raises(Malformed):
            tiles_between(old, new)
