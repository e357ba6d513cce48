"""Proofs against `spicy-litetlog` (Go, C2SP world) as Debian ships it, in both directions.

It reads and writes the older form of a tlog-proof, without the header line. Its leaf is the file.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from comity.rules.tree_proofs import MemoryTree, inclusion_proof
from comity.trust.errors import Untrusted
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, VerifierKey, cosign, log_verifier_key
from comity.trust.tlog.proof import TlogProof
from support.seeded import seeded_key
from support.tools import needs

pytestmark = pytest.mark.go

HEADER = b"c2sp.org/tlog-proof@v1\n"
ORIGIN = "node-a.example/log"
KEY = seeded_key("ed25519", "spicy")
VKEY = log_verifier_key(ORIGIN, KEY.public)


@pytest.fixture(scope="module")
def spicy() -> str:
    return needs("spicy-litetlog", unlock="apt-get install litetlog")


def run(spicy: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([spicy, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def proof_of(entries: list[bytes], index: int) -> TlogProof:
    tree = MemoryTree(leaf_hash(entry) for entry in entries)
    checkpoint = Checkpoint(ORIGIN, tree.size, tree.root())
    note = checkpoint.signed(KEY).with_signatures(
        cosign(checkpoint, "node-b.example", seeded_key("ml-dsa-44", "spicy"), 1)
    )
    return TlogProof(index, inclusion_proof(index, tree.size, tree.node), note)


@pytest.mark.parametrize(("size", "index"), [(1, 0), (2, 1), (7, 0), (7, 6), (300, 42), (300, 299)])
def test_spicy_accepts_our_proof_and_refuses_a_changed_file(tmp_path: Path, spicy: str, size: int, index: int) -> None:
    entries = [b"entry %d\n" % i for i in range(size)]
    file = tmp_path / "entry"
    file.write_bytes(entries[index])
    proof = proof_of(entries, index).encode()
    Path(f"{file}.spicy").write_bytes(proof.removeprefix(HEADER))
    accepted = run(spicy, "-verify", str(VKEY), file)
    assert accepted.returncode == 0, accepted.stderr
    file.write_bytes(entries[index] + b"changed")
    refused = run(spicy, "-verify", str(VKEY), file)
    assert refused.returncode != 0
    assert "could not verify inclusion" in refused.stderr


def test_spicy_refuses_our_proof_under_another_logs_key(tmp_path: Path, spicy: str) -> None:
    file = tmp_path / "entry"
    file.write_bytes(b"entry 0\n")
    Path(f"{file}.spicy").write_bytes(proof_of([b"entry 0\n"], 0).encode().removeprefix(HEADER))
    stranger = log_verifier_key(ORIGIN, seeded_key("ed25519", "another").public)
    assert run(spicy, "-verify", str(stranger), file).returncode != 0


def test_proofs_of_a_log_that_spicy_keeps_are_verified_here(tmp_path: Path, spicy: str) -> None:
    assets, key = tmp_path / "assets", tmp_path / "key"
    assets.mkdir()
    made = run(spicy, "-init", "example.com/spicy", "-key", key, "-assets", assets)
    vkey = re.search(r"Public key: (\S+)", made.stderr)
    assert vkey, made.stderr
    log = VerifierKey.parse(vkey[1])
    for batch in range(3):
        files = [tmp_path / f"file-{batch}-{i}" for i in range(5)]
        for file in files:
            file.write_bytes(file.name.encode())
        appended = run(spicy, "-key", key, "-assets", assets, *files)
        assert appended.returncode == 0, appended.stderr
        for i, file in enumerate(files):
            proof = TlogProof.parse(HEADER + Path(f"{file}.spicy").read_bytes())
            assert proof.index == batch * 5 + i
            assert proof.verify(file.read_bytes(), log).size == batch * 5 + 5
            with pytest.raises(Untrusted):
                proof.verify(b"another file", log)
