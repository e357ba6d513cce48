"""Verification summaries about the image of an artifact: what a verifier found, for policies of clusters that ask
"who approved this?" with cosign.

An identity that verified an artifact under a policy, and accepted it, signs a summary of SLSA (VSA v1) whose subject is
the image. As for signatures (`image_signature`), a statement in the log has the signature, and the signed bytes follow
from the statement:

    {"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"<image>"},"name":"swiss-ai/apertus-8b@v1"}],
     "predicateType":"https://slsa.dev/verification_summary/v1","predicate":{
      "policy":{"digest":{"sha256":"77c0…"}},"resourceUri":"urn:comity:artifact:9f2c…",
      "timeVerified":"2026-11-25T15:04:05Z","verificationResult":"PASSED","verifiedLevels":["COMITY_BYTES"],
      "verifier":{"id":"urn:comity:identity:51aa…"}}}

There is none with the result FAILED: `cosign verify-attestation` asks for signature and type, and not for the result.
A summary says what held at its time: what is said of the artifact later is not in it.

No summary is a signature of an image, and no signature is a summary: both are envelopes of one type, and their
predicate types differ. Neither names an author as statements of Comity do, so that no log takes one for a statement.
Whose summaries a gateway serves is for its node to say; statements of others cost readers nothing, because only the
asked authors are read.

Sources: SLSA verification summary v1; cosign, specs/ATTESTATION_SPEC.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar, Final

from comity.rules.image_signature import (
    SIGNATURE_BYTES,
    ImageSignature,
    classical_half,
    classical_signature,
    counted_image,
    image_signatures,
)
from comity.trust.claims import ParsedClaims
from comity.trust.codec import JsonTime
from comity.trust.content import ById, Content, Label, SubjectDigest
from comity.trust.encoding import Digest, Json, canonical, format_time
from comity.trust.errors import Refused, Untrusted
from comity.trust.frozen import frozen
from comity.trust.key_validity import KeyCircumstances
from comity.trust.keys import PublicKey, Signer
from comity.trust.report import LEVELS, RESULTS, Verified
from comity.trust.statement import PAYLOAD_TYPE, STATEMENT_TYPE, Entry, pae
from comity.trust.statement_kinds import IMAGE_SIGNED, IMAGE_VERIFIED

SUMMARY_PREDICATE: Final = "https://slsa.dev/verification_summary/v1"
MAX_SUMMARIES: Final = 64
"""Summaries of one image that are served, those of members and of named authors."""
MAX_OF_ONE: Final = 2
"""Of one author: under two policies."""


@frozen
class ImageVerified(Content):
    """An identity verified an artifact and accepted it, and says so of its image. Source: protocol, section 5.

        {"by":{"identity":"51aa…"},"envelope":"<base64>","image":"0a1b…","key":"5f01…","levels":["COMITY_BYTES"],
         "policy":"77c0…","time":"2026-11-25T15:04:05Z"}

    `envelope` is the signature by the key with the id `key` of the summary that follows (`signed_statement`). `time` is
    the signer's claim, in seconds since 1970.
    """

    predicate: ClassVar = IMAGE_VERIFIED
    by: ById
    name: Label
    artifact: SubjectDigest
    image: Annotated[Digest, "SHA-256 of the image manifest."]
    policy: Annotated[Digest, "SHA-256 of the policy by which it was verified."]
    time: Annotated[int, JsonTime()]
    levels: Annotated[tuple[str, ...], LEVELS]
    key: Annotated[Digest, "The id of the classical half that signed."]
    envelope: Annotated[bytes, SIGNATURE_BYTES]

    @property
    def signed_statement(self) -> bytes:
        """The payload of the envelope."""
        return summary_statement(self.by, self.name, self.artifact, self.image, self.policy, self.time, self.levels)

    def verify(self, key: PublicKey) -> None:
        """Raises Untrusted (IMAGE-SIGNATURE) unless it is a signature by `key`."""
        try:
            key.verify(self.envelope, pae(PAYLOAD_TYPE, self.signed_statement))
        except Untrusted as error:
            raise Untrusted("image summary refused", why=error.why, code="IMAGE-SIGNATURE") from error


def summary_statement(
    by: Digest, name: str, artifact: Digest, image: Digest, policy: Digest, time: int, levels: Sequence[str]
) -> bytes:
    """The in-toto statement about the image, in the form of SLSA's verification summary."""
    subject: dict[str, Json] = {"digest": {"sha256": image}, **({"name": name} if name else {})}
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": SUMMARY_PREDICATE,
            "predicate": {
                "verifier": {"id": f"urn:comity:identity:{by}"},
                "timeVerified": format_time(time),
                "resourceUri": f"urn:comity:artifact:{artifact}",
                "policy": {"digest": {"sha256": policy}},
                "verificationResult": RESULTS[True],
                "verifiedLevels": list(levels),
            },
        }
    )


