"""The checkpoints that a client remembers for each log, and checks new ones against."""

from __future__ import annotations

import stat
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from comity.rules.tree_proofs import MemoryTree, consistency_proof
from comity.trust.errors import Conflict, Equivocation, Malformed, Unavailable, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import MAX_NOTE, MAX_SIGNATURES, NoteSignature, SignedNote, cosign, open_checkpoint
from comity_client.seen import ConsistencyProofs, SeenLogs, reconcile_checkpoint
from support.logs import LogKeys

LOG = LogKeys.generate("node-a.example/log")


def tree_of(size: int, salt: bytes = b"") -> MemoryTree:
    tree = MemoryTree()
    for number in range(size):
        tree.append(leaf_hash(salt + b"%d" % number))
    return tree


def note(tree: MemoryTree) -> SignedNote:
    return LOG.note(tree.size, tree.root())


def given(*proofs: tuple[bytes, ...]) -> ConsistencyProofs:
    """Every node that is asked gives these proofs."""

    async def ask(origin: str, old: int, new: int) -> AsyncGenerator[tuple[bytes, ...], None]:
        for proof in proofs:
            yield proof

    return ask


@pytest.fixture
def memory(tmp_path: Path) -> SeenLogs:
    return SeenLogs(tmp_path)


def size_known(memory: SeenLogs) -> int:
    newest = memory.newest(LOG.verifier)
    assert newest is not None
    return open_checkpoint(newest, LOG.verifier).size


def test_the_first_checkpoint_is_remembered_privately(memory: SeenLogs, tmp_path: Path) -> None:
    memory.advance(LOG.verifier, note(tree_of(3)))
    assert SeenLogs(tmp_path).newest(LOG.verifier) == note(tree_of(3))
    (file,) = (tmp_path / "logs").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_checkpoint_that_the_log_did_not_sign_is_not_remembered(memory: SeenLogs) -> None:
    stranger = LogKeys.generate(LOG.origin)
    with pytest.raises(Untrusted):
        memory.advance(LOG.verifier, stranger.note(3, tree_of(3).root()))
    assert memory.newest(LOG.verifier) is None


def test_a_stored_checkpoint_that_is_damaged_is_named(memory: SeenLogs, tmp_path: Path) -> None:
    memory.advance(LOG.verifier, note(tree_of(3)))
    (file,) = (tmp_path / "logs").iterdir()
    for damaged in (file.read_bytes()[:40], file.read_bytes().replace(b"\n3\n", b"\n4\n")):
        file.write_bytes(damaged)
        with pytest.raises(Malformed, match=LOG.origin) as caught:
            memory.newest(LOG.verifier)
        assert caught.value.hint == f"remove {file}"


def test_a_checkpoint_that_adds_nothing_is_not_written_again(memory: SeenLogs, tmp_path: Path) -> None:
    witness = LogKeys.generate("node-b.example/log")
    first = note(tree_of(3))
    cosigned = first.with_signatures(*witness.note(3, tree_of(3).root()).signatures)
    memory.advance(LOG.verifier, cosigned)
    (file,) = (tmp_path / "logs").iterdir()
    written = file.stat().st_ino
    for again in (cosigned, first):
        memory.advance(LOG.verifier, again)
        assert file.stat().st_ino == written
    other = LogKeys.generate("node-c.example/log").note(3, tree_of(3).root()).signatures
    memory.advance(LOG.verifier, first.with_signatures(*other))
    newest = memory.newest(LOG.verifier)
    assert newest == cosigned.with_signatures(*other)
    assert file.stat().st_ino != written


def cosigned_again(times: range) -> Iterator[SignedNote]:
    """The checkpoint of an idle log, with a new cosignature of one cosigner each time."""
    checkpoint, witness = open_checkpoint(note(tree_of(3)), LOG.verifier), PrivateKey.generate("ed25519")
    for time in times:
        yield note(tree_of(3)).with_signatures(cosign(checkpoint, "witness.example/w", witness, time))


def test_the_memory_of_an_idle_log_keeps_one_cosignature_of_each_cosigner(memory: SeenLogs, tmp_path: Path) -> None:
    first, *later = cosigned_again(range(1, MAX_SIGNATURES + 2))
    memory.advance(LOG.verifier, first)
    (file,) = (tmp_path / "logs").iterdir()
    written = file.stat().st_ino
    for again in later:
        memory.advance(LOG.verifier, again)
    assert file.stat().st_ino == written
    assert memory.newest(LOG.verifier) == first


def test_the_memory_takes_no_more_cosigners_than_a_note_may_have(memory: SeenLogs) -> None:
    first = note(tree_of(3))
    memory.advance(LOG.verifier, first)
    strangers = [NoteSignature(f"stranger-{number}", b"\0\0\0\1", b"x") for number in range(MAX_SIGNATURES + 50)]
    for start in range(0, len(strangers), 50):
        memory.advance(LOG.verifier, first.with_signatures(*strangers[start : start + 50]))
    newest = memory.newest(LOG.verifier)
    assert newest is not None
    assert newest.signatures == (*first.signatures, *strangers[: MAX_SIGNATURES - 1])


