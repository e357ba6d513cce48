"""Signatures of the image of an artifact that programs for clusters check, such as cosign; made by its publisher, and
kept in a statement in the log, so that each mirror can serve them.

`image` is the SHA-256 of the image manifest, which `comity.rules.model_pack` makes. The classical half of a key of the
publisher signs two messages about it:

    payload     the payload of cosign at the tag `sha256-….sig`:

                {"critical":{"identity":{"docker-reference":"swiss-ai/apertus-8b"},
                             "image":{"docker-manifest-digest":"sha256:…"},"type":"cosign container image signature"},
                 "optional":{"dev.comity.artifact":"sha256:…","dev.comity.name":"swiss-ai/apertus-8b@v1"}}

    envelope    an in-toto statement in DSSE, for Sigstore bundles:

                {"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"…"},"name":"…"}],
                 "predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}

Neither message is in the statement: both follow from its name, artifact and image, so that nothing else can be signed
by it. No signature of one use is one of another. What Comity signs begins with `DSSEv1 `, and a payload with `{`. The
predicate type of the envelope is not one of Comity, so that it is no line of a log with an author; and no statement of
Comity has this predicate type. The post-quantum half of the key signs the line in the log, and nothing that cosign
reads. Sources: cosign, specs/SIGNATURE_SPEC.md; in-toto Attestation Framework v1; the Sigstore bundle's protobuf
definition.
"""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Final, Protocol, Self, TypeVar

from comity.rules.model_pack import ARTIFACT
from comity.trust.authorship import judge_author
from comity.trust.claims import ParsedClaims
from comity.trust.codec import JsonBytes, JsonRead
from comity.trust.content import ById, Content, SubjectDigest
from comity.trust.encoding import Digest, canonical, short
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.key_validity import KeyCircumstances, refused_keys
from comity.trust.keys import POST_QUANTUM, SIGNATURE_SIZES, PublicKey, Signer, VerifyingKey, ecdsa_der
from comity.trust.names import Name
from comity.trust.statement import PAYLOAD_TYPE, STATEMENT_TYPE, Author, Entry, Statement, Subject, pae
from comity.trust.statement_kinds import IMAGE_SIGNED

COSIGN_TYPE: Final = "cosign container image signature"
COSIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
NAME: Final = "dev.comity.name"
"""Member of the payload: name and version of the artifact, which `cosign verify --annotations` compares."""
MAX_SIGNATURES: Final = 8
"""Signatures of one image that are served: of the keys that its publisher has and had."""
_SIZES: Final = tuple(size for alg, size in SIGNATURE_SIZES.items() if alg not in POST_QUANTUM)
SIGNATURE_BYTES: Final = JsonBytes(max(_SIZES), min(_SIZES))


@frozen
class ImageSigned(Content):
    """A publisher signed the image of an artifact for programs that check images. Source: protocol, section 5.

        {"by":{"identity":"51aa…"},"envelope":"<base64>","image":"0a1b…","key":"5f01…",
         "name":"swiss-ai/apertus-8b@v1","payload":"<base64>"}

    `payload` and `envelope` are signatures by the key with the id `key`, in the form that the key's algorithm has in
    envelopes. `verify` checks them.
    """

    predicate: ClassVar = IMAGE_SIGNED
    by: ById
    name: Annotated[Name, JsonRead(Name.parse, "name")]
    artifact: SubjectDigest
    image: Annotated[Digest, "SHA-256 of the image manifest."]
    key: Annotated[Digest, "The id of the classical half that signed."]
    payload: Annotated[bytes, SIGNATURE_BYTES]
    envelope: Annotated[bytes, SIGNATURE_BYTES]

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(str(self.name), self.artifact),)

    @property
    def signed_payload(self) -> bytes:
        """The payload of cosign."""
        return cosign_payload(self.name, self.artifact, self.image)

    @property
    def signed_statement(self) -> bytes:
        """The payload of the envelope."""
        return cosign_statement(self.name, self.image)

    def verify(self, key: PublicKey) -> None:
        """Raises Untrusted (IMAGE-SIGNATURE) unless both are signatures by `key`."""
        if key.id != self.key:
            raise _refused(f"it names the key {short(self.key)}")
        try:
            key.verify(self.payload, self.signed_payload)
            key.verify(self.envelope, pae(PAYLOAD_TYPE, self.signed_statement))
        except Untrusted as error:
            raise _refused(error.why) from error


def cosign_payload(name: Name, artifact: Digest, image: Digest) -> bytes:
    """The payload that cosign reads. A repository has small letters there, as registry clients write it."""
    return canonical(
        {
            "critical": {
                "identity": {"docker-reference": name.repository.lower()},
                "image": {"docker-manifest-digest": f"sha256:{image}"},
                "type": COSIGN_TYPE,
            },
            "optional": {ARTIFACT: f"sha256:{artifact}", NAME: str(name)},
        }
    )


