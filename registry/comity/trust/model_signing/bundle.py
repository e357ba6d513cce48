"""The envelope of a `model.sig`: a Sigstore bundle, v0.3, with one DSSE signature in it.

    {"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial":{"publicKey":{"hint":"<hex>"},"tlogEntries":[]},
     "dsseEnvelope":{"payload":"<base64>","payloadType":"application/vnd.in-toto+json",
                     "signatures":[{"keyid":"","sig":"<base64>"}]}}

Exactly one signature, as the bundle's definition says: of a second one, readers that look at the first only would never
learn that it is bogus. Which key or certificate signed is a claim until `authority` has checked it. Sources: the
Sigstore bundle's protobuf definition; OpenSSF Model Signing, v1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.trust.dsse import PAYLOAD_TYPE, pae
from comity.trust.encoding import Json, b64decode, b64encode, canonical, parse_json
from comity.trust.errors import Malformed
from comity.trust.evidence import MAX_MODEL_SIG
from comity.trust.fields import Fields

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_CERTIFICATES: Final = 10
MAX_CERTIFICATE: Final = 64 * 1024
"""Bytes of one certificate, and of a public key that comes along."""
MAX_LOG_ENTRIES: Final = 32

_WAYS: Final = ("publicKey", "x509CertificateChain", "certificate")


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """Signed with a plain key. `hint` is the hex SHA-256 of its PEM text; `pem`, which older signers gave instead, is
    that text. Both may be absent, and neither is to be believed."""

    hint: str = ""
    pem: bytes = b""


@dataclass(frozen=True, slots=True)
class ChainMaterial:
    """Signed with the key of the first certificate (DER); the others lead towards a root."""

    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class KeylessMaterial:
    """Signed with a short-lived certificate (DER) of a Sigstore authority, and logged there in `entries` entries."""

    certificate: bytes
    entries: int


Material: TypeAlias = KeyMaterial | ChainMaterial | KeylessMaterial


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is said to have signed, the signed payload, and the one signature."""

    material: Material
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over. The faulty encoding of model_signing 0.2 is not among them."""
        return pae(PAYLOAD_TYPE, self.payload)

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Parse a bundle of at most 64 MiB. Raises Malformed."""
        fields = Fields(parse_json(data, limit=MAX_MODEL_SIG, what="model.sig"), "model.sig")
        fields.constant("mediaType", MEDIA_TYPE)
        if fields.has("messageSignature"):
            raise fields.error("it signs a bare message, not a list of files")
        material = _material(fields.object("verificationMaterial"))
        envelope = fields.object("dsseEnvelope")
        fields.done()
        payload = b64decode(envelope.take("payload"))
        envelope.constant("payloadType", PAYLOAD_TYPE)
        signatures = envelope.items("signatures", most=MAX_LOG_ENTRIES)
        envelope.done()
        if len(signatures) != 1:
            raise envelope.error(f"{len(signatures)} signatures; a bundle has exactly one")
        return cls(material, payload, _signature(signatures[0]))

    def encode(self) -> bytes:
        """One JSON line and a line feed. Raises Malformed for a keyless bundle: its log entries are not kept here."""
        document: dict[str, Json] = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {**_written(self.material), "tlogEntries": []},
            "dsseEnvelope": {
                "payload": b64encode(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": b64encode(self.signature), "keyid": ""}],
            },
        }
        return canonical(document) + b"\n"


def _material(fields: Fields) -> Material:
    """Whoever signed, by exactly one of the three ways."""
    ways = [way for way in _WAYS if fields.has(way)]
    if len(ways) != 1:
        raise fields.error(f"expected exactly one of {', '.join(_WAYS)}")
    entries = len(fields.items("tlogEntries", most=MAX_LOG_ENTRIES)) if fields.has("tlogEntries") else 0
    if fields.has("timestampVerificationData"):
        fields.object("timestampVerificationData")  # read by whoever checks the log entries, if anybody does
    material = _by(ways[0], fields.object(ways[0]), entries)
    fields.done()
    return material


def _by(way: str, given: Fields, entries: int) -> Material:
    if way == "publicKey":
        return _key(given)
    if way == "certificate":
        material = KeylessMaterial(_raw(given), entries)
    else:
        items = given.items("certificates", least=1, most=MAX_CERTIFICATES)
        given.done()
        return ChainMaterial(tuple(_raw(Fields(item, "model.sig certificate")) for item in items))
    given.done()
    return material


def _key(given: Fields) -> KeyMaterial:
    hint = _optional_text(given, "hint")
    pem = _raw(given) if given.has("rawBytes") else b""
    if given.has("keyDetails"):
        given.text("keyDetails", most=100)
    given.done()
    return KeyMaterial(hint, pem)


def _raw(given: Fields) -> bytes:
    raw = b64decode(given.take("rawBytes"))
    if not 1 <= len(raw) <= MAX_CERTIFICATE:
        raise given.error(f"a certificate or key has 1 to {MAX_CERTIFICATE} bytes")
    return raw


def _signature(item: Json) -> bytes:
    fields = Fields(item, "model.sig signature")
    signature = b64decode(fields.take("sig"))
    _optional_text(fields, "keyid")  # a hint of no authority
    fields.done()
    return signature


def _optional_text(fields: Fields, name: str) -> str:
    """Writers leave it out, say null, or give an empty string."""
    value = fields.take(name) if fields.has(name) else None
    if value is not None and not (isinstance(value, str) and len(value) <= 256):
        raise fields.error(f"member {name!r} must be a string of at most 256 characters")
    return value or ""


def _written(material: Material) -> dict[str, Json]:
    if isinstance(material, ChainMaterial):
        return {"x509CertificateChain": {"certificates": [{"rawBytes": b64encode(c)} for c in material.certificates]}}
    if isinstance(material, KeylessMaterial):
        raise Malformed("a keyless bundle cannot be written", why="its log entries are not kept")
    key: dict[str, Json] = {"hint": material.hint} if material.hint else {}
    return {"publicKey": key | ({"rawBytes": b64encode(material.pem)} if material.pem else {})}