def summarise_image(verified: Verified, image: Digest, signer: Signer) -> ImageVerified:
    """Sign, for the image, what a verifier found. Raises Refused (IMAGE-REFUSED) if it did not accept the artifact, and
    Malformed (NO-CLASSICAL-KEY)."""
    if not verified.passed:
        why = "cosign asks who signed a summary, and not for its result"
        raise Refused("a refusal is not signed for images", why=why, code="IMAGE-REFUSED")
    found = verified.by, verified.name, verified.artifact, image, verified.policy, verified.time, verified.levels
    envelope = classical_signature(signer, pae(PAYLOAD_TYPE, summary_statement(*found)))
    return ImageVerified(*found, classical_half(signer.public).id, envelope)


@frozen
class ImageSummary:
    """A summary of an image that counts, and its key."""

    entry: Entry
    said: ImageVerified
    key: PublicKey


def image_summaries(
    claims: ParsedClaims, authors: Collection[Digest], artifact: Digest, image: Digest, given: KeyCircumstances
) -> tuple[ImageSummary, ...]:
    """The summaries of an image that count: by these identities, with keys that count now; of each identity the newest
    under each policy, for at most `MAX_OF_ONE` policies.

    Args:
        image: the SHA-256 of the image manifest as it is computed here.
    """
    newest: dict[tuple[Digest, Digest], ImageSummary] = {}
    for entry in claims.about(artifact, IMAGE_VERIFIED):
        if entry.statement.by is None or entry.statement.by.id not in authors:
            continue
        if (counted := counted_image(ImageVerified, entry, claims, image, given)) is None:
            continue
        found = ImageSummary(entry, *counted)
        known = newest.get((found.said.by, found.said.policy))
        if known is None or known.said.time < found.said.time:
            newest[found.said.by, found.said.policy] = found
    kept: dict[Digest, list[ImageSummary]] = {}
    for each in sorted(newest.values(), key=lambda each: (-each.said.time, each.entry.digest)):
        kept.setdefault(each.said.by, []).append(each)
    chosen = [each for own in kept.values() for each in own[:MAX_OF_ONE]]
    return tuple(sorted(chosen[:MAX_SUMMARIES], key=lambda each: each.entry.digest))


@frozen
class SaidOfImage:
    """What counts of what was signed about an image for other programs."""

    signatures: tuple[ImageSignature, ...] = ()
    summaries: tuple[ImageSummary, ...] = ()

    @classmethod
    def of(
        cls,
        given: KeyCircumstances,
        authors: Collection[Digest],
        publisher: Digest | None,
        artifact: Digest,
        image: Digest,
    ) -> SaidOfImage:
        """As `image_signatures` of the publisher, if there is one, and `image_summaries` of the authors."""
        claims = given.claims
        signatures = image_signatures(claims, publisher, artifact, image, given) if publisher else ()
        return cls(signatures, image_summaries(claims, authors, artifact, image, given))

    @property
    def authors(self) -> tuple[Digest, ...]:
        """Whose keys it depends on."""
        said = (*(each.said.by for each in self.signatures), *(each.said.by for each in self.summaries))
        return tuple(dict.fromkeys(said))


def of_images(claims: ParsedClaims, authors: Collection[Digest], artifact: Digest) -> tuple[Entry, ...]:
    """The statements of these identities about images of the artifact. No signature is verified."""
    found = claims.about(artifact, IMAGE_SIGNED, IMAGE_VERIFIED)
    return tuple(entry for entry in found if entry.statement.by is not None and entry.statement.by.id in authors)
