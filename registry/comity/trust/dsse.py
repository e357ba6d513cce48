"""DSSE envelopes: bytes, their type, and who signed exactly these bytes. Source: the DSSE specification, v1.

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<hex>","sig":"<base64>"}]}

An envelope on one line, without its line feed, is a log entry. It has one form, so that one payload with one set of
signatures is one line: RFC 8785 JSON, base64 without bits to spare, signatures in order of their key ids, each of the
length that a signature of some algorithm has. The `keyid` is the id of one public key (`PublicKey.id`); a hybrid signer
leaves one signature a half. Source: protocol, section 5a.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.encoding import Json, b64decode, b64encode, canonical, parse_canonical
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.keys import SIGNATURE_SIZES, PublicKey, Signer, VerifyingKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_LINE: Final = 65_535
MAX_SIGNATURES: Final = 24
"""Of the largest statement: two halves of each of seven governance keys, and ten keys that a node record binds."""
_SIZES: Final = frozenset(SIGNATURE_SIZES.values())


@dataclass(frozen=True, slots=True)
class EnvelopeSignature:
    keyid: Digest
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed payload. `signed_by` decides; the mere presence of a signature means nothing."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def parse(cls, line: bytes) -> Envelope:
        """Parse one line (at most 65,535 bytes) in the one form that an envelope has. Raises Malformed."""
        fields = Fields(parse_canonical(line, limit=MAX_LINE, what="envelope"), "envelope")
        payload = b64decode(fields.take("payload"))
        payload_type = fields.text("payloadType", most=100)
        signatures = tuple(_signature(item) for item in fields.items("signatures", least=1, most=MAX_SIGNATURES))
        fields.done()
        ids = [signature.keyid for signature in signatures]
        if ids != sorted(set(ids)):
            raise Malformed("envelope is malformed", why="its signatures are not in order of their keys, each key once")
        return cls(payload_type, payload, signatures)

    def encode(self) -> bytes:
        """One line, without line feed. Raises Malformed beyond 65,535 bytes."""
        line = canonical(
            {
                "payload": b64encode(self.payload),
                "payloadType": self.payload_type,
                "signatures": [{"keyid": s.keyid, "sig": b64encode(s.sig)} for s in self.signatures],
            }
        )
        if len(line) > MAX_LINE:
            raise Malformed("envelope too large", why=f"{len(line)} bytes, a log entry has at most {MAX_LINE}")
        return line

    @property
    def statement_digest(self) -> Digest:
        """What is said, whoever signed it: SHA-256 of the pre-authentication encoding."""
        return sha256(pae(self.payload_type, self.payload))

    def signed_by(self, keys: Sequence[VerifyingKey], threshold: int, beside: Iterable[PublicKey] = ()) -> bool:
        """Whether at least `threshold` of `keys` signed this, and each of `beside`, and nobody else.

        The one rule by which signatures count: each key that signed did so with every half, every signature here
        holds, and none is there that the record does not list.
        """
        present = {signature.keyid for signature in self.signatures}
        whole = [key for key in keys if present.issuperset(half.id for half in key.halves)]
        halves = {half.id: half for half in (*(half for key in whole for half in key.halves), *beside)}
        if len(whole) < threshold or present != halves.keys():
            return False
        message = pae(self.payload_type, self.payload)
        return all(_holds(halves[signature.keyid], signature.sig, message) for signature in self.signatures)

    def verified_by(self, key: VerifyingKey) -> bool:
        """Whether `key`, and nobody else, signed this."""
        return self.signed_by((key,), 1)

    def bears(self, key: VerifyingKey) -> bool:
        """Whether every half of `key` has a valid signature here, whoever else signed. That alone proves no statement:
        it is for whoever still collects signatures, or asks what a key was used for."""
        message = pae(self.payload_type, self.payload)
        given = {signature.keyid: signature.sig for signature in self.signatures}
        return all(half.id in given and _holds(half, given[half.id], message) for half in key.halves)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, *signers: Signer, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Sign `payload` by every signer. Raises Malformed where two signers share a key."""
    message = pae(payload_type, payload)
    made = (EnvelopeSignature(keyid, sig) for signer in signers for keyid, sig in signer.sign(message))
    return assemble(payload, made, payload_type=payload_type)


def assemble(payload: bytes, made: Iterable[EnvelopeSignature], *, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """The envelope of signatures that were made one by one. Raises Malformed for two of one key, or too many."""
    signatures = tuple(sorted(made, key=lambda signature: signature.keyid))
    if len({signature.keyid for signature in signatures}) != len(signatures):
        raise Malformed("cannot sign", why="one key would sign twice")
    if len(signatures) > MAX_SIGNATURES:
        raise Malformed("cannot sign", why=f"{len(signatures)} signatures, and a line has at most {MAX_SIGNATURES}")
    return Envelope(payload_type, payload, signatures)


def _signature(item: Json) -> EnvelopeSignature:
    fields = Fields(item, "envelope signature")
    signature = EnvelopeSignature(fields.digest("keyid"), b64decode(fields.take("sig")))
    fields.done()
    if len(signature.sig) not in _SIZES:
        raise Malformed("envelope is malformed", why=f"no signature has {len(signature.sig)} bytes")
    return signature


def _holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    if len(signature) != SIGNATURE_SIZES[key.alg]:
        return False
    try:
        key.verify(signature, message)
    except Untrusted:
        return False
    return True
