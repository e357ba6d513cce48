"""Envelopes of other programs as side evidence: what they are, whose pinned key signed them, and about what.

A DSSE envelope, or a Sigstore bundle with one, is read leniently where the formats are: any order of members, standard
or URL-safe base64, a key id that is missing, and members that are not known here. It is bounded, and named by the
SHA-256 of its bytes. It is never a statement of Comity: it proves nothing about a publication and changes no row of a
verdict. Its own verdict is one of

    verified    a key that the owner pinned signed it, or an identity that the owner named (keyless), checked here
    claimed     it is present and readable; no pinned key or identity is known to have signed it
    failed      it names a pinned key, and its signature is not of that key
    unreadable  not an envelope, or not a statement that is read here

What a verified attestation says is still what its signer says. Sources: DSSE v1; Sigstore bundle v0.1 to v0.3;
in-toto Attestation Framework v1.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from comity.addons.attestations.predicates import ForeignStatement, ResourceDescriptor
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, Fields, Json, b64encode, parse_json, sha256
from comity.trust.errors import ComityError, Malformed, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import PublicKey
from comity.trust.model_signing.bundle import statement_of_files
from comity.trust.statement import PAYLOAD_TYPE, pae

MAX_ATTESTATION: Final = 4 * 1024 * 1024
MAX_SIGNATURES: Final = 24
MAX_SIGNATURE: Final = 8192
MAX_ID: Final = 1024
MAX_KEY: Final = 16_384
BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
"""Beginning of the media type of every version of the bundle."""


@frozen
class ForeignSignature:
    """A signature and the key that it claims, which may be empty."""

    keyid: str
    signature: bytes


@frozen
class ForeignEnvelope:
    """A DSSE envelope. `form` is `dsse` or `bundle`; of a bundle, `keyless` says that it names a certificate instead of
    a key, and `hint` is the key that it names."""

    form: Literal["dsse", "bundle"]
    payload_type: str
    payload: bytes
    signatures: tuple[ForeignSignature, ...]
    keyless: bool = False
    hint: str = ""

    @classmethod
    def parse(cls, data: bytes) -> ForeignEnvelope:
        """Parse at most 4 MiB. Raises Malformed."""
        fields = Fields(parse_json(data, limit=MAX_ATTESTATION, what="attestation", text_fractions=True), "attestation")
        if not fields.has("dsseEnvelope"):
            return cls("dsse", *_envelope(fields))
        if not fields.text("mediaType", most=100).startswith(BUNDLE):
            raise fields.error("its media type is not that of a Sigstore bundle")
        material, envelope = fields.object("verificationMaterial"), fields.object("dsseEnvelope")
        key = material.object("publicKey") if material.has("publicKey") else Fields({}, "attestation")
        keyless = material.has("certificate") or material.has("x509CertificateChain")
        return cls("bundle", *_envelope(envelope), keyless, _optional_text(key, "hint"))

    @property
    def signed(self) -> bytes:
        return pae(self.payload_type, self.payload)

    def names(self, key: AttestationKey) -> bool:
        """Whether it claims to be signed by `key`."""
        return not key.ids.isdisjoint({self.hint, *(signature.keyid for signature in self.signatures)})


def _envelope(fields: Fields) -> tuple[str, bytes, tuple[ForeignSignature, ...]]:
    payload, payload_type = _decode(fields.take("payload")), fields.text("payloadType", most=200)
    signatures = tuple(map(_signature, fields.items("signatures", least=1, most=MAX_SIGNATURES)))
    return payload_type, payload, signatures


def _signature(item: Json) -> ForeignSignature:
    fields = Fields(item, "attestation signature")
    signature = _decode(fields.take("sig"))
    if not 1 <= len(signature) <= MAX_SIGNATURE:
        raise fields.error(f"a signature has 1 to {MAX_SIGNATURE} bytes")
    return ForeignSignature(_optional_text(fields, "keyid"), signature)


def _optional_text(fields: Fields, name: str) -> str:
    value = fields.take(name) if fields.has(name) else None
    return "" if value is None else Fields({name: value}, "attestation").text(name, least=0, most=MAX_ID)


def _decode(value: Json) -> bytes:
    if not isinstance(value, str):
        raise Malformed("attestation is malformed", why="expected base64")
    try:
        return binascii.a2b_base64(value.replace("-", "+").replace("_", "/"), strict_mode=True)
    except ValueError as error:
        raise Malformed("attestation is malformed", why=f"not base64: {error}") from error


_CURVES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_LEAST_RSA: Final = 2048
_MOST_RSA: Final = 8192


@frozen
class AttestationKey:
    """A public key that the owner pinned for attestations: Ed25519, ECDSA on a NIST curve, or RSA of 2048 to 8192 bits.

    `ids` are the key ids by which tools name it: the SHA-256 of its PEM text (Sigstore, cosign), of its DER form, and
    of a Comity key.
    """

    pem: bytes
    label: str
    algorithm: str
    ids: frozenset[str]

    @classmethod
    def parse(cls, text: bytes, label: str = "") -> AttestationKey:
        """Read a public key in PEM. Raises Malformed (ATTESTATION-KEY)."""
        try:
            key = serialization.load_pem_public_key(text) if len(text) <= MAX_KEY else None
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _not_a_key("expected a SubjectPublicKeyInfo in PEM") from error
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        if isinstance(key, ed25519.Ed25519PublicKey):
            algorithm = "ed25519"
        elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
            algorithm = f"ecdsa-{key.curve.name}"
        elif isinstance(key, rsa.RSAPublicKey) and _LEAST_RSA <= key.key_size <= _MOST_RSA:
            algorithm = f"rsa-{key.key_size}"
        else:
            raise _not_a_key("expected Ed25519, ECDSA on P-256, P-384 or P-521, or RSA of 2048 to 8192 bits")
        pem = key.public_bytes(serialization.Encoding.PEM, form)
        ids = {sha256(pem), sha256(key.public_bytes(serialization.Encoding.DER, form))}
        if isinstance(key, ed25519.Ed25519PublicKey):
            ids.add(PublicKey("ed25519", key.public_bytes_raw()).id)
        return cls(pem, label, algorithm, frozenset(ids))

    @property
    def id(self) -> Digest:
        """SHA-256 of its PEM text, as OpenSSL writes it."""
        return sha256(self.pem)

    def __str__(self) -> str:
        return f"{self.label or self.algorithm} [{self.id[:12]}]"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is one of this key, in a form that tools write."""
        key = serialization.load_pem_public_key(self.pem)
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, message)
            elif isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, message, ec.ECDSA(_CURVES[key.curve.name]))
            else:
                return isinstance(key, rsa.RSAPublicKey) and _rsa_verifies(key, signature, message)
        except InvalidSignature:
            return False
        return True