def cosign_statement(name: Name, image: Digest) -> bytes:
    """The in-toto statement in a bundle by which cosign knows the signature of an image."""
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": str(name), "digest": {"sha256": image}}],
            "predicateType": COSIGN_PREDICATE,
            "predicate": {},
        }
    )


def classical_half(key: VerifyingKey) -> PublicKey:
    """The half of a key that other programs can check. Raises Malformed (NO-CLASSICAL-KEY) if it has none."""
    found = next((half for half in key.halves if half.alg not in POST_QUANTUM), None)
    if found is None:
        why = f"it has {' and '.join(half.alg for half in key.halves)}, which cosign does not know"
        hint = "rotate to a key with Ed25519 or P-384 beside ML-DSA"
        raise Malformed("this key cannot sign images", why=why, hint=hint, code="NO-CLASSICAL-KEY")
    return found


def classical_signature(signer: Signer, message: bytes) -> bytes:
    """Sign with a whole key, and keep the signature of its classical half. Raises Malformed (NO-CLASSICAL-KEY)."""
    key = classical_half(signer.public)
    return next(made for keyid, made in signer.sign(message) if keyid == key.id)


def sign_image(by: Digest, name: Name, artifact: Digest, image: Digest, signer: Signer) -> ImageSigned:
    """Sign an image. Raises Malformed (NO-CLASSICAL-KEY)."""
    payload = classical_signature(signer, cosign_payload(name, artifact, image))
    envelope = classical_signature(signer, pae(PAYLOAD_TYPE, cosign_statement(name, image)))
    return ImageSigned(by, name, artifact, image, classical_half(signer.public).id, payload, envelope)


def foreign_signature(key: PublicKey, signature: bytes) -> bytes:
    """A signature in the form that other programs read: that of X9.62 for ECDSA. Raises ValueError if it is none."""
    return ecdsa_der(key.alg, signature) if key.alg.startswith("ecdsa") else signature


@frozen
class ImageSignature:
    """A signature of an image that counts, and its key."""

    entry: Entry
    said: ImageSigned
    key: PublicKey


def image_signatures(
    claims: ParsedClaims, publisher: Digest, artifact: Digest, image: Digest, given: KeyCircumstances
) -> tuple[ImageSignature, ...]:
    """The signatures of an image that count: by the publisher, with keys that count now. Others are left out.

    Args:
        publisher: the identity to whose name the artifact belongs.
        image: the SHA-256 of the image manifest as it is computed here.
        given: with the proofs of the statements, if there are any.
    """
    author = Author("identity", publisher)
    own = (entry for entry in claims.about(artifact, IMAGE_SIGNED) if entry.statement.by == author)
    counted = ((entry, counted_image(ImageSigned, entry, claims, image, given)) for entry in own)
    found = (ImageSignature(entry, *each) for entry, each in counted if each is not None)
    return tuple(itertools.islice(found, MAX_SIGNATURES))


class SignedOfImage(Protocol):
    """What a statement has that carries signatures about an image."""

    @classmethod
    def parse(cls, statement: Statement, /) -> Self: ...

    @property
    def by(self) -> Digest: ...

    @property
    def image(self) -> Digest: ...

    @property
    def key(self) -> Digest: ...

    def verify(self, key: PublicKey, /) -> None: ...


S = TypeVar("S", bound=SignedOfImage)


def counted_image(
    kind: type[S], entry: Entry, claims: ParsedClaims, image: Digest, given: KeyCircumstances
) -> tuple[S, PublicKey] | None:
    """What a statement of this kind says, and the key that signed it; None unless it is about the image, and by a key
    that counts now: another statement may be right."""
    try:
        said = kind.parse(entry.statement)
        key = signing_half(entry, said.by, said.key, claims, given)
        if said.image != image or key is None:
            return None
        said.verify(key)
    except ComityError:
        return None
    return said, key


def signing_half(
    entry: Entry, by: Digest, key: Digest, claims: ParsedClaims, given: KeyCircumstances
) -> PublicKey | None:
    """The half with the id `key` of a key of the author that signed the line; None if there is none, or the author is
    not proven, or its keys do not count now."""
    member = next((found for body in given.policy.pins if (found := body.member(by)) is not None), None)
    chain = judge_author(entry, claims.keys_of(by, member)).chain
    if chain is None or refused_keys(entry, by, chain, given):
        return None
    halves = (half for each in chain.signing_keys(entry.envelope) for half in each.halves)
    return next((half for half in halves if half.id == key), None)


def _refused(why: str) -> Untrusted:
    return Untrusted("image signature refused", why=why, code="IMAGE-SIGNATURE")
