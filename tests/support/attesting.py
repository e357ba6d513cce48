"""Attestations of other tools: keys of their kinds, envelopes as they write them, and one of each predicate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from comity.addons.attestations.predicates import (
    ResourceDescriptor,
    SlsaProvenance,
    StandardPredicate,
    TestResult,
    VerificationSummary,
    encode_statement,
)
from comity.trust.encoding import Digest, b64encode, sha256
from comity.trust.eval_result import Commitment, SuiteResult, ThresholdClaim
from comity.trust.statement import PAYLOAD_TYPE, pae
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from support.foreign_keys import Private, public_pem

SUMMARY: Final = VerificationSummary(
    verifier="https://verifier.example/slsa",
    time="2026-11-27T02:00:00Z",
    resource="https://models.example/tiny",
    policy=ResourceDescriptor("", "https://verifier.example/policy", (("sha256", "ab" * 32),)),
    passed=True,
    levels=("SLSA_BUILD_LEVEL_2", "EXAMPLE_SCANNED"),
    inputs=(ResourceDescriptor("", "https://builder.example/p", (("sha256", "cd" * 32),)),),
)
PROVENANCE: Final = SlsaProvenance(
    build_type="https://builder.example/quantise/v1",
    parameters=b'{"scheme":"q8_0","seed":7}',
    dependencies=(
        ResourceDescriptor("base", "", (("sha256", "ef" * 32),)),
        ResourceDescriptor("", "git+https://builder.example/tool", (("gitCommit", "12" * 20),)),
    ),
    builder="https://builder.example/farm",
    invocation="https://builder.example/runs/7",
    started="2026-11-26T08:00:00Z",
    finished="2026-11-26T09:30:00.5+01:00",
)
TESTS: Final = TestResult(
    result="FAILED",
    configuration=(ResourceDescriptor("suite.yaml", "", (("gitBlob", "34" * 20),)),),
    passed=("loads", "answers"),
    warned=("is quick",),
    failed=("says no",),
    url="https://ci.example/runs/1",
)
EVALUATION: Final = SuiteResult(
    verifier="https://lab.example",
    time="2026-11-27T02:00:00Z",
    suite="refusals",
    suite_version="1.2.0",
    claims=(ThresholdClaim("refusal_rate", ">=", "0.98", True), ThresholdClaim("latency", "<", "1.5", False)),
    samples=500,
    model=Commitment("sha256-salted-v1", "aa" * 32, True),
    dataset=Commitment("sha256", "bb" * 32),
    assurance="third_party",
    profile="public-model",
    registered=Commitment("sha256", "cc" * 32),
    harness="harness",
    harness_version="3",
)
PREDICATES: Final[Sequence[StandardPredicate]] = (SUMMARY, PROVENANCE, TESTS, EVALUATION)


def payload(predicate: StandardPredicate, digest: str, name: str = "tiny") -> bytes:
    return encode_statement(predicate, [ResourceDescriptor.of_sha256(Digest(digest), name)])


def signature(key: Private, message: bytes, *, pss: bool = True) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        digest = hashes.SHA256()
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size) if pss else padding.PKCS1v15()
        return key.sign(message, scheme, digest)
    digests = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    return key.sign(message, ec.ECDSA(digests[key.curve.key_size]))


def envelope(key: Private, said: bytes, keyid: str | None = "", kind: str = PAYLOAD_TYPE) -> dict[str, Any]:
    """A DSSE envelope, as another tool writes it."""
    signed: dict[str, Any] = {"sig": b64encode(signature(key, pae(kind, said)))}
    return {
        "payloadType": kind,
        "payload": b64encode(said),
        "signatures": [signed | ({} if keyid is None else {"keyid": keyid})],
    }


def bundle(key: Private, said: bytes, version: str = "0.3") -> dict[str, Any]:
    """A Sigstore bundle with a public key."""
    kind = f"application/vnd.dev.sigstore.bundle.v{version}+json"
    if version in ("0.1", "0.2"):
        kind = f"application/vnd.dev.sigstore.bundle+json;version={version}"
    return {
        "mediaType": kind,
        "verificationMaterial": {"publicKey": {"hint": sha256(public_pem(key))}, "tlogEntries": []},
        "dsseEnvelope": envelope(key, said),
    }


def encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()
