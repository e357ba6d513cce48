"""OpenSSF `model.sig`: which signatures are accepted, the findings, and what only the owner's policy may allow."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.errors import Malformed
from comity.trust.evidence import MODEL_SIG, FoundFile
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.bundle import Bundle, KeyMaterial, ModelKey
from comity.trust.model_signing.judging import ModelSigningRule, judge
from support.foreign_keys import private_key, public_pem
from support.model_sig import (
    FILES,
    KEY,
    PUBLIC,
    RULE,
    changed,
    flipped,
    found,
    listed,
    outcome,
    resigned,
    sealed,
    sealed_as_before_v1,
    signed,
    with_second_signature,
)

GOOD = signed()
STRANGER = ModelKey.of_raw(PrivateKey.generate("ecdsa-p256").public)


def of_files(change: dict[str, bytes | None]) -> tuple[FoundFile, ...]:
    return found({path: data for path, data in {**FILES, **change}.items() if data is not None})


def test_a_signature_by_a_listed_key_over_these_files_passes() -> None:
    assert outcome(GOOD) == f"pass/: model.sig by key {PUBLIC.hint[:16]} (ecdsa-p256), 4 files"


def test_p384_signs_too_and_the_same_bytes_each_time() -> None:
    key = PrivateKey.generate("ecdsa-p384")
    rule = ModelSigningRule(keys=(PUBLIC, ModelKey.of_raw(key.public)))
    assert outcome(signed(key=key), rule=rule).startswith("pass/: model.sig by key")
    assert signed(key=key) == signed(key=key)


def test_other_keys_than_ecdsa_do_not_sign_models() -> None:
    with pytest.raises(Malformed, match="models are signed with ECDSA on P-256 or P-384, and this key is ed25519"):
        signed(key=PrivateKey.generate("ed25519"))
    with pytest.raises(Malformed, match="models are signed with keys on P-256, P-384 or P-521") as caught:
        ModelKey.parse(public_pem(private_key()))
    assert caught.value.code == "MODEL-KEY"


def test_files_that_differ_add_nothing_to_a_signature_that_does_not_verify() -> None:
    assert outcome(flipped(GOOD), found({})) == outcome(flipped(GOOD))
    assert outcome(GOOD, found({})).startswith("fail/false: model.sig by key")


@pytest.mark.parametrize("rule", [ModelSigningRule(), ModelSigningRule(keys=(STRANGER,))])
def test_a_key_that_the_policy_does_not_list_is_unknown_and_never_passes(rule: ModelSigningRule) -> None:
    assert outcome(GOOD, rule=rule).startswith("unknown/missing: model.sig by an unlisted key")
    unnamed = changed(GOOD, lambda document: document["verificationMaterial"]["publicKey"].clear())
    assert outcome(unnamed, rule=rule) == "unknown/missing: model.sig by an unlisted key without a hint"


@pytest.mark.parametrize(
    "given",
    [{}, {"hint": None}, {"rawBytes": "PEM", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}],
    ids=["no hint", "null", "the key itself, as before version 1.1"],
)
def test_a_listed_key_is_found_by_every_kind_of_hint(given: dict[str, Any]) -> None:
    pem = {**given, "rawBytes": base64.b64encode(PUBLIC.pem).decode()} if given.get("rawBytes") else given
    data = changed(GOOD, lambda document: document["verificationMaterial"].update(publicKey=pem))
    assert outcome(data).startswith("pass/")


def test_a_hint_beside_another_key_is_refused() -> None:
    data = replace(Bundle.parse(GOOD), material=KeyMaterial(PUBLIC.hint, STRANGER.pem)).encode()
    assert "the hint does not match the included key" in outcome(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (flipped(GOOD), "bad signature: it is not a signature of this list of files by ecdsa-p256 key"),
        (with_second_signature(GOOD), "2 signatures; a bundle has exactly one"),
        (changed(GOOD, lambda d: d["dsseEnvelope"]["signatures"].clear()), "0 signatures; a bundle has exactly one"),
        (sealed_as_before_v1(listed().encode()), "bad signature"),
        (changed(GOOD, lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1")), "v0.3"),
        (changed(GOOD, lambda d: d.update(messageSignature={})), "it signs a message"),
        (changed(GOOD, lambda d: d.update(extra=1)), "unknown member 'extra'"),
        (changed(GOOD, lambda d: d["verificationMaterial"].update(certificate={"rawBytes": "AA=="})), "exactly one of"),
        (changed(GOOD, lambda d: d["dsseEnvelope"].update(payloadType="text/plain")), "payloadType"),
        (b"{}", "member 'mediaType' is missing"),
        (b"\xff", "not JSON"),
    ],
)
def test_a_bundle_that_does_not_hold_fails(data: bytes, why: str) -> None:
    text = outcome(data)
    assert text.startswith("fail/false: ")
    assert why in text


def of_predicate(**members: Any) -> Callable[[Any], None]:
    return lambda document: document["predicate"]["serialization"].update(members)


def first_resource(**members: Any) -> Callable[[Any], None]:
    return lambda document: document["predicate"]["resources"][0].update(members)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.update(predicateType="https://model_signing/Digests/v0.1"), "before version 1.0 of the format"),
        (lambda d: d.update(predicateType="https://slsa.dev/provenance/v1"), "is not https://model_signing"),
        (lambda d: d["subject"].append(d["subject"][0]), "must be a list of 1 to 1 items"),
        (lambda d: d["subject"][0]["digest"].update(sha256="0" * 64), "the root digest does not match"),
        (lambda d: d["predicate"]["resources"].reverse(), "the root digest does not match"),
        (lambda d: d["predicate"]["resources"].append(d["predicate"]["resources"][0]), "a name is listed twice"),
        (lambda d: d["predicate"].update(vouched=True), "unknown member 'vouched'"),
        (of_predicate(method="tensors"), "must be one of files, shards"),
        (of_predicate(hash_type="md5"), "must be one of sha256, blake3, blake2b"),
        (of_predicate(hash_type="blake3"), "algorithm 'sha256' is not the algorithm of the list, blake3"),
        (of_predicate(allow_symlinks="false"), "'allow_symlinks' must be true or false"),
        (of_predicate(ignore_paths=[1]), "'ignore_paths' must be strings"),
        (first_resource(name="../config.json"), "is not a path inside the model's folder"),
        (first_resource(name="."), "it signs a file without a folder"),
        (first_resource(name="a/./b"), "is not a path inside the model's folder"),
        (first_resource(name="/etc/passwd"), "is not a path inside the model's folder"),
        (first_resource(name="a\nb"), "holds a control character"),
        (first_resource(digest="00"), "a sha256 digest has 64 lower-case hex digits"),
    ],
)
def test_a_list_with_a_signers_mistake_fails(change: Callable[[Any], None], why: str) -> None:
    text = outcome(resigned(change))
    assert text.startswith("fail/false: ")
    assert why in text


def test_a_member_of_a_resource_that_the_format_allows_is_passed_over() -> None:
    assert outcome(resigned(first_resource(size=5))).startswith("pass/")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"config.json": b"other"}, "config.json: its bytes are not the signed ones (1 in all)"),
        ({"config.json": None}, "config.json: signed, and not here (1 in all)"),
        ({"new.txt": b""}, "new.txt: not signed (1 in all)"),
        ({".git/hooks/post-checkout": b"curl"}, ".git/hooks/post-checkout: not signed; its signer asks"),
        ({".gitattributes": b"* filter=lfs"}, ".gitattributes: not signed; its signer asks verifiers to ignore it"),
        ({".git/model.sig": b""}, ".git/model.sig: not signed; its signer asks"),
        ({"deep/model.sig": b""}, "deep/model.sig: not signed (1 in all)"),
    ],
)
def test_a_folder_with_other_files_than_signed_fails(change: dict[str, bytes | None], what: str) -> None:
    text = outcome(GOOD, of_files(change))
    assert text.startswith("fail/false: ")
    assert what in text


def test_files_that_the_signer_ignores_are_named_as_such() -> None:
    data = resigned(of_predicate(ignore_paths=["notes", "config.json.bak"]))
    assert "notes/a.txt: not signed; its signer asks" in outcome(data, of_files({"notes/a.txt": b""}))
    assert "notes.txt: not signed (1" in outcome(data, of_files({"notes.txt": b""}))


@pytest.mark.parametrize("kind", ["link", "special"])
def test_links_and_devices_are_not_the_signed_files(kind: Any) -> None:
    files = (FoundFile("config.json", 0, None, kind), *found()[1:])
    assert outcome(GOOD, files).startswith("fail/false: ")
    assert "config.json" in outcome(GOOD, files)


def test_only_the_owner_can_allow_unsigned_files() -> None:
    files = of_files({".gitattributes": b"a", "logs/1.txt": b"b"})
    rule = replace(RULE, unsigned=(".gitattributes", "logs/"))
    judged = judge(GOOD, files, rule)
    assert judged.state == "pass"
    assert judged.coverage is not None
    assert judged.coverage.tolerated == (
        ".gitattributes: not signed, which the policy allows",
        "logs/1.txt: not signed, which the policy allows",
    )
    assert outcome(GOOD, of_files({"logs.txt": b""}), rule).startswith("fail/")
    assert outcome(GOOD, of_files({"config.json": b"x"}), replace(RULE, unsigned=("config.json",))).startswith("fail/")


def test_many_ignored_paths_and_many_unsigned_files_cost_no_product_of_both() -> None:
    data = resigned(of_predicate(ignore_paths=[f"ignored/{number}" for number in range(10_000)]))
    files = of_files({f"{'deep/' * 50}{number}": b"" for number in range(3_000)})
    coverage = judge(data, files, RULE).coverage
    assert coverage is not None
    assert len(coverage.unsigned) == 3_000


def test_a_name_that_would_be_read_as_two_lines_is_not_signed() -> None:
    with pytest.raises(Malformed, match="contains a control character"):
        listed({"a\u2028b": b""})


def test_the_signature_file_itself_need_not_be_signed() -> None:
    assert outcome(GOOD, of_files({MODEL_SIG: GOOD})).startswith("pass/")


def test_files_left_out_on_request_are_partial_and_nothing_else() -> None:
    files = of_files({"config.json": None})
    assert outcome(GOOD, files, partial=True).startswith("unknown/partial: ")
    assert outcome(GOOD, of_files({"config.json": None, "x": b""}), partial=True).startswith("fail/")


def test_without_hashed_files_the_check_is_incomplete() -> None:
    assert judge(GOOD, None, RULE).state == "not-checked"
    assert judge(flipped(GOOD), None, RULE).state == "fail"


def sharded(document: Any, parts: dict[str, list[tuple[int, int]]], size: float = 4096) -> None:
    predicate = document["predicate"]
    predicate["serialization"].update(method="shards", shard_size=size)
    predicate["resources"] = [
        {
            "name": f"{path}:{start}:{end}",
            "algorithm": f"sha256-sharded-{int(size)}",
            "digest": hashlib.sha256(FILES[path][start:end]).hexdigest(),
        }
        for path, ranges in parts.items()
        for start, end in ranges
    ]
    raw = b"".join(bytes.fromhex(resource["digest"]) for resource in predicate["resources"])
    document["subject"][0]["digest"]["sha256"] = hashlib.sha256(raw).hexdigest()


WHOLE = {path: [(0, len(data))] for path, data in FILES.items() if data}


def test_shards_that_are_whole_files_are_checked_and_empty_files_are_unsigned() -> None:
    data = resigned(lambda document: sharded(document, WHOLE, 1_000_000_000.0))
    assert outcome(data, of_files({"empty.txt": None})).startswith("pass/")
    assert "empty.txt: not signed" in outcome(data)
    assert "config.json: its bytes" in outcome(
        data, of_files({"empty.txt": None, "config.json": FILES["config.json"][::-1]})
    )


def test_a_file_in_several_shards_is_not_checked_and_never_passes() -> None:
    cut = {**WHOLE, "weights.safetensors": [(0, 4096), (4096, 5120)]}
    data = resigned(lambda document: sharded(document, cut))
    files = of_files({"empty.txt": None})
    assert outcome(data, files).startswith("not-checked/missing: ")
    assert "weights.safetensors: signed in 2 parts, which are not computed here" in outcome(data, files)
    short = of_files({"empty.txt": None, "weights.safetensors": b"short"})
    assert "weights.safetensors: 5 bytes instead of 5120" in outcome(data, short)
    torn = resigned(lambda document: sharded(document, {**WHOLE, "weights.safetensors": [(0, 4096), (4100, 5120)]}))
    assert "its signed parts do not cover the file exactly once" in outcome(torn, files)


@pytest.mark.parametrize(("algorithm", "size"), [("blake3", 32), ("blake2b", 64)])
def test_other_hashes_are_not_checked_and_names_are(algorithm: str, size: int) -> None:
    def change(document: Any) -> None:
        document["predicate"]["serialization"]["hash_type"] = algorithm
        for resource in document["predicate"]["resources"]:
            resource.update(algorithm=algorithm, digest="00" * size)
        document["subject"][0]["digest"]["sha256"] = hashlib.sha256(bytes(4 * size)).hexdigest()

    data = resigned(change)
    assert outcome(data).startswith("not-checked/missing: ")
    assert f"signed by {algorithm}, which is not computed here" in outcome(data)
    assert outcome(data, of_files({"added": b""})).startswith("fail/")


def test_a_payload_with_one_member_twice_is_refused() -> None:
    payload = listed().encode().replace(b'"_type":', b'"_type":"x","_type":', 1)
    assert "duplicate member" in outcome(sealed(payload))


def test_keys_are_read_from_pem_and_named_by_its_hash() -> None:
    assert ModelKey.parse(PUBLIC.pem) == PUBLIC
    for text in (b"junk", KEY.to_pem()):
        with pytest.raises(Malformed):
            ModelKey.parse(text)
