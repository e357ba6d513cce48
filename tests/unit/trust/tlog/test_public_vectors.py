"""Published test vectors of others for these formats, read from the material beside the repository."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from comity.rules.tiles import ENTRIES, Tile, decode_entries, encode_entries, encode_tile, tile_node_reader
from comity.rules.tree_proofs import Frontier, MemoryTree, consistency_proof, inclusion_proof
from comity.rules.witness import TlogPolicy
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.keys import PublicKey
from comity.trust.tlog.merkle import leaf_hash, root, verify_consistency, verify_inclusion
from comity.trust.tlog.note import (
    MLDSA44_COSIGNATURE,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosigner_key,
    open_checkpoint,
    verify_cosignature,
    verify_note,
)
from comity.trust.tlog.proof import TlogProof
from support.shared import shared


def load(name: str) -> Any:
    return json.loads(shared(f"vectors/{name}").read_text("utf-8"))


def test_signed_note_examples_verify_and_print_back() -> None:
    for example in load("signed-note.json")["good"]:
        keys = [VerifierKey.parse(text) for text in example["vkey"]]
        assert [str(key) for key in keys] == example["vkey"]
        note = SignedNote.parse(example["note"].encode())
        assert verify_note(note, keys) == tuple(keys)
        assert note.encode() == example["note"].encode()


def test_bad_note_keys_are_refused() -> None:
    for text in load("signed-note.json")["bad_vkeys"]:
        with pytest.raises(Malformed):
            VerifierKey.parse(text)


def test_rfc_6962_roots_and_proofs_are_made_and_verified() -> None:
    vectors = load("merkle-rfc6962.json")
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in vectors["leaf_inputs"]]
    roots = [bytes.fromhex(value) for value in vectors["roots"]]
    tree = MemoryTree(leaves)
    assert [root(leaves[:size]) for size in range(len(roots))] == roots
    assert [Frontier.empty().extend(leaves[:size]).root() for size in range(len(roots))] == roots
    for case in vectors["inclusion"] + vectors["inclusion_generated"]:
        index, size = case["index"], case["size"]
        proof = tuple(bytes.fromhex(value) for value in case["proof"])
        assert inclusion_proof(index, size, tree.node) == proof
        verify_inclusion(leaves[index], index, size, proof, roots[size])
    for case in vectors["consistency"] + vectors["consistency_generated"]:
        old, new = case["size1"], case["size2"]
        proof = tuple(bytes.fromhex(value) for value in case["proof"])
        assert consistency_proof(old, new, tree.node) == proof
        verify_consistency(old, roots[old], new, roots[new], proof)


@pytest.fixture(scope="module")
def tessera() -> dict[str, Any]:
    about: dict[str, Any] = load("tessera-testdata/README.json")
    return about


def test_tesseras_checkpoints_open_and_hold_the_roots_of_its_leaves(tessera: dict[str, Any]) -> None:
    key = VerifierKey.parse(tessera["vkey"])
    leaves = [leaf_hash(leaf.encode()) for leaf in tessera["leaves"]]
    for size in range(16):
        data = shared(f"vectors/tessera-testdata/checkpoint.{size}").read_bytes()
        note = SignedNote.parse(data)
        assert note.encode() == data
        assert open_checkpoint(note, key) == Checkpoint(key.name, size, root(leaves[:size]))


def test_tesseras_tiles_and_entries_are_ours_byte_for_byte(tessera: dict[str, Any]) -> None:
    entries = [leaf.encode() for leaf in tessera["leaves"]]
    tree = MemoryTree(leaf_hash(entry) for entry in entries)
    for width in range(1, 16):
        tile = shared(f"vectors/tessera-testdata/tile-0-000.p-{width}").read_bytes()
        assert encode_tile(Tile(0, 0, width), tree.node) == tile
        bundle = shared(f"vectors/tessera-testdata/entries-000.p-{width}").read_bytes()
        assert encode_entries(entries[:width]) == bundle
        assert decode_entries(bundle) == entries[:width]


def test_tesseras_tiles_prove_its_checkpoints_consistent(tessera: dict[str, Any]) -> None:
    key = VerifierKey.parse(tessera["vkey"])
    folder = shared("vectors/tessera-testdata")

    def load_tile(tile: Tile) -> bytes:
        assert (tile.level, tile.index) == (0, 0)
        return (folder / f"tile-0-000.p-{tile.width}").read_bytes()

    def checkpoint(size: int) -> Checkpoint:
        return open_checkpoint(SignedNote.parse((folder / f"checkpoint.{size}").read_bytes()), key)

    for old, new in itertools.combinations(range(16), 2):
        proof = consistency_proof(old, new, tile_node_reader(new, load_tile))
        verify_consistency(old, checkpoint(old).root, new, checkpoint(new).root, proof)
    assert Tile(ENTRIES, 0, 15).path == "tile/entries/000.p/15"


def test_the_ml_dsa_cosignature_verifies_and_names_its_cosigner_in_what_is_signed() -> None:
    vector = load("mldsa44-cosignature.json")
    key = VerifierKey.parse(vector["vkey"])
    assert str(key) == vector["vkey"]
    assert key == cosigner_key(key.name, PublicKey("ml-dsa-44", key.public))
    note = SignedNote.parse(vector["note"].encode())
    checkpoint = open_checkpoint(note, VerifierKey.parse(vector["log_vkey"]))
    (line,) = (line for line in note.signatures if line.by(key))
    timestamp = verify_cosignature(line, key, checkpoint)
    message = bytes.fromhex(vector["message_hex"])
    assert message.startswith(b"subtree/v1\n\x00" + bytes([len(key.name)]) + key.name.encode() + timestamp.to_bytes(8))
    key.public_key.verify(line.signature[8:], message)


def test_a_whole_proof_with_three_foreign_cosignatures_satisfies_its_policy() -> None:
    data = shared("vectors/tlog-proof-sample.tlog-proof").read_bytes()
    leaf = shared("vectors/tlog-proof-sample.leaf").read_bytes()
    policy = TlogPolicy.parse(shared("vectors/tlog-proof-sample.policy").read_text("utf-8"))
    proof = TlogProof.parse(data)
    assert proof.encode() == data
    result = policy.satisfied(proof.checkpoint)
    assert proof.verify(leaf, result.log) == result.checkpoint
    assert result.cosigned.keys() == {"W0", "W1", "W2"}
    with pytest.raises(Untrusted):
        proof.verify(leaf + b"\n", result.log)


@pytest.mark.parametrize(
    ("checkpoint", "descriptor"),
    [
        ("sunlight-cosigned-checkpoint.txt", "sunlight-witness-witness.v0.json"),
        ("sunlight-mirror-checkpoint.txt", "sunlight-witness-mirror-mirror.v0.json"),
        ("sunlight-witness2-checkpoint.txt", "sunlight-witness2-witness.v0.json"),
    ],
)
def test_sunlights_cosignatures_verify_with_the_keys_it_publishes(checkpoint: str, descriptor: str) -> None:
    note = SignedNote.parse(shared(f"vectors/{checkpoint}").read_bytes())
    keys = [VerifierKey.parse(text) for text in load(descriptor)["verifier_keys"]]
    seen = Checkpoint.parse(note.text)
    times = [verify_cosignature(line, key, seen) for key in keys for line in note.signatures if line.by(key)]
    assert times == [1_767_139_200]


def test_a_cosignature_of_the_formats_library_carries_its_time() -> None:
    blob = "ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFiEBYJXORmnFBOBA=="
    assert blob in shared("vectors/formats-note_cosigv1_test.go.txt").read_text("utf-8")
    line = NoteSignature.parse(f"— any {blob}")
    assert int.from_bytes(line.signature[:8], "big") == 1_727_964_367
    assert len(line.signature) == 8 + 64


def test_keys_of_the_formats_library_are_read_where_they_follow_the_specification() -> None:
    source = shared("vectors/formats-note_cosigv1_test.go.txt").read_text("utf-8")
    keys = dict(re.findall(r'name:\s+"([^"]+)",\s+pubK:\s+"([^"]+)"', source))
    native = keys["works: native algEd25519CosignatureV1 verifier"]
    assert str(VerifierKey.parse(native)) == native
    for name in ("wrong number of parts", "invalid base64", "invalid algo"):
        with pytest.raises(Malformed):
            VerifierKey.parse(keys[name])
    wrong_id = keys["works: native algMLDSA44 verifier"]  # upstream does not compare it with the key
    with pytest.raises(Malformed, match="31236897"):
        VerifierKey.parse(wrong_id)
    fixed = VerifierKey.parse(wrong_id.replace("5893dc2c", "31236897", 1))
    assert fixed.type == MLDSA44_COSIGNATURE


def test_proofs_that_the_formats_library_refuses_are_refused() -> None:
    source = shared("vectors/formats-tlog_proof_test.go.txt").read_text("utf-8")
    refused = [json.loads(f'"{text}"') for text in re.findall(r'proof:\s+\[\]byte\("((?:[^"\\]|\\.)*)"\)', source)]
    assert len(refused) >= 6
    for text in refused:
        with pytest.raises(ComityError):
            TlogProof.parse(text.encode())
        signed = text.replace("checkpoint\n", "checkpoint\n\n— log AAAAAAA=\n")
        with pytest.raises(ComityError):
            TlogProof.parse(signed.encode())


def test_policies_that_the_formats_library_refuses_are_refused() -> None:
    source = shared("vectors/formats-witness_policy_test.go.txt").read_text("utf-8")
    errors = source[source.index("func TestParsePolicy_Errors") :]
    quoted = [json.loads(f'"{text}"') for text in re.findall(r'policy:\s+"((?:[^"\\]|\\.)*)"', errors)]
    raw = re.findall(r"policy:\s+`([^`]*)`", errors)
    assert len(quoted) + len(raw) == 6
    for text in quoted + raw:
        with pytest.raises(Malformed):
            TlogPolicy.parse(text)


def test_checkpoints_that_litewitness_is_fed_open_but_for_the_forged_and_the_foreign_one() -> None:
    source = shared("vectors/litewitness-add-checkpoint.txt").read_text("utf-8")
    public = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
    key = VerifierKey("sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562", 1, public)
    assert key.public in bytes.fromhex(source.partition("-key=")[2][:64])
    requests = re.findall(r"```\n(.*?)```\nHTTP (\d+)", source, re.DOTALL)
    opened = []
    for body, status in requests:
        try:
            open_checkpoint(SignedNote.parse(body.partition("\n\n")[2].encode()), key)
            opened.append(status)
        except ComityError:
            assert status == "403"
    assert opened == ["200", "422", "422", "200", "409", "200", "409"]