def _rsa_verifies(key: rsa.RSAPublicKey, signature: bytes, message: bytes) -> bool:
    """Sigstore tools use PKCS #1 v1.5, in-toto's use PSS; both with SHA-256."""
    digest = hashes.SHA256()
    for scheme in (padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), padding.PKCS1v15()):
        try:
            key.verify(signature, message, scheme, digest)
        except InvalidSignature:
            continue
        return True
    return False


def _not_a_key(why: str) -> Malformed:
    return Malformed(
        "not a key for attestations",
        why=why,
        hint="openssl pkey -in key.pem -pubout -out key.pub",
        code="ATTESTATION-KEY",
    )


KeylessSigner: TypeAlias = Callable[[bytes, bytes], str]
"""Checks a keyless bundle: (bundle, payload) to the identity that signed exactly this payload. Raises Untrusted if no
identity that the owner named did, Unavailable if the check is not possible. The caller supplies it, because it needs
packages other than `cryptography`. It must not use the network."""


@frozen
class ArtifactDigests:
    """The SHA-256 values by which other formats mean an artifact or a part of it."""

    artifact: Digest
    files: Mapping[str, str]
    """Paths by SHA-256."""
    root: str
    """The OpenSSF root over the files' hashes, without their names; empty if the format cannot list the files."""

    @classmethod
    def of(cls, manifest: Manifest) -> ArtifactDigests:
        files = {str(entry.sha256): entry.path for entry in reversed(manifest.files)}
        try:
            root: str = statement_of_files("model", manifest.files).root
        except ComityError:
            root = ""
        return cls(manifest.digest, files, root)

    def meant_by(self, subjects: Iterable[ResourceDescriptor]) -> str:
        """What the subjects mean, for people; empty if they mean nothing of this artifact."""
        digests = {subject.sha256.lower() for subject in subjects if subject.sha256}
        if self.artifact in digests:
            return "this artifact"
        if self.root in digests:
            return "the hashes of its files, without their names (OpenSSF root)"
        paths = sorted(self.files[digest] for digest in digests if digest in self.files)
        return f"its {'file' if len(paths) == 1 else f'{len(paths)} files, such as'} {paths[0]}" if paths else ""


