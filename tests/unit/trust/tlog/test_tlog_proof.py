"""Inclusion proofs as text (C2SP tlog-proof)."""

from __future__ import annotations

import pytest
from comity.rules.tree_proofs import MemoryTree, inclusion_proof
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import MAX_SIZE, leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, log_verifier_key
from comity.trust.tlog.proof import TlogProof

ORIGIN = "node-a.example/log"
KEY = PrivateKey.generate("ed25519")
VKEY = log_verifier_key(ORIGIN, KEY.public)
ENTRIES = [b"entry %d" % i for i in range(7)]
TREE = MemoryTree(leaf_hash(entry) for entry in ENTRIES)
CHECKPOINT = Checkpoint(ORIGIN, 7, TREE.root())
NOTE = CHECKPOINT.signed(KEY)


def proof(index: int, extra: bytes | None = None) -> TlogProof:
    return TlogProof(index, inclusion_proof(index, 7, TREE.node), NOTE, extra)


def test_every_entry_is_proven_and_no_other() -> None:
    for index, entry in enumerate(ENTRIES):
        carried = TlogProof.parse(proof(index).encode())
        assert carried.verify(entry, VKEY) == CHECKPOINT
        for other in (*ENTRIES[:index], *ENTRIES[index + 1 :], b""):
            with pytest.raises(Untrusted):
                carried.verify(other, VKEY)


def test_a_proof_with_extra_data_is_printed_and_parsed() -> None:
    data = proof(3, extra=b"anything").encode()
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nextra YW55dGhpbmc=\nindex 3\n")
    assert TlogProof.parse(data) == proof(3, extra=b"anything")


def test_a_proof_for_the_only_leaf_has_no_hashes() -> None:
    checkpoint = Checkpoint(ORIGIN, 1, leaf_hash(b"one"))
    alone = TlogProof(0, (), checkpoint.signed(KEY))
    assert alone.encode().startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nnode-a")
    assert TlogProof.parse(alone.encode()).verify(b"one", VKEY) == checkpoint


def test_a_proof_by_another_log_key_is_refused() -> None:
    with pytest.raises(Untrusted):
        proof(0).verify(ENTRIES[0], log_verifier_key(ORIGIN, PrivateKey.generate("ed25519").public))


def test_a_checkpoint_changed_after_signing_is_refused() -> None:
    forged = SignedNote(Checkpoint(ORIGIN, 8, TREE.root()).text, NOTE.signatures)
    with pytest.raises(Untrusted):
        TlogProof(0, proof(0).hashes, forged).verify(ENTRIES[0], VKEY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"c2sp.org/tlog-proof@v1\n", b""),
        (b"c2sp.org/tlog-proof@v1\n", b"c2sp.org/tlog-proof@v2\n"),
        (b"index 3\n", b"index 03\n"),
        (b"index 3\n", b"index -3\n"),
        (b"index 3\n", b"index  3\n"),
        (b"index 3\n", b"index\n"),
        (b"index 3\n", b""),
        (b"index 3\n", b"index 9223372036854775807\n"),
        (b"index 3\n", b"extra \nindex 3\n"),
        (b"index 3\n", b"extra !!\nindex 3\n"),
        (b"index 3\n", b"extra YQ==\nextra YQ==\nindex 3\n"),
        (b"index 3\n", b"index 3\nYQ==\n"),
        (b"index 3\n", b"index 3\n!!\n"),
        (b"index 3\n", b"index 3\n\xff\n"),
        (b"index 3\n", b"index 3\r\n"),
        (b"index 3\n", b"index 3\n\n"),
        (b"\n\nnode-a", b"\nnode-a"),
        (b"\n\nnode-a", b"\n\n\nnode-a"),
    ],
)
def test_a_proof_in_another_spelling_is_refused(old: bytes, new: bytes) -> None:
    data = proof(3).encode()
    assert old in data
    with pytest.raises(ComityError):
        TlogProof.parse(data.replace(old, new, 1)).verify(ENTRIES[3], VKEY)


def test_the_sixty_fourth_hash_is_refused() -> None:
    hashes = (leaf_hash(b""),) * 63
    longest = TlogProof(0, hashes, NOTE)
    assert TlogProof.parse(longest.encode()) == longest
    with pytest.raises(Malformed):
        TlogProof(0, (*hashes, leaf_hash(b"")), NOTE)
    line = b"index 0\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n"
    with pytest.raises(Malformed):
        TlogProof.parse(longest.encode().replace(b"index 0\n", line, 1))


def test_a_proof_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match="too large"):
        TlogProof.parse(b"\xff" * 2_000_000)


def test_an_index_and_hashes_are_within_bounds() -> None:
    for index in (0, MAX_SIZE - 1):
        proven = TlogProof(index, (), NOTE)
        assert TlogProof.parse(proven.encode()) == proven
    for index, hashes in ((-1, ()), (MAX_SIZE, ()), (0, (bytes(31),)), (0, (bytes(32), bytes(33)))):
        with pytest.raises(Malformed):
            TlogProof(index, hashes, NOTE)


def test_a_proof_without_the_word_index_is_refused() -> None:
    for line in (b"3\n", b"place 3\n", b"Index 3\n"):
        with pytest.raises(Malformed, match="expected an index line"):
            TlogProof.parse(proof(3).encode().replace(b"index 3\n", line, 1))
