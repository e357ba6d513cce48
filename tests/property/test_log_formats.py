"""Valid values of the log formats print and parse back; arbitrary bytes raise nothing but ComityError."""

from __future__ import annotations

from contextlib import suppress

import pytest
from comity.rules.tiles import (
    ENTRIES,
    MAX_ENTRY,
    Tile,
    decode_entries,
    encode_entries,
    encode_tile,
    parse_tile_path,
    tile_node_reader,
    tiles_between,
)
from comity.rules.tree_proofs import Frontier, MemoryTree, consistency_proof, inclusion_proof
from comity.rules.witness import PolicyLog, TlogPolicy, WitnessGroup, WitnessKeyName
from comity.trust.errors import ComityError, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import EMPTY_ROOT, MAX_SIZE, leaf_hash, root, verify_consistency, verify_inclusion
from comity.trust.tlog.note import (
    ED25519,
    MAX_TIMESTAMP,
    MLDSA44_COSIGNATURE,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosign,
    cosigner_key,
    log_verifier_key,
    open_checkpoint,
    verify_cosignature,
    verify_note,
)
from comity.trust.tlog.proof import MAX_EXTRA, TlogProof
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.seeded import seeded_key

KEY = seeded_key("ed25519", "property")
COSIGNING = st.sampled_from([seeded_key(alg, "property cosigner") for alg in ("ed25519", "ml-dsa-44")])

characters = st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="+")
names = st.text(characters, min_size=1, max_size=255).filter(lambda name: len(name.encode()) <= 255)
hashes = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, MAX_SIZE)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300).map(
    lambda text: "".join(char for char in text if char >= " " or char == "\n") + "\n"
)
signatures = st.builds(NoteSignature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))
notes = st.builds(SignedNote, texts, st.lists(signatures, min_size=1, max_size=5).map(tuple))
log_keys = st.builds(VerifierKey, names, st.just(ED25519), hashes)
witness_keys = st.builds(
    VerifierKey, names, st.just(MLDSA44_COSIGNATURE), st.binary(min_size=1312, max_size=1312)
) | st.builds(VerifierKey, names, st.just(4), hashes)
checkpoints = st.builds(Checkpoint, names, st.integers(1, MAX_SIZE), hashes) | st.builds(
    Checkpoint, names, st.just(0), st.just(EMPTY_ROOT)
)
proofs = st.builds(
    TlogProof,
    st.integers(0, MAX_SIZE - 1),
    st.lists(hashes, max_size=63).map(tuple),
    notes,
    st.none() | st.binary(min_size=1, max_size=300) | st.just(bytes(MAX_EXTRA)),
)
tiles = st.builds(Tile, st.integers(ENTRIES, 63), numbers, st.integers(1, 256))
words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"]), min_size=1, max_size=20)


@given(notes)
def test_notes_round_trip(note: SignedNote) -> None:
    assert SignedNote.parse(note.encode()) == note


@given(signatures)
def test_signature_lines_round_trip(signature: NoteSignature) -> None:
    assert NoteSignature.parse(str(signature)) == signature


@given(log_keys | witness_keys)
def test_verifier_keys_round_trip(key: VerifierKey) -> None:
    assert VerifierKey.parse(str(key)) == key


@given(checkpoints)
def test_checkpoints_round_trip_and_open_once_signed(checkpoint: Checkpoint) -> None:
    assert Checkpoint.parse(checkpoint.text) == checkpoint
    note = SignedNote.parse(checkpoint.signed(KEY).encode())
    assert open_checkpoint(note, log_verifier_key(checkpoint.origin, KEY.public)) == checkpoint


@given(checkpoints, names, COSIGNING, st.integers(0, MAX_TIMESTAMP))
def test_cosignatures_verify_with_their_time(
    checkpoint: Checkpoint, name: str, key: PrivateKey, timestamp: int
) -> None:
    line = NoteSignature.parse(str(cosign(checkpoint, name, key, timestamp)))
    assert verify_cosignature(line, cosigner_key(name, key.public), checkpoint) == timestamp


@given(proofs)
def test_proofs_round_trip(proof: TlogProof) -> None:
    assert TlogProof.parse(proof.encode()) == proof


@given(tiles)
def test_tile_paths_round_trip(tile: Tile) -> None:
    assert parse_tile_path(tile.path) == tile