AttestationState = Literal["verified", "claimed", "failed", "unreadable"]


@frozen
class AttestationVerdict:
    """The verdict on one foreign attestation, apart from that on the artifact.

    Attributes:
        digest: SHA-256 of its bytes.
        about: what of the artifact its subjects mean; empty for nothing.
        signer: why it has its state: the pinned key or identity, or that none is known.
        says: what it says, in lines; claims of its signer.
    """

    digest: Digest
    state: AttestationState
    form: str
    predicate_type: str
    about: str
    signer: str
    says: tuple[str, ...] = ()


NO_KEY: Final = "present, not verified: no pinned key is known to have signed it"
KEYLESS: Final = "present, not verified: a keyless signature, and no identity is named"


def judge_attestation(
    data: bytes,
    artifact: ArtifactDigests,
    keys: Sequence[AttestationKey] = (),
    keyless: KeylessSigner | None = None,
) -> AttestationVerdict:
    """Judge the bytes of a foreign attestation. Raises nothing for bad bytes.

    Args:
        keys: those that the owner pinned.
        keyless: checks bundles without a key; without it they are not verified.
    """
    digest = Digest(hashlib.sha256(data).hexdigest())
    try:
        envelope = ForeignEnvelope.parse(data)
    except Malformed as error:
        return AttestationVerdict(digest, "unreadable", "unknown", "", "", str(error))
    state, signer = _judge_signature(data, envelope, keys, keyless)
    try:
        if envelope.payload_type != PAYLOAD_TYPE:
            raise Malformed("not an in-toto statement", why=f"payload type {envelope.payload_type[:60]!r}")
        statement = ForeignStatement.parse(envelope.payload)
    except Malformed as error:
        unread: AttestationState = "failed" if state == "failed" else "unreadable"
        return AttestationVerdict(digest, unread, envelope.form, "", "", f"{signer}; {error}")
    about = artifact.meant_by(statement.subjects)
    says = statement.predicate.describe() if statement.predicate else ("its predicate type is not read here",)
    return AttestationVerdict(digest, state, envelope.form, statement.predicate_type, about, signer, says)


def _judge_signature(
    data: bytes, envelope: ForeignEnvelope, keys: Sequence[AttestationKey], keyless: KeylessSigner | None
) -> tuple[AttestationState, str]:
    for key in keys:
        if any(key.verifies(signature.signature, envelope.signed) for signature in envelope.signatures):
            return "verified", f"signature verified here with pinned key {key}"
    named = [key for key in keys if envelope.names(key)]
    if named:
        return "failed", f"it names pinned key {named[0]}, and its signature is not of that key"
    if not envelope.keyless:
        return "claimed", NO_KEY
    if keyless is None:
        return "claimed", KEYLESS
    try:
        return "verified", f"signature verified here for {keyless(data, envelope.payload)}"
    except Unavailable as error:
        return "claimed", f"present, not verified: {error}"
    except Untrusted as error:
        return "claimed", f"present, not verified: {error}"


def write_envelope(payload: bytes, keyid: str, signature: bytes) -> bytes:
    """One DSSE envelope with one signature, as JSON on one line with a line feed: the form that other tools read."""
    document = (
        f'{{"payload":"{b64encode(payload)}","payloadType":"{PAYLOAD_TYPE}",'
        f'"signatures":[{{"keyid":"{keyid}","sig":"{b64encode(signature)}"}}]}}\n'
    )
    return document.encode("ascii")
