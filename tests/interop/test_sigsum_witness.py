"""One of our logs with Debian's `sigsum-witness` (Go): it cosigns consistent growth and refuses contradictions."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity.rules.tree_proofs import MemoryTree, consistency_proof
from comity.trust.encoding import b64encode
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, verify_cosignature
from support.seeded import seeded_key
from support.sigsum import sigsum_witness

pytestmark = pytest.mark.go

LOG = seeded_key("ed25519", "sigsum witness")
ORIGIN = f"sigsum.org/v1/tree/{hashlib.sha256(LOG.public.raw).hexdigest()}"
TREE = MemoryTree(leaf_hash(b"entry %d" % i) for i in range(40))
FORK = MemoryTree(leaf_hash(b"another %d" % i) for i in range(40))


@dataclass(frozen=True)
class Witness:
    port: int
    key: VerifierKey

    def add_checkpoint(self, old: int, proof: Sequence[bytes], note: SignedNote) -> tuple[int, str]:
        """C2SP tlog-witness: the status and the body of the answer."""
        head = "".join([f"old {old}\n", *(f"{b64encode(value)}\n" for value in proof), "\n"])
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/add-checkpoint", head.encode() + note.encode())
        response = connection.getresponse()
        try:
            return response.status, response.read().decode()
        finally:
            connection.close()


def head(size: int, tree: MemoryTree = TREE) -> Checkpoint:
    return Checkpoint(ORIGIN, size, tree.root(size))


def grow(witness: Witness, old: int, new: int, tree: MemoryTree = TREE) -> tuple[int, str]:
    proof = consistency_proof(old, new, tree.node) if old <= new else ()
    return witness.add_checkpoint(old, proof, head(new, tree).signed(LOG))


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with sigsum_witness(tmp_path, LOG.public) as (port, key):
        yield Witness(port, key)


def test_sigsum_witness_cosigns_our_growing_log(witness: Witness) -> None:
    for old, new in ((0, 1), (1, 2), (2, 5), (5, 8), (8, 33)):
        status, body = grow(witness, old, new)
        assert status == 200, body
        (line,) = (NoteSignature.parse(line) for line in body.splitlines())
        assert verify_cosignature(line, witness.key, head(new)) > 0


def test_sigsum_witness_cosigns_the_same_checkpoint_again(witness: Witness) -> None:
    assert grow(witness, 0, 3)[0] == 200
    status, body = grow(witness, 3, 3)
    assert status == 200
    assert verify_cosignature(NoteSignature.parse(body.rstrip("\n")), witness.key, head(3)) > 0


def test_sigsum_witness_answers_409_with_its_size_to_a_stale_one(witness: Witness) -> None:
    assert grow(witness, 0, 33)[0] == 200
    assert grow(witness, 8, 40) == (409, "33\n")


def test_sigsum_witness_answers_422_to_a_fork_of_our_log(witness: Witness) -> None:
    assert grow(witness, 0, 33)[0] == 200
    assert grow(witness, 33, 40, FORK)[0] == 422
    assert grow(witness, 33, 33, FORK)[0] == 422
    assert grow(witness, 33, 40)[0] == 200


def test_sigsum_witness_refuses_a_rollback_another_log_and_another_key(witness: Witness) -> None:
    assert grow(witness, 0, 33)[0] == 200
    assert grow(witness, 33, 8)[0] == 400
    other = Checkpoint("sigsum.org/v1/tree/" + "00" * 32, 33, TREE.root(33)).signed(LOG)
    assert witness.add_checkpoint(33, (), other)[0] == 404
    forged = SignedNote(head(40).text, head(33).signed(LOG).signatures)
    assert witness.add_checkpoint(33, consistency_proof(33, 40, TREE.node), forged)[0] == 403
