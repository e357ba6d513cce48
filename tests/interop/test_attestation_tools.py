"""Attestations exchanged with other programs in both directions: in-toto's own messages, securesystemslib, sigstore and
cosign.
"""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
from comity.addons.attestations.envelopes import ArtifactDigests, AttestationKey, judge_attestation, write_envelope
from comity.addons.attestations.files import artifact_subject, provenance_of, result_of, summary_of
from comity.addons.attestations.predicates import ForeignStatement, encode_statement
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.statement import PAYLOAD_TYPE, pae
from comity.trust.statements import Parent
from support.attesting import PREDICATES, payload, signature
from support.case import case, release
from support.environments import python_with
from support.foreign_keys import Private, private_key, public_pem
from support.tools import needs

GOOD = case()
DIGESTS = ArtifactDigests.of(Manifest.parse(GOOD.manifest))
IN_TOTO = """
import json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

KINDS = {
    "https://slsa.dev/verification_summary/v1": vsa_pb2.VerificationSummary,
    "https://slsa.dev/provenance/v1": provenance_pb2.Provenance,
    "https://in-toto.io/attestation/test-result/v0.1": test_result_pb2.TestResult,
}
written = []
for text in json.load(sys.stdin):
    statement = json_format.Parse(text, statement_pb2.Statement(), ignore_unknown_fields=False)
    Statement.copy_from_pb(statement).validate()
    document = json.loads(text)
    predicate = document["predicate"]
    if document["predicateType"] in KINDS:
        levels = {name: predicate.pop(name) for name in ("verifiedLevels",) if name in predicate}
        read = json_format.Parse(json.dumps(predicate), KINDS[document["predicateType"]](), ignore_unknown_fields=False)
        predicate = json.loads(json_format.MessageToJson(read)) | levels
    written.append(json.dumps(document | {"predicate": predicate}))
print(json.dumps(written))
"""
LIBRARIES = """
import json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

given = json.load(sys.stdin)
line, pem = given["envelope"], given["pem"].encode()
known = SSlibKey.from_crypto(load_pem_public_key(pem), keyid=json.loads(line)["signatures"][0]["keyid"])
read = Envelope.from_dict(json.loads(line))
accepted = len(read.verify([known], 1))
own = {}
for kind, signer in (("ed25519", CryptoSigner.generate_ed25519()), ("rsa", CryptoSigner.generate_rsa()),
                     ("ecdsa", CryptoSigner.generate_ecdsa())):
    made = Envelope(read.payload, read.payload_type, {})
    made.sign(signer)
    own[kind] = {"envelope": json.dumps(made.to_dict()), "pem": signer.public_key.keyval["public"]}
print(json.dumps({"accepted": accepted, "own": own}))
"""
SIGSTORE = """
import json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sigstore.dsse import Envelope, Statement, _verify

given = json.load(sys.stdin)
read = _verify(load_pem_public_key(given["pem"].encode()), Envelope._from_json(given["envelope"]))
print(json.dumps({"payload": read.decode(), "subject": Statement(read)._matches_digest is not None}))
"""


