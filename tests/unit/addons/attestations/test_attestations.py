"""Standard predicates and foreign envelopes: written ones read back, and those of other tools are judged apart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.addons.attestations.envelopes import (
    BUNDLE,
    MAX_KEY,
    ArtifactDigests,
    AttestationKey,
    ForeignEnvelope,
    judge_attestation,
    write_envelope,
)
from comity.addons.attestations.files import (
    MAX_INPUTS,
    artifact_subject,
    provenance_of,
    result_of,
    subjects_of_files,
    summary_of,
)
from comity.addons.attestations.predicates import (
    READERS,
    ForeignStatement,
    ResourceDescriptor,
    SlsaProvenance,
    StandardPredicate,
    VerificationSummary,
    encode_statement,
)
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, b64encode, sha256
from comity.trust.errors import Malformed, Unavailable, Untrusted
from comity.trust.evidence import Row, State, Verdict
from comity.trust.keys import PublicKey
from comity.trust.model_signing.bundle import statement_of_files
from comity.trust.statement import Author, pae
from comity.trust.statements import Derived, Extent, Parent, Published
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding
from support.attesting import (
    EVALUATION,
    PREDICATES,
    PROVENANCE,
    SUMMARY,
    TESTS,
    bundle,
    encoded,
    envelope,
    payload,
    signature,
)
from support.case import case, release
from support.foreign_keys import private_key, public_pem

GOOD = case()
MANIFEST = Manifest.parse(GOOD.manifest)
DIGESTS = ArtifactDigests.of(MANIFEST)
KEY = private_key()
PINNED = AttestationKey.parse(public_pem(KEY), "the lab")


@pytest.mark.parametrize("predicate", PREDICATES, ids=lambda each: type(each).__name__)
def test_each_predicate_reads_back(predicate: StandardPredicate) -> None:
    read = ForeignStatement.parse(payload(predicate, GOOD.artifact))
    assert read.predicate == predicate
    assert (read.predicate_type, read.subjects[0].sha256) == (predicate.TYPE, GOOD.artifact)
    assert all(read.predicate.describe())


@pytest.mark.parametrize("predicate", PREDICATES, ids=lambda each: type(each).__name__)
def test_members_that_are_not_known_are_ignored_and_missing_ones_refused(predicate: StandardPredicate) -> None:
    made: dict[str, Any] = json.loads(payload(predicate, GOOD.artifact))
    made |= {"extension": {"x": 1.5}}
    made["predicate"] |= {"x": 1.25, "y": [None]}
    assert ForeignStatement.parse(json.dumps(made).encode()).predicate == predicate
    optional = {"inputAttestations", "url", "passedTests", "warnedTests", "failedTests", "harness", "preRegistration",
                "commitments", "verifiedLevels"}  # fmt: skip
    for name in set(made["predicate"]) - {"x", "y"}:
        without = {**made, "predicate": {k: v for k, v in made["predicate"].items() if k != name}}
        if name in optional:
            assert ForeignStatement.parse(json.dumps(without).encode()).predicate != predicate
            continue
        with pytest.raises(Malformed):
            ForeignStatement.parse(json.dumps(without).encode())


def test_a_statement_of_another_type_is_read_without_its_predicate() -> None:
    made = json.loads(payload(SUMMARY, GOOD.artifact)) | {
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "_type": "https://in-toto.io/Statement/v0.1",
    }
    read = ForeignStatement.parse(json.dumps(made).encode())
    assert (read.predicate_type, read.predicate) == ("https://slsa.dev/provenance/v0.2", None)
    with pytest.raises(Malformed):
        ForeignStatement.parse(json.dumps(made | {"_type": "urn:comity:statement"}).encode())


def test_thresholds_are_texts_that_no_reader_rounds() -> None:
    made = json.loads(payload(EVALUATION, GOOD.artifact))
    for wrong in (0.98, "1e3", "0,98", "", "NaN", ".5"):
        made["predicate"]["claims"][0]["threshold"] = wrong
        if wrong == 0.98:  # a fraction is read as its text
            continue
        with pytest.raises(Malformed):
            ForeignStatement.parse(json.dumps(made).encode())


def test_a_subject_needs_a_digest() -> None:
    for subjects in ([], [ResourceDescriptor("only a name")]):
        with pytest.raises(Malformed, match="digest"):
            encode_statement(TESTS, subjects)


def rsa_pem(bits: int) -> bytes:
    """A public key of this size that nobody has the private key of."""
    return (
        RSAPublicNumbers(65537, 2 ** (bits - 1) + 1)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def judged(data: bytes, *keys: AttestationKey) -> tuple[str, str, str]:
    verdict = judge_attestation(data, DIGESTS, keys)
    assert verdict.digest == sha256(data)
    return verdict.state, verdict.about, verdict.signer


@pytest.mark.parametrize("kind", ["ed25519", "p256", "p384", "p521", "rsa"])
@pytest.mark.parametrize("form", ["dsse", "bundle"])
def test_an_envelope_by_a_pinned_key_is_verified(kind: str, form: str) -> None:
    key = private_key(kind)
    said = payload(PROVENANCE, GOOD.artifact)
    data = encoded(envelope(key, said) if form == "dsse" else bundle(key, said))
    pinned = AttestationKey.parse(public_pem(key), "them")
    assert judged(data, PINNED, pinned) == (
        "verified",
        "this artifact",
        f"signature verified here with pinned key them [{pinned.id[:12]}]",
    )
    state, _, signer = judged(data, PINNED)
    assert (state, signer) == ("claimed", "present, not verified: no pinned key is known to have signed it")


@pytest.mark.parametrize("kind", ["ed25519", "p256", "p384", "p521", "rsa"])
def test_a_key_verifies_its_own_signatures_and_no_others(kind: str) -> None:
    key = private_key(kind)
    pinned, made = AttestationKey.parse(public_pem(key)), signature(key, b"x")
    assert pinned.verifies(made, b"x")
    for other, message in ((made, b"y"), (made[:-1] + bytes([made[-1] ^ 1]), b"x"), (b"", b"x"), (made + b"\0", b"x")):
        assert not pinned.verifies(other, message)


def test_keys_of_the_smallest_and_largest_sizes_are_read() -> None:
    assert [AttestationKey.parse(rsa_pem(bits)).algorithm for bits in (2048, 8192)] == ["rsa-2048", "rsa-8192"]
    assert AttestationKey.parse(public_pem(KEY).ljust(MAX_KEY, b"\n")).ids == PINNED.ids


def test_a_key_has_the_ids_by_which_tools_name_it() -> None:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    for kind in ("ed25519", "p256"):
        key = private_key(kind).public_key()
        ids = {sha256(key.public_bytes(encoding, form)) for encoding in (Encoding.PEM, Encoding.DER)}
        own = {PublicKey("ed25519", key.public_bytes_raw()).id} if isinstance(key, Ed25519PublicKey) else set()
        assert AttestationKey.parse(key.public_bytes(Encoding.PEM, form)).ids == ids | own


def test_one_signature_of_a_pinned_key_is_enough() -> None:
    said = payload(SUMMARY, GOOD.artifact)
    several = envelope(KEY, said)
    other = envelope(private_key(), said)["signatures"]
    for signatures in (other + several["signatures"], several["signatures"] + other):
        assert judged(encoded(several | {"signatures": signatures}), PINNED)[0] == "verified"


def test_rsa_signatures_of_both_schemes_verify() -> None:
    key = private_key("rsa")
    pinned = AttestationKey.parse(public_pem(key))
    for pss in (True, False):
        assert pinned.verifies(signature(key, b"x", pss=pss), b"x")
        assert not pinned.verifies(signature(key, b"x", pss=pss), b"y")


def test_an_envelope_that_names_a_pinned_key_without_its_signature_fails() -> None:
    said = payload(SUMMARY, GOOD.artifact)
    for keyid in PINNED.ids:
        assert judged(encoded(envelope(private_key(), said, keyid)), PINNED)[0] == "failed"
    unread = encoded(envelope(private_key(), b"no statement", PINNED.id))
    assert judged(unread, PINNED)[0] == "failed"
    assert judge_attestation(unread, DIGESTS).state == "unreadable"
    forged = bundle(KEY, said)
    forged["dsseEnvelope"]["payload"] = envelope(KEY, payload(TESTS, GOOD.artifact))["payload"]
    assert judged(encoded(forged), PINNED)[0] == "failed"


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_bundles_of_every_version_are_read(version: str) -> None:
    assert judged(encoded(bundle(KEY, payload(TESTS, GOOD.artifact), version)), PINNED)[0] == "verified"


def test_a_missing_key_id_and_url_safe_base64_are_read() -> None:
    made = envelope(KEY, payload(TESTS, GOOD.artifact, "?>?>ÿÿ"), None)
    made["payload"] = made["payload"].replace("+", "-").replace("/", "_")
    assert judged(encoded(made), PINNED)[0] == "verified"


def test_the_digest_identifies_the_subject_of_an_attestation() -> None:
    path = MANIFEST.files[0]
    root = statement_of_files("m", MANIFEST.files).root
    about = {
        GOOD.artifact: "this artifact",
        path.sha256: f"its file {path.path}",
        root: "the hashes of its files, without their names (OpenSSF root)",
        "0" * 64: "",
    }
    for digest, expected in about.items():
        assert judged(encoded(envelope(KEY, payload(SUMMARY, digest))), PINNED)[1] == expected
    assert replace(DIGESTS, root="").meant_by([ResourceDescriptor("only a name")]) == ""
    files = [ResourceDescriptor.of_sha256(entry.sha256, entry.path) for entry in MANIFEST.files]
    assert DIGESTS.meant_by(files) == f"its {len(files)} files, such as {path.path}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        encoded({"payload": "", "payloadType": "x", "signatures": []}),
        encoded(envelope(KEY, b"{}")),
        encoded(envelope(KEY, b"x", kind="text/plain")),
        encoded(envelope(KEY, payload(TESTS, GOOD.artifact), kind="text/plain")),
        encoded(bundle(KEY, payload(TESTS, GOOD.artifact)) | {"mediaType": "application/json"}),
        encoded(bundle(KEY, payload(TESTS, GOOD.artifact)) | {"mediaType": BUNDLE.ljust(101, "x")}),
        encoded(envelope(KEY, b"{}") | {"payload": "!"}),
        b"[" * 100_000,
    ],
)
def test_an_invalid_attestation_is_unreadable_and_raises_nothing(data: bytes) -> None:
    assert judge_attestation(data, DIGESTS, [PINNED]).state == "unreadable"


def test_members_of_an_envelope_that_are_not_known_are_ignored() -> None:
    made = bundle(KEY, payload(TESTS, GOOD.artifact)) | {"mediaType": BUNDLE.ljust(100, "x"), "time": 1.5}
    made["dsseEnvelope"] |= {"x": [0.25]}
    assert judged(encoded(made), PINNED)[0] == "verified"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"payloadType": "x" * 200}, {"payloadType": "x" * 201}),
        ({"signatures": [{"sig": "QQ=="}]}, {"signatures": []}),
        ({"signatures": [{"sig": "QQ==", "keyid": None}] * 24}, {"signatures": [{"sig": "QQ=="}] * 25}),
        ({"signatures": [{"sig": b64encode(bytes(8192))}]}, {"signatures": [{"sig": b64encode(bytes(8193))}]}),
        ({"signatures": [{"sig": "_-8="}]}, {"signatures": [{"sig": ""}]}),
        (
            {"signatures": [{"sig": "QQ==", "keyid": "x" * 1024}]},
            {"signatures": [{"sig": "QQ==", "keyid": "x" * 1025}]},
        ),
        ({"signatures": [{"sig": "QQ==", "keyid": ""}]}, {"signatures": [{"sig": "QQ==", "keyid": 5}]}),
        ({"payload": ""}, {"payload": None}),
        ({"payload": "QQ=="}, {"payload": "QQ==x"}),
        ({"payload": "QQ=="}, {"payload": " QQ=="}),
    ],
)
def test_the_members_of_an_envelope_are_bounded(good: dict[str, Any], bad: dict[str, Any]) -> None:
    made = envelope(KEY, b"x")
    assert ForeignEnvelope.parse(encoded(made | good)).form == "dsse"
    with pytest.raises(Malformed):
        ForeignEnvelope.parse(encoded(made | bad))


def test_what_an_attestation_says_is_shown_where_its_predicate_is_read() -> None:
    made = envelope(KEY, payload(TESTS, GOOD.artifact))
    assert judge_attestation(encoded(made), DIGESTS).says == TESTS.describe()
    other = json.loads(payload(TESTS, GOOD.artifact)) | {"predicateType": "https://slsa.dev/provenance/v0.2"}
    verdict = judge_attestation(encoded(envelope(KEY, json.dumps(other).encode())), DIGESTS)
    assert (verdict.state, verdict.says) == ("claimed", ("its predicate type is not read here",))


def test_an_attestation_is_bounded() -> None:
    assert judge_attestation(b" " * (4 * 1024 * 1024 + 1), DIGESTS).state == "unreadable"
    many = envelope(KEY, b"{}")
    many["signatures"] *= 25
    with pytest.raises(Malformed):
        ForeignEnvelope.parse(encoded(many))


def test_keyless_bundles_are_verified_by_the_callers_verifier() -> None:
    said = payload(SUMMARY, GOOD.artifact)
    made = bundle(KEY, said)
    made["verificationMaterial"] = {"x509CertificateChain": {"certificates": []}, "tlogEntries": []}
    assert judge_attestation(encoded(made), DIGESTS).signer.endswith("no identity is named")
    made["verificationMaterial"] = {"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}
    data = encoded(made)

    def answer(found: str | Exception) -> tuple[str, str]:
        def check(given: bytes, signed: bytes) -> str:
            assert (given, signed) == (data, said)
            if isinstance(found, Exception):
                raise found
            return found

        verdict = judge_attestation(data, DIGESTS, [], check)
        return verdict.state, verdict.signer

    assert answer("ci@lab.example") == ("verified", "signature verified here for ci@lab.example")
    for error in (Untrusted("another identity"), Unavailable("no root")):
        assert answer(error) == ("claimed", f"present, not verified: {error}")
    assert (
        judge_attestation(data, DIGESTS).signer
        == "present, not verified: a keyless signature, and no identity is named"
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----\n", id="begun"),
        pytest.param(b"x" * 20_000, id="long"),
        pytest.param(public_pem(private_key())[:60], id="cut"),
        pytest.param(public_pem(private_key()).ljust(MAX_KEY + 1, b"\n"), id="a key in a long text"),
        pytest.param(public_pem(ec.generate_private_key(ec.SECP256K1())), id="another curve"),
        pytest.param(rsa_pem(2047), id="a short RSA key"),
        pytest.param(rsa_pem(8193), id="a long RSA key"),
    ],
)
def test_an_invalid_public_key_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        AttestationKey.parse(text)
    assert refused.value.code == "ATTESTATION-KEY"


def test_a_written_envelope_reads_back() -> None:
    said = payload(TESTS, GOOD.artifact)
    data = write_envelope(said, PINNED.id, signature(KEY, pae("application/vnd.in-toto+json", said)))
    assert ForeignEnvelope.parse(data).payload == said
    assert judged(data, PINNED)[0] == "verified"


def test_a_verdict_is_a_verification_summary() -> None:
    verdict = GOOD.verdict()
    said = summary_of(verdict, Digest("5" * 64), 1_795_000_000)
    assert (said.passed, said.policy.sha256, said.resource) == (
        True,
        verdict.policy,
        f"urn:comity:artifact:{GOOD.artifact}",
    )
    assert said.verifier == f"urn:comity:identity:{'5' * 64}" and said.time == "2026-11-18T11:06:40Z"
    assert "COMITY_BYTES" in said.levels and len(said.inputs) == len(verdict.inputs)
    refused = replace(GOOD, files={**GOOD.files, "LICENSE": b"other"}).verdict()
    assert summary_of(refused, Digest("5" * 64), 0).levels == ("FAILED",)
    read = ForeignStatement.parse(encode_statement(said, [artifact_subject(GOOD.artifact, "tiny")])).predicate
    assert isinstance(read, VerificationSummary) and read == said


def test_a_verdict_is_a_test_result_whose_tests_are_the_rows() -> None:
    good, bad = result_of(GOOD.verdict()), result_of(replace(GOOD, proofs=()).verdict())
    assert (good.result, good.failed) == ("PASSED", ()) and "bytes" in good.passed
    assert bad.result == "FAILED" and "transparency" in bad.failed and "replicas" in bad.warned
    partial = result_of(replace(GOOD, partial=True, files={"LICENSE": GOOD.files["LICENSE"]}).verdict())
    assert partial.result == "WARNED" and "bytes" in partial.failed


def rows_of(verdict: Verdict) -> Verdict:
    """The verdict with one row of each state, required (in capitals) or not."""
    states: dict[str, State] = {"A": "pass", "b": "pass", "C": "fail", "d": "unknown", "E": "not-checked",
                                "f": "not-checked", "artifact": "pass"}  # fmt: skip
    rows = tuple(Row(name, state, "", 1) for name, state in states.items())
    return replace(verdict, rows=rows, required=("A", "C", "E"))


def test_each_row_is_one_test_and_a_level_if_it_passes() -> None:
    verdict = rows_of(GOOD.verdict())
    tests = result_of(verdict)
    assert (tests.passed, tests.warned, tests.failed) == (("A", "b", "artifact"), ("d",), ("C", "E"))
    assert summary_of(verdict, Digest("5" * 64), 0).levels == ("COMITY_A", "COMITY_B", "COMITY_ARTIFACT")
    unnamed = result_of(replace(verdict, rows=(Row("artifact", "not-checked", "", 1),)))
    assert (unnamed.warned, unnamed.failed) == ((), ("artifact",))


def test_a_summary_names_the_first_inputs() -> None:
    inputs = tuple(sha256(b"%d" % number) for number in range(MAX_INPUTS + 1))
    said = summary_of(replace(GOOD.verdict(), inputs=inputs), Digest("5" * 64), 0)
    assert [each.sha256 for each in said.inputs] == list(inputs[:MAX_INPUTS])


def test_an_artifact_without_a_name_is_named_by_its_digest() -> None:
    assert artifact_subject(GOOD.artifact).name == f"sha256:{GOOD.artifact}"
    assert artifact_subject(GOOD.artifact, "tiny").name == "tiny"


@pytest.mark.parametrize(
    ("change", "missing"), [({"policy": None}, "a policy file"), ({"artifact": None}, "a manifest")]
)
def test_what_a_verdict_lacks_for_an_export_is_said(change: dict[str, Any], missing: str) -> None:
    with pytest.raises(Malformed, match=f"without {missing}"):
        result_of(replace(GOOD.verdict(), **change))


def test_without_a_policy_no_verdict_is_exported() -> None:
    for verdict in (replace(GOOD.verdict(), policy=None), replace(GOOD.verdict(), artifact=None)):
        for export in (result_of, lambda given: summary_of(given, Digest("5" * 64), 0)):
            with pytest.raises(Malformed) as refused:
                export(verdict)
            assert refused.value.code == "UNSIGNABLE-REPORT"


def test_the_lineage_of_a_publication_is_slsa_provenance_with_parents_by_digest() -> None:
    parents = (Parent("quantized", "inst/base@v1", Digest("e" * 64)), Parent("finetune", "inst/other@v1"))
    published, entry, _, _ = release(lineage=parents)
    derived = Derived(
        Author("identity", published.by), published.artifact, Digest("e" * 64), "quantized", "exact", {"q8_0": 2},
        {"gguf": "1"}, 1, 1, Extent(2, 2), 0, Extent(9, 9),
    )  # fmt: skip
    said = provenance_of(entry, published, [derived])
    assert [item.sha256 for item in said.dependencies] == ["e" * 64, ""]
    relations = json.loads(said.parameters)["relations"]
    assert [relation["basis"] for relation in relations] == ["derived: exact", "declared"]
    assert relations[0]["steps"] == {"q8_0": 2}
    subjects = subjects_of_files(published.artifact, "tiny", [("a", "1" * 64)])
    read = ForeignStatement.parse(encode_statement(said, subjects))
    assert isinstance(read.predicate, SlsaProvenance) and read.predicate == said
    assert [subject.sha256 for subject in read.subjects] == [published.artifact, "1" * 64]
    for count in (1000, 1001):
        several = subjects_of_files(published.artifact, "tiny", [("a", "1" * 64)] * count)
        assert len(several) == (1 + count if count <= 1000 else 1)
    lonely = Published(published.by, published.name, published.artifact, published.manifest, published.pieces,
                       published.licence)  # fmt: skip
    with pytest.raises(Malformed) as refused:
        provenance_of(entry, lonely, [])
    assert refused.value.code == "NO-LINEAGE"


def test_no_predicate_type_is_one_of_comity() -> None:
    assert not any(kind.startswith("urn:comity:") for kind in READERS)
