"""Signatures of images: what is signed, what other programs verify, and which of them count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.rules.image_signature import (
    COSIGN_PREDICATE,
    MAX_SIGNATURES,
    ImageSigned,
    classical_half,
    cosign_payload,
    cosign_statement,
    foreign_signature,
    image_signatures,
    sign_image,
)
from comity.rules.signing import sign_content, statement_of
from comity.trust.authorship import AuthorKeys, Authorship, judge_author
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.key_validity import KeyCircumstances
from comity.trust.keys import HybridSigner
from comity.trust.names import Name
from comity.trust.policy import Policy
from comity.trust.rotation import KeyState, LogCut, follow
from comity.trust.statement import PAYLOAD_TYPE, Author, Entry, Statement, pae, parse_entry, sign_payload
from comity.trust.statements import Advisory, Compromise
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from support.case import filled, nodes
from support.rotations import of
from support.several_keys import several_keys
from support.world import Identity, identity, signer

NAME = Name.parse("Swiss-AI/tiny@v1")
ARTIFACT, IMAGE, OTHER = (sha256(text) for text in (b"artifact", b"image", b"other"))
OWNER = identity("Swiss AI", "CH")
HYBRIDS = (("ed25519", "ml-dsa-65"), ("ecdsa-p384", "ml-dsa-65"), ("ecdsa-p256", "ml-dsa-44"))


def signed(by: Identity = OWNER, keys: HybridSigner | None = None, image: Digest = IMAGE) -> Entry:
    made = sign_image(by.id, NAME, ARTIFACT, image, keys or by.signer)
    return sign_content(made, keys or by.signer)


def circumstances(
    lines: tuple[bytes, ...], proofs: tuple[InclusionEvidence, ...] = (), **policy: object
) -> KeyCircumstances:
    claims = read_claims(lines, ARTIFACT)
    return KeyCircumstances(claims, proofs, (), Policy(**policy), {}, EvidenceReader())  # type: ignore[arg-type]


def counted(*lines: bytes, proofs: tuple[InclusionEvidence, ...] = (), by: Identity = OWNER) -> list[Entry]:
    claims = read_claims((by.entry.line, *lines), ARTIFACT)
    given = KeyCircumstances(claims, proofs, (), Policy(), {}, EvidenceReader())
    return [each.entry for each in image_signatures(claims, by.id, ARTIFACT, IMAGE, given)]


def test_the_payload_and_the_statement_are_these_bytes() -> None:
    assert cosign_payload(NAME, ARTIFACT, IMAGE) == (
        b'{"critical":{"identity":{"docker-reference":"swiss-ai/tiny"},'
        b'"image":{"docker-manifest-digest":"sha256:%b"},"type":"cosign container image signature"},'
        b'"optional":{"dev.comity.artifact":"sha256:%b","dev.comity.name":"Swiss-AI/tiny@v1"}}'
        % (IMAGE.encode(), ARTIFACT.encode())
    )
    assert cosign_statement(NAME, IMAGE) == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://sigstore.dev/cosign/sign/v1",'
        b'"subject":[{"digest":{"sha256":"%b"},"name":"Swiss-AI/tiny@v1"}]}' % IMAGE.encode()
    )


@pytest.mark.parametrize("algs", HYBRIDS)
def test_another_library_verifies_both_signatures_by_the_exported_key(algs: tuple[str, ...]) -> None:
    keys = signer("images", algs)
    made, half = sign_image(OWNER.id, NAME, ARTIFACT, IMAGE, keys), classical_half(keys.public)
    public = load_pem_public_key(half.to_pem())
    messages = {made.payload: made.signed_payload, made.envelope: pae(PAYLOAD_TYPE, made.signed_statement)}
    for signature, message in messages.items():
        foreign = foreign_signature(half, signature)
        if isinstance(public, ec.EllipticCurvePublicKey):
            digest = ec.ECDSA(hashes.SHA384() if half.alg == "ecdsa-p384" else hashes.SHA256())
            public.verify(foreign, message, digest)
            with pytest.raises(InvalidSignature):
                public.verify(foreign, message + b" ", digest)
        else:
            assert isinstance(public, ed25519.Ed25519PublicKey)
            public.verify(foreign, message)
            with pytest.raises(InvalidSignature):
                public.verify(foreign, message + b" ")


def test_a_signature_of_one_use_is_none_of_the_other_and_none_of_comity() -> None:
    made, half = sign_image(OWNER.id, NAME, ARTIFACT, IMAGE, OWNER.signer), classical_half(OWNER.signer.public)
    half.verify(made.payload, made.signed_payload)
    with pytest.raises(Untrusted, match="image signature refused"):
        replace(made, payload=made.envelope).verify(half)
    with pytest.raises(Untrusted, match="image signature refused"):
        replace(made, envelope=made.payload).verify(half)
    assert not made.signed_payload.startswith(b"DSSEv1 "), (
        "what every statement of Comity begins with when it is signed"
    )
    said = Statement.parse(made.signed_statement)
    assert (said.predicate, said.by) == (COSIGN_PREDICATE, None)


def test_an_envelope_for_cosign_is_no_statement_of_an_identity_even_with_every_half() -> None:
    classical = identity("Classical", "CH", algs=("ed25519",))
    line = sign_payload(cosign_statement(NAME, IMAGE), classical.signer).encode()
    chain = follow(KeyState.of_inception(classical.inception), ())
    judged = judge_author(parse_entry(line), AuthorKeys(classical.inception, (chain,)))
    assert judged.authorship is Authorship.REFUSED and judged.error is not None and judged.error.code == "AUTHOR"


@pytest.mark.parametrize(
    "change",
    [
        {"image": OTHER},
        {"artifact": OTHER},
        {"name": Name.parse("swiss-ai/tiny@v2")},
        {"payload": bytes(64)},
        {"envelope": bytes(64)},
        {"key": OTHER},
    ],
)
def test_a_signature_is_of_its_name_artifact_and_image_alone(change: dict[str, object]) -> None:
    made = sign_image(OWNER.id, NAME, ARTIFACT, IMAGE, OWNER.signer)
    changed = replace(made, **change)  # type: ignore[arg-type]
    if set(change) == {"artifact"}:
        assert changed.signed_payload != made.signed_payload
    with pytest.raises(Untrusted, match="image signature refused"):
        changed.verify(classical_half(OWNER.signer.public))
    assert counted(sign_content(changed, OWNER.signer).line) == []


def test_a_key_without_a_classical_half_signs_no_image() -> None:
    with pytest.raises(Malformed, match="this key cannot sign images") as refused:
        sign_image(OWNER.id, NAME, ARTIFACT, IMAGE, signer("quantum", ("ml-dsa-65",)))
    assert refused.value.code == "NO-CLASSICAL-KEY"


def test_only_signatures_of_the_publisher_of_the_name_count() -> None:
    stranger = identity("Stranger", "SG")
    own, foreign, other_image = signed(), signed(stranger), signed(image=OTHER)
    assert counted(stranger.entry.line, foreign.line, other_image.line, own.line) == [own]
    posing = sign_content(sign_image(OWNER.id, NAME, ARTIFACT, IMAGE, stranger.signer), stranger.signer)
    assert counted(stranger.entry.line, posing.line) == []
    inner = sign_content(sign_image(OWNER.id, NAME, ARTIFACT, IMAGE, stranger.signer), OWNER.signer)
    assert counted(stranger.entry.line, inner.line) == [], "signed by a key that did not sign the line"


def test_a_publisher_has_so_many_signatures_of_an_image_and_no_more() -> None:
    """The signatures of a line are no part of its statement, so that one statement can be in many lines."""
    statement = statement_of(sign_image(OWNER.id, NAME, ARTIFACT, IMAGE, OWNER.signer)).encode()
    lines = {sign_payload(statement, OWNER.signer).encode() for _ in range(MAX_SIGNATURES + 3)}
    assert len(counted(*lines)) == min(len(lines), MAX_SIGNATURES)


def test_after_a_rotation_a_signature_counts_by_the_new_keys_or_below_the_cut() -> None:
    first, second = signed(), of(OWNER)
    log = filled(nodes(4)[0])
    log.append(first.line)
    proof = log.proof(first.line)
    after, rotated = second.to("images second")
    again = signed(keys=after.keys[0])
    assert counted(rotated.line, first.line, again.line, proofs=(proof,)) == [again]
    _, cut = of(OWNER).to("images third", cut=[LogCut(log.origin, len(log.lines), log.tree.root())])
    assert counted(cut.line, first.line) == [], "nothing proves that it was logged below the cut"
    assert counted(cut.line, first.line, proofs=(proof,)) == [first]


def test_a_signature_by_a_lost_key_counts_no_more() -> None:
    lost = Compromise(OWNER.signer.public.id, nodes(4)[0].origin, 3)
    notice = Advisory(Author("identity", OWNER.id), OWNER.id, "key-compromise", "critical", "the laptop is gone", lost)
    first = signed()
    assert counted(first.line) == [first]
    assert counted(sign_content(notice, OWNER.signer).line, first.line) == []


def test_a_signature_by_the_other_keys_of_a_publisher_that_lost_one_counts() -> None:
    several = several_keys()
    one, two, lost = several.keys
    for keys, counts in (((one, two), True), ((two, one), True), ((one, lost), False), ((lost, one), False)):
        entry = sign_content(sign_image(several.id, NAME, ARTIFACT, IMAGE, keys[0]), *keys)
        claims = read_claims((several.entry.line, entry.line, several.lost.line), ARTIFACT)
        given = KeyCircumstances(claims, (), (), Policy(), {}, EvidenceReader())
        found = image_signatures(claims, several.id, ARTIFACT, IMAGE, given)
        assert [(each.entry, each.key) for each in found] == [(entry, keys[0].public.halves[0])] * counts


def test_a_signature_of_an_image_is_by_a_key_that_signed_its_line() -> None:
    several = several_keys()
    *signers, other = several.keys
    entry = sign_content(sign_image(several.id, NAME, ARTIFACT, IMAGE, other), *signers)
    claims = read_claims((several.entry.line, entry.line), ARTIFACT)
    given = KeyCircumstances(claims, (), (), Policy(), {}, EvidenceReader())
    assert image_signatures(claims, several.id, ARTIFACT, IMAGE, given) == ()


def test_a_statement_is_read_back_as_it_was_written() -> None:
    entry = signed()
    said = ImageSigned.parse(entry.statement)
    assert sign_content(said, OWNER.signer).statement == entry.statement
    assert entry.statement.subjects[0].name == "Swiss-AI/tiny@v1"