@given(st.lists(st.binary(max_size=300) | st.just(bytes(MAX_ENTRY)), max_size=256))
def test_entry_bundles_round_trip(entries: list[bytes]) -> None:
    assert decode_entries(encode_entries(entries)) == entries


@st.composite
def policies(draw: st.DrawFn) -> TlogPolicy:
    logs = [
        PolicyLog(key, draw(st.none() | words))
        for key in draw(st.lists(log_keys, max_size=4, unique_by=lambda k: k.public))
    ]
    keys = draw(st.lists(witness_keys, max_size=6, unique_by=lambda key: key.public))
    names = iter(draw(st.lists(words.filter(lambda word: word != "none"), min_size=12, max_size=12, unique=True)))
    parties: list[WitnessKeyName | WitnessGroup] = [
        WitnessKeyName(next(names), key, draw(st.none() | words)) for key in keys
    ]
    free = [party.name for party in parties]
    while free and len(parties) < 10 and draw(st.booleans()):
        members = tuple(draw(st.lists(st.sampled_from(free), min_size=1, unique=True)))
        group = WitnessGroup(next(names), draw(st.integers(1, len(members))), members)
        free = [name for name in free if name not in members] + [group.name]
        parties.append(group)
    quorum = draw(st.sampled_from(["none", *(party.name for party in parties)]))
    return TlogPolicy(tuple(logs), tuple(parties), quorum)


@given(policies())
@settings(max_examples=examples(50))
def test_policies_round_trip(policy: TlogPolicy) -> None:
    assert TlogPolicy.parse(str(policy)) == policy


def flipped(data: bytes, position: int, mask: int) -> bytes:
    position %= len(data)
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


@given(notes, st.integers(0), st.integers(1, 255))
def test_a_note_with_one_byte_changed_is_refused_or_prints_the_same_bytes(note: SignedNote, at: int, mask: int) -> None:
    data = flipped(note.encode(), at, mask)
    with suppress(ComityError):
        assert SignedNote.parse(data).encode() == data


@given(proofs, st.integers(0), st.integers(1, 255))
def test_a_proof_with_one_byte_changed_is_refused_or_prints_the_same_bytes(
    proof: TlogProof, at: int, mask: int
) -> None:
    data = flipped(proof.encode(), at, mask)
    with suppress(ComityError):
        assert TlogProof.parse(data).encode() == data


@given(checkpoints, st.integers(0), st.integers(1, 255))
def test_no_byte_of_a_signed_text_can_change(checkpoint: Checkpoint, at: int, mask: int) -> None:
    note = checkpoint.signed(KEY)
    size = len(note.text.encode())
    data = flipped(note.encode()[:size], at, mask) + note.encode()[size:]
    with pytest.raises(ComityError):
        verify_note(SignedNote.parse(data), [log_verifier_key(checkpoint.origin, KEY.public)])


leaf_lists = st.lists(st.binary(max_size=8).map(leaf_hash), min_size=1, max_size=700)


@given(leaf_lists, st.data())
def test_trees_frontiers_and_tiles_agree(leaves: list[bytes], data: st.DataObject) -> None:
    size = len(leaves)
    tree = MemoryTree(leaves)
    cut = data.draw(st.integers(0, size))
    assert Frontier.read(cut, tree.node).extend(leaves[cut:]) == Frontier.empty().extend(leaves)
    assert tree.root() == root(leaves) == Frontier.empty().extend(leaves).root()
    store = {tile: encode_tile(tile, tree.node) for tile in tiles_between(0, size)}
    node = tile_node_reader(size, store.__getitem__)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, node)
    assert proof == inclusion_proof(index, size, tree.node)
    verify_inclusion(leaves[index], index, size, proof, tree.root())
    growth = consistency_proof(cut, size, node)
    assert growth == consistency_proof(cut, size, tree.node)
    verify_consistency(cut, root(leaves[:cut]), size, tree.root(), growth)


@given(hashes, numbers, numbers, st.lists(hashes, max_size=70), hashes)
def test_a_made_up_proof_is_untrusted(leaf: bytes, index: int, size: int, proof: list[bytes], top: bytes) -> None:
    if not proof and leaf == top:  # the one leaf of a tree of one, or a tree and itself
        return
    with pytest.raises(Untrusted):
        verify_inclusion(leaf, index, size, proof, top)
    with pytest.raises(Untrusted):
        verify_consistency(index + 1, leaf, size, top, proof)