def run(python: str, program: str, given: Any) -> Any:
    ran = subprocess.run(
        [python, "-c", program], input=json.dumps(given), capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(ran.stdout)


def own_statements() -> list[bytes]:
    """A statement of each kind that Comity writes."""
    published, entry, _, _ = release(lineage=(Parent("quantized", "inst/base@v1", Digest("e" * 64)),))
    verdict = GOOD.verdict()
    subject = [artifact_subject(GOOD.artifact, verdict.name)]
    made = (summary_of(verdict, published.by, 1_800_000_000), result_of(verdict), provenance_of(entry, published, []))
    return [encode_statement(predicate, subject) for predicate in made]


def signed(key: Private, said: bytes, keyid: str = "") -> bytes:
    return write_envelope(said, keyid, signature(key, pae(PAYLOAD_TYPE, said)))


def test_in_totos_own_messages_read_our_statements_and_write_ones_that_we_read() -> None:
    """The messages are strict: they refuse a member that in-toto's definitions do not have. They have one text where
    SLSA's specification has the list of verified levels, so the test leaves that list out.
    """
    said = [*own_statements(), *(payload(predicate, GOOD.artifact) for predicate in PREDICATES)]
    back = run(python_with("in-toto-attestation==0.9.3"), IN_TOTO, [each.decode() for each in said])
    for before, after in zip(said, back, strict=True):
        theirs, ours = ForeignStatement.parse(after.encode()), ForeignStatement.parse(before)
        assert theirs.predicate is not None and theirs.subjects == ours.subjects
        if theirs.predicate_type != "https://slsa.dev/provenance/v1":  # there integers become fractions
            assert theirs == ours


def test_securesystemslib_and_comity_verify_each_others_envelopes() -> None:
    key = private_key()
    pinned = AttestationKey.parse(public_pem(key))
    given = {"envelope": signed(key, own_statements()[0], pinned.id).decode(), "pem": pinned.pem.decode()}
    found = run(python_with("securesystemslib[crypto]==1.6.0", "sigstore==4.5.1"), LIBRARIES, given)
    assert found["accepted"] == 1
    for kind, theirs in found["own"].items():
        them = AttestationKey.parse(theirs["pem"].encode() if "BEGIN" in theirs["pem"] else pem_of(theirs["pem"]))
        verdict = judge_attestation(theirs["envelope"].encode(), DIGESTS, [them])
        assert (verdict.state, verdict.about) == ("verified", "this artifact"), kind


def pem_of(hexadecimal: str) -> bytes:
    """The library writes an Ed25519 key as hex digits."""
    prefix = bytes.fromhex("302a300506032b6570032100")
    text = base64.b64encode(prefix + bytes.fromhex(hexadecimal)).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n".encode()


def test_sigstore_verifies_an_envelope_that_a_key_on_p256_signed_here() -> None:
    key = private_key("p256")
    said = own_statements()[1]
    given = {"envelope": signed(key, said).decode(), "pem": public_pem(key).decode()}
    found = run(python_with("securesystemslib[crypto]==1.6.0", "sigstore==4.5.1"), SIGSTORE, given)
    assert found["payload"].encode() == said


def test_cosign_verifies_attestations_by_type_and_digest_and_its_own_are_read(tmp_path: Path) -> None:
    cosign = needs("cosign", unlock="apt-get install cosign")
    (tmp_path / "manifest.json").write_bytes(GOOD.manifest)
    for kind in ("ed25519", "p256"):
        key = private_key(kind)
        (tmp_path / "key.pub").write_bytes(public_pem(key))
        for said in own_statements():
            (tmp_path / "attestation").write_bytes(signed(key, said))
            wanted = json.loads(said)["predicateType"]
            for expected, status in ((wanted, 0), ("https://example.org/other", 1)):
                command = [cosign, "verify-blob-attestation", "--key", "key.pub", "--insecure-ignore-tlog",
                           "--type", expected, "--signature", "attestation", "manifest.json"]  # fmt: skip
                ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
                assert (ran.returncode != 0) == (status != 0), ran.stderr


def test_attestations_by_cosign_are_verified_here(tmp_path: Path) -> None:
    cosign = needs("cosign", unlock="apt-get install cosign")
    environment = {"COSIGN_PASSWORD": "", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    (tmp_path / "manifest.json").write_bytes(GOOD.manifest)
    (tmp_path / "predicate.json").write_text(json.dumps(json.loads(payload(PREDICATES[2], "0" * 64))["predicate"]))
    for command in (
        ["generate-key-pair"],
        ["attest-blob", "--key", "cosign.key", "--predicate", "predicate.json", "--tlog-upload=false", "--yes",
         "--type", PREDICATES[2].TYPE, "--output-signature", "envelope", "manifest.json"],
    ):  # fmt: skip
        subprocess.run([cosign, *command], cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60)
    pinned = AttestationKey.parse((tmp_path / "cosign.pub").read_bytes(), "cosign")
    verdict = judge_attestation((tmp_path / "envelope").read_bytes(), DIGESTS, [pinned])
    assert (verdict.state, verdict.predicate_type, verdict.about) == ("verified", PREDICATES[2].TYPE, "this artifact")
    assert verdict.says == PREDICATES[2].describe()


def test_a_verification_summary_has_the_members_that_slsas_specification_requires() -> None:
    """As SLSA v1.0 lists them under "Verification Summary Attestation", written as a JSON schema."""
    descriptor = {
        "type": "object",
        "properties": {"uri": {"type": "string"}, "digest": {"type": "object"}},
        "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}],
        "additionalProperties": False,
    }
    level = {"type": "string", "pattern": "^(SLSA_(BUILD|SOURCE)_LEVEL_[0-9]|FAILED|(?!SLSA_)[A-Z0-9_]+)$"}
    schema = {
        "type": "object",
        "required": ["verifier", "timeVerified", "resourceUri", "policy", "verificationResult", "verifiedLevels"],
        "properties": {
            "verifier": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": {"type": "string", "format": "uri"}},
            },
            "timeVerified": {"type": "string", "format": "date-time"},
            "resourceUri": {"type": "string", "format": "uri"},
            "policy": descriptor,
            "inputAttestations": {"type": "array", "items": descriptor},
            "verificationResult": {"enum": ["PASSED", "FAILED"]},
            "verifiedLevels": {"type": "array", "items": level},
        },
        "additionalProperties": False,
    }
    refused = replace(GOOD, proofs=()).verdict()
    assert not refused.accepted
    for verdict in (GOOD.verdict(), refused):
        said = encode_statement(summary_of(verdict, Digest("5" * 64), 0), [artifact_subject(GOOD.artifact)])
        jsonschema.validate(json.loads(said)["predicate"], schema)
