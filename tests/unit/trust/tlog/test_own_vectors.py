"""The code makes the published vectors, and accepts and refuses them as they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comity.rules.audit import AuditChallenge, possession_hash
from comity.rules.equivocation import check_equivocation
from comity.rules.tiles import ENTRIES, Tile, decode_entries, encode_entries, parse_tile_path, tiles_between
from comity.rules.witness import TlogPolicy
from comity.trust.charter.certificate import certify
from comity.trust.charter.document import Body
from comity.trust.charter.votes import Intent, parse_vote, void_reason
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, PolicyNotMet, Untrusted
from comity.trust.identity import check_inception
from comity.trust.keys import PublicKey
from comity.trust.model_signing.bundle import Bundle, ModelKey, ModelStatement
from comity.trust.model_signing.judging import ModelSigningRule, judge
from comity.trust.rotation import KeyState, check_rotation, follow, parse_rotation
from comity.trust.statement import parse_entry
from comity.trust.tlog.merkle import leaf_hash, root, verify_consistency, verify_inclusion
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, verify_cosignature, verify_note
from comity.trust.tlog.proof import ConsistencyProof, TlogProof
from support.model_sig import found
from vectors.make import HERE, VECTORS, stable


def load(name: str) -> Any:
    return json.loads((HERE / name).read_text("utf-8"))


@pytest.mark.parametrize("name", VECTORS)
def test_the_published_file_equals_the_scripts_output(name: str) -> None:
    assert stable(load(name)) == stable(VECTORS[name]()), "run: python tests/vectors/make.py"


def test_hashes_of_audited_pieces() -> None:
    cases = load("audit.json")["cases"]
    for case in cases:
        challenge = AuditChallenge(
            case["auditor"],
            case["prover"],
            case["artifact"],
            case["artifact"],
            case["auditor_nonce"],
            (case["number"],),
        )
        data = [bytes.fromhex(case["bytes_hex"])]
        found = possession_hash(case["federation"], challenge, case["prover_nonce"], case["number"], data)
        assert found == case["hash"]
        assert len(bytes.fromhex(case["before_hex"])) == 216
    assert len({case["hash"] for case in cases}) == len(cases)


def test_trees() -> None:
    vectors = load("merkle.json")
    leaves = [leaf_hash(b'{"entry":%d}' % i) for i in range(300)]
    roots = {case["size"]: bytes.fromhex(case["root_hex"]) for case in vectors["roots"]}
    assert all(root(leaves[:size]) == expected for size, expected in roots.items())
    for case in vectors["inclusion"]:
        proof = [bytes.fromhex(value) for value in case["proof_hex"]]
        size_root = root(leaves[: case["size"]])
        verify_inclusion(leaves[case["index"]], case["index"], case["size"], proof, size_root)
    for case in vectors["consistency"]:
        proof = [bytes.fromhex(value) for value in case["proof_hex"]]
        old, new = case["old"], case["new"]
        verify_consistency(old, root(leaves[:old]), new, root(leaves[:new]), proof)


def test_tiles() -> None:
    vectors = load("tiles.json")
    for case in vectors["paths"]:
        level = ENTRIES if case["level"] == "entries" else case["level"]
        assert parse_tile_path(case["path"]) == Tile(level, case["index"], case["width"])
    for path in vectors["refused_paths"]:
        with pytest.raises(Malformed):
            parse_tile_path(path)
    for case in vectors["growth"]:
        assert [tile.path for tile in tiles_between(case["old"], case["new"])] == case["paths"]
    for case in vectors["bundles"]:
        entries = [bytes.fromhex(entry) for entry in case["entries_hex"]]
        assert encode_entries(entries).hex() == case["data_hex"]
        assert decode_entries(bytes.fromhex(case["data_hex"])) == entries
    for data in vectors["refused_bundles_hex"]:
        with pytest.raises(Malformed):
            decode_entries(bytes.fromhex(data))


def test_notes() -> None:
    vectors = load("note.json")
    keys = [VerifierKey.parse(text) for text in vectors["vkeys"]]
    for case in vectors["accepted"]:
        note = SignedNote.parse(case["note"].encode())
        assert note.text == case["text"]
        assert [str(key) for key in verify_note(note, keys)] == case["signers"]
        assert note.encode() == case["note"].encode()
    for text in vectors["distrusted"]:
        with pytest.raises(Untrusted):
            verify_note(SignedNote.parse(text.encode()), keys)
    for data in vectors["refused_hex"].values():
        with pytest.raises(Malformed):
            SignedNote.parse(bytes.fromhex(data))


def test_checkpoints() -> None:
    vectors = load("checkpoint.json")
    for case in vectors["accepted"]:
        checkpoint = Checkpoint(case["origin"], case["size"], bytes.fromhex(case["root_hex"]))
        assert checkpoint.text == case["text"]
        assert Checkpoint.parse(case["text"]) == checkpoint
    for text in vectors["refused"].values():
        with pytest.raises(Malformed):
            Checkpoint.parse(text)


@pytest.mark.parametrize(("alg", "line"), [("ed25519", "line"), ("ml-dsa-44", "randomised_line")])
def test_cosignatures(alg: str, line: str) -> None:
    vectors = load("cosignature.json")
    case = vectors[alg]
    key = VerifierKey.parse(case["vkey"])
    signature = NoteSignature.parse(case[line])
    assert verify_cosignature(signature, key, Checkpoint.parse(vectors["checkpoint"])) == vectors["timestamp"]
    PublicKey(alg, key.public).verify(signature.signature[8:], bytes.fromhex(case["message_hex"]))


def test_proofs() -> None:
    vectors = load("tlog-proof.json")
    key, leaf = VerifierKey.parse(vectors["log_vkey"]), bytes.fromhex(vectors["leaf_hex"])
    for text in vectors["accepted"]:
        proof = TlogProof.parse(text.encode())
        assert proof.verify(leaf, key).size == 300
        assert proof.encode() == text.encode()
    for text in vectors["distrusted"]:
        with pytest.raises(Untrusted):
            TlogProof.parse(text.encode()).verify(leaf, key)
    for text in vectors["refused"].values():
        with pytest.raises(Malformed):
            TlogProof.parse(text.encode())


def test_policies() -> None:
    vectors = load("tlog-policy.json")
    note = SignedNote.parse(vectors["note"].encode())
    for case in vectors["satisfied"]:
        policy = TlogPolicy.parse(case["policy"])
        assert str(policy) == case["printed"]
        assert sorted(policy.satisfied(note).cosigned) == case["cosigned"]
    for text in vectors["not_satisfied"]:
        with pytest.raises(PolicyNotMet):
            TlogPolicy.parse(text).satisfied(note)
    for text in vectors["refused"].values():
        with pytest.raises(Malformed):
            TlogPolicy.parse(text)


def test_model_signatures() -> None:
    vectors = load("model-sig.json")
    files = {path: bytes.fromhex(data) for path, data in vectors["files"].items()}
    for case in vectors["accepted"]:
        key = ModelKey.parse(case["public_key"].encode())
        assert (key.hint, key.algorithm) == (case["hint"], case["algorithm"])
        bundle = Bundle.parse(case["bundle"].encode())
        assert (bundle.payload, bundle.signed.hex()) == (case["payload"].encode(), case["signed_hex"])
        assert ModelStatement.parse(bundle.payload).root == vectors["root"]
        assert judge(case["bundle"].encode(), found(files), ModelSigningRule(keys=(key,))).state == "pass"
    first = vectors["accepted"][0]
    rule = ModelSigningRule(keys=(ModelKey.parse(first["public_key"].encode()),))
    for case in vectors["refused"]:
        assert judge(case["bundle"].encode(), found(files), rule).state == "fail", case["why"]
    for case in vectors["findings"]:
        changed = {path: None if data is None else bytes.fromhex(data) for path, data in case["change"].items()}
        here = {path: data for path, data in {**files, **changed}.items() if data is not None}
        coverage = judge(first["bundle"].encode(), found(here), rule).coverage
        assert coverage is not None
        assert (
            list(coverage.wrong + coverage.missing + coverage.unsigned)
            == case["wrong"] + case["missing"] + case["unsigned"]
        )


def test_readings() -> None:
    vectors = load("charter-reading.json")
    for case in (*vectors["accepted"], *vectors["void"]):
        reading = parse_vote(parse_entry(case["line"].encode()))
        assert reading.member == vectors["member"]
        assert {"predicate": reading.statement().predicate, **reading.statement().body} == case["says"]
        assert not isinstance(reading, Intent) or void_reason(reading) == case.get("why")
    for case in vectors["refused"]:
        with pytest.raises(Malformed):
            parse_vote(parse_entry(case["line"].encode()))


def test_certificates() -> None:
    vectors = load("charter-certificate.json")
    genesis = Body.parse(vectors["genesis"].encode())
    for case in vectors["accepted"]:
        body, lines = Body.parse(case["body"].encode()), [line.encode() for line in case["lines"]]
        assert set(certify(genesis, body, lines[::-1]).lines) == set(lines)
        for line in lines:
            with pytest.raises(Untrusted):
                certify(genesis, body, [other for other in lines if other != line])
    for case in vectors["refused"]:
        with pytest.raises(Untrusted) as caught:
            certify(genesis, Body.parse(case["body"].encode()), [line.encode() for line in case["lines"]])
        assert caught.value.code == case["code"]
    for case in vectors["lies"]:
        member = next(seat for seat in genesis.members if seat.id == case["member"])
        assert (
            check_equivocation(case["kind"], case["first"].encode(), case["second"].encode(), member.keys).member
            == member.id
        )


def test_rotations() -> None:
    vectors = load("rotation.json")
    start = KeyState.of_inception(check_inception(parse_entry(vectors["inception"].encode())))
    state = start
    for case in vectors["accepted"]:
        entry = parse_entry(case["line"].encode())
        assert state.digest == case["before"]
        state = check_rotation(entry, state)
        assert state.digest == case["after"]
        assert parse_rotation(entry)[0].digest == case["rotation"] == sha256(case["named_by"].encode())
    for case in vectors["refused"]:
        with pytest.raises(Untrusted) as refusal:
            check_rotation(parse_entry(case["line"].encode()), start)
        assert refusal.value.code == "ROTATION"
    for case in vectors["chains"]:
        chain = follow(start, [parse_entry(line.encode()) for line in case["lines"]])
        assert [state.digest for state in chain.states] == case["states"]
        assert [state.digest for state in chain.reached] == case["reached"]
        assert len(chain.disputes) == case["disputes"]


def test_growth() -> None:
    vectors = load("growth.json")
    roots = {int(size): bytes.fromhex(value) for size, value in vectors["roots"].items()}
    for case in vectors["accepted"]:
        growth = ConsistencyProof.parse(case["data"].encode())
        assert growth.encode() == case["data"].encode()
        growth.verify(roots[case["old"]], roots[case["new"]])
    for text in vectors["refused"].values():
        with pytest.raises(Malformed):
            ConsistencyProof.parse(text.encode())