def test_lines_that_would_make_the_memory_too_large_to_read_are_left_out(memory: SeenLogs) -> None:
    first, large = note(tree_of(3)), b"x" * (MAX_NOTE * 3 // 5)
    for number in range(3):
        memory.advance(LOG.verifier, first.with_signatures(NoteSignature(f"s-{number}", b"\0\0\0\1", large)))
        assert memory.newest(LOG.verifier) == first.with_signatures(NoteSignature("s-0", b"\0\0\0\1", large))


def test_a_memory_with_more_cosignatures_than_a_note_may_have_is_still_read(memory: SeenLogs, tmp_path: Path) -> None:
    memory.advance(LOG.verifier, note(tree_of(3)))
    (file,) = (tmp_path / "logs").iterdir()
    lines = [line for each in cosigned_again(range(1, MAX_SIGNATURES + 2)) for line in each.signatures]
    file.write_bytes(note(tree_of(3)).with_signatures(*lines).encode())
    assert size_known(memory) == 3
    tree = tree_of(9)
    memory.advance(LOG.verifier, note(tree), consistency_proof(3, 9, tree.node))
    assert memory.newest(LOG.verifier) == note(tree)


async def test_a_newer_checkpoint_moves_the_memory_with_its_proof(memory: SeenLogs) -> None:
    tree = tree_of(9)
    memory.advance(LOG.verifier, note(tree_of(4)))
    await reconcile_checkpoint(memory, LOG.verifier, note(tree), given((), consistency_proof(4, 9, tree.node)))
    assert size_known(memory) == 9


def test_the_memory_does_not_move_without_a_proof(memory: SeenLogs) -> None:
    memory.advance(LOG.verifier, note(tree_of(4)))
    with pytest.raises(Untrusted):
        memory.advance(LOG.verifier, note(tree_of(9)), ())
    assert size_known(memory) == 4


def test_the_memory_refuses_to_go_back(memory: SeenLogs) -> None:
    memory.advance(LOG.verifier, note(tree_of(9)))
    with pytest.raises(Conflict):
        memory.advance(LOG.verifier, note(tree_of(4)))
    assert size_known(memory) == 9


async def test_an_older_checkpoint_of_the_same_history_is_no_contradiction(memory: SeenLogs) -> None:
    tree = tree_of(9)
    memory.advance(LOG.verifier, note(tree))
    await reconcile_checkpoint(memory, LOG.verifier, note(tree_of(4)), given(consistency_proof(4, 9, tree.node)))
    assert size_known(memory) == 9
    assert memory.contradictions() == ()


async def test_one_size_with_two_roots_is_kept_and_raised(memory: SeenLogs) -> None:
    memory.advance(LOG.verifier, note(tree_of(4)))
    with pytest.raises(Equivocation) as caught:
        await reconcile_checkpoint(memory, LOG.verifier, note(tree_of(4, b"other")), given())
    assert len(caught.value.proof) == 2
    (kept,) = memory.contradictions()
    assert (kept.kind, kept.log) == ("split-view", LOG.origin)
    assert size_known(memory) == 4


@pytest.mark.parametrize("sizes", [(4, 9), (9, 4)])
async def test_two_sizes_without_a_proof_between_them_are_kept_and_accuse_no_log(
    memory: SeenLogs, sizes: tuple[int, int]
) -> None:
    memory.advance(LOG.verifier, note(tree_of(sizes[0])))
    other = tree_of(max(sizes), b"other")
    with pytest.raises(Untrusted) as caught:
        await reconcile_checkpoint(
            memory,
            LOG.verifier,
            note(tree_of(sizes[1], b"other")),
            given(consistency_proof(4, 9, other.node), consistency_proof(4, 9, tree_of(9).node)[:1]),
        )
    assert (caught.type, caught.value.code) == (Untrusted, "UNRECONCILED")
    (kept,) = memory.contradictions()
    assert kept.kind == "unreconciled"
    assert size_known(memory) == sizes[0]


async def test_without_an_answer_nothing_is_concluded(memory: SeenLogs) -> None:
    memory.advance(LOG.verifier, note(tree_of(4)))
    with pytest.raises(Unavailable) as caught:
        await reconcile_checkpoint(memory, LOG.verifier, note(tree_of(9)), given())
    assert caught.value.code == "UNLINKED"
    assert size_known(memory) == 4
    assert memory.contradictions() == ()


async def test_the_same_contradiction_is_kept_once(memory: SeenLogs) -> None:
    memory.advance(LOG.verifier, note(tree_of(4)))
    for _ in range(2):
        with pytest.raises(Equivocation):
            await reconcile_checkpoint(memory, LOG.verifier, note(tree_of(4, b"other")), given())
    assert len(memory.contradictions()) == 1


async def test_an_empty_log_is_the_beginning_of_every_history(memory: SeenLogs) -> None:
    memory.advance(LOG.verifier, note(tree_of(0)))
    await reconcile_checkpoint(memory, LOG.verifier, note(tree_of(4)), given())
    await reconcile_checkpoint(memory, LOG.verifier, note(tree_of(0)), given())
    assert size_known(memory) == 4
