"""Verification summaries about images: what is signed, by whom one counts, and which of several."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from comity.rules.image_signature import classical_half, cosign_statement, foreign_signature, sign_image
from comity.rules.image_summary import (
    MAX_OF_ONE,
    SUMMARY_PREDICATE,
    ImageVerified,
    SaidOfImage,
    image_summaries,
    of_images,
    summarise_image,
)
from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Refused, Untrusted
from comity.trust.evidence import EvidenceReader
from comity.trust.key_validity import KeyCircumstances
from comity.trust.names import Name
from comity.trust.policy import Policy
from comity.trust.report import Verified
from comity.trust.statement import PAYLOAD_TYPE, Entry, SideObject, Statement, pae
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from support.rotations import of
from support.world import Identity, draft, identity, seat, signer

ARTIFACT, IMAGE, OTHER, POLICY = (sha256(text) for text in (b"artifact", b"image", b"other", b"policy"))
MINISTRY, STRANGER = identity("Ministry", "CH"), identity("Stranger", "SG")
TIME = 1_795_000_000


def verified(by: Identity = MINISTRY, time: int = TIME, policy: Digest = POLICY, *, passed: bool = True) -> Verified:
    report = SideObject.of(b"{}")
    return Verified(by.id, "inst/tiny@v1", ARTIFACT, time, policy, passed, ("COMITY_BYTES",), (), report, "1.0")


def summary(by: Identity = MINISTRY, time: int = TIME, policy: Digest = POLICY, image: Digest = IMAGE) -> Entry:
    return sign_content(summarise_image(verified(by, time, policy), image, by.signer), by.signer)


def counted(*lines: bytes, authors: tuple[Identity, ...] = (MINISTRY,), policy: Policy | None = None) -> list[Entry]:
    claims = read_claims((MINISTRY.entry.line, STRANGER.entry.line, *lines), ARTIFACT)
    given = KeyCircumstances(claims, (), (), policy or Policy(), {}, EvidenceReader())
    found = image_summaries(claims, {each.id for each in authors}, ARTIFACT, IMAGE, given)
    return [each.entry for each in found]


def test_the_statement_about_the_image_is_a_verification_summary_that_another_library_verifies() -> None:
    said, half = summarise_image(verified(), IMAGE, MINISTRY.signer), classical_half(MINISTRY.signer.public)
    document = json.loads(said.signed_statement)
    assert document["subject"] == [{"name": "inst/tiny@v1", "digest": {"sha256": IMAGE}}]
    assert (document["predicateType"], document["_type"]) == (SUMMARY_PREDICATE, "https://in-toto.io/Statement/v1")
    assert document["predicate"] == {
        "verifier": {"id": f"urn:comity:identity:{MINISTRY.id}"},
        "timeVerified": "2026-11-18T11:06:40Z",
        "resourceUri": f"urn:comity:artifact:{ARTIFACT}",
        "policy": {"digest": {"sha256": POLICY}},
        "verificationResult": "PASSED",
        "verifiedLevels": ["COMITY_BYTES"],
    }
    public = load_pem_public_key(half.to_pem())
    assert isinstance(public, ed25519.Ed25519PublicKey)
    public.verify(foreign_signature(half, said.envelope), pae(PAYLOAD_TYPE, said.signed_statement))
    assert Statement.parse(said.signed_statement).by is None, "no statement of Comity"


def test_a_refusal_is_not_signed_for_an_image() -> None:
    with pytest.raises(Refused, match="a refusal is not signed") as refused:
        summarise_image(verified(passed=False), IMAGE, MINISTRY.signer)
    assert refused.value.code == "IMAGE-REFUSED"


@pytest.mark.parametrize(
    "change",
    [{"image": OTHER}, {"policy": OTHER}, {"time": TIME + 1}, {"levels": ()}, {"name": "x"}, {"envelope": bytes(64)}],
)
def test_a_summary_is_of_what_it_says_alone(change: dict[str, object]) -> None:
    said = replace(summarise_image(verified(), IMAGE, MINISTRY.signer), **change)  # type: ignore[arg-type]
    with pytest.raises(Untrusted, match="image summary refused"):
        said.verify(classical_half(MINISTRY.signer.public))
    assert counted(sign_content(said, MINISTRY.signer).line) == []


def test_a_signature_of_the_publisher_is_no_summary_and_no_summary_is_a_signature() -> None:
    """Both are envelopes of one type; the predicate types keep them apart."""
    said, keys = summarise_image(verified(), IMAGE, MINISTRY.signer), MINISTRY.signer
    published = sign_image(MINISTRY.id, Name.parse("inst/tiny@v1"), ARTIFACT, IMAGE, keys)
    half = classical_half(keys.public)
    for changed in (replace(said, envelope=published.envelope), replace(said, envelope=published.payload)):
        with pytest.raises(Untrusted):
            changed.verify(half)
    with pytest.raises(Untrusted):
        replace(published, envelope=said.envelope).verify(half)
    assert cosign_statement(published.name, IMAGE) != said.signed_statement


def test_only_summaries_of_the_asked_authors_about_this_image_count() -> None:
    own, foreign, elsewhere = summary(), summary(STRANGER), summary(image=OTHER)
    assert counted(own.line, foreign.line, elsewhere.line) == [own]
    posing = sign_content(summarise_image(verified(), IMAGE, STRANGER.signer), STRANGER.signer)
    assert counted(posing.line) == []


def test_the_newest_summary_under_each_policy_counts_and_one_author_has_few() -> None:
    old, new = summary(time=TIME), summary(time=TIME + 5)
    assert counted(old.line, new.line) == counted(new.line, old.line) == [new]
    many = [summary(policy=sha256(bytes([number])), time=TIME + number) for number in range(MAX_OF_ONE + 2)]
    found = {each.digest for each in counted(*(each.line for each in many))}
    assert found == {each.digest for each in many[-MAX_OF_ONE:]}


def test_a_summary_by_retired_keys_counts_no_more() -> None:
    after, rotated = of(MINISTRY).to("ministry second")
    again = sign_content(summarise_image(verified(), IMAGE, after.keys[0]), after.keys[0])
    assert counted(rotated.line, summary().line) == []
    assert counted(rotated.line, summary().line, again.line) == [again]


def test_a_member_is_known_by_its_charter_without_an_inception() -> None:
    member = seat("ES")
    line = summary(member).line
    assert counted(line, authors=(member,)) == []
    policy = Policy(pins=(draft([member.member]),))
    assert [each.line for each in counted(line, authors=(member,), policy=policy)] == [line]


def test_what_counts_of_an_image_names_whose_keys_it_depends_on() -> None:
    keys = signer("images", ("ed25519", "ml-dsa-65"))
    stray = sign_content(sign_image(STRANGER.id, Name.parse("inst/tiny@v1"), ARTIFACT, IMAGE, keys), keys)
    said = sign_image(MINISTRY.id, Name.parse("inst/tiny@v1"), ARTIFACT, IMAGE, MINISTRY.signer)
    own, known = sign_content(said, MINISTRY.signer), (MINISTRY.entry.line, STRANGER.entry.line)
    claims = read_claims((*known, own.line, summary(STRANGER).line, stray.line), ARTIFACT)
    given = KeyCircumstances(claims, (), (), Policy(), {}, EvidenceReader())
    found = SaidOfImage.of(given, {MINISTRY.id, STRANGER.id}, MINISTRY.id, ARTIFACT, IMAGE)
    assert [each.entry for each in found.signatures] == [own]
    assert found.authors == (MINISTRY.id, STRANGER.id)
    assert of_images(claims, {MINISTRY.id}, ARTIFACT) == (own,)
    mirrored = SaidOfImage.of(given, {STRANGER.id}, None, ARTIFACT, IMAGE)
    assert (mirrored.signatures, len(mirrored.summaries)) == ((), 1)


def test_a_summary_is_read_back_as_it_was_written() -> None:
    entry = summary()
    assert sign_content(ImageVerified.parse(entry.statement), MINISTRY.signer).statement == entry.statement
