"""DSSE envelopes: bytes, their type, and who signed exactly these bytes. Source: the DSSE specification, v1.

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<hex>","sig":"<base64>"}]}

An envelope on one line, without its line feed, is a log entry. It is kept and verified as received, never written
again. The `keyid` is the id of one public key (`PublicKey.id`); a hybrid signer leaves one signature a half.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.encoding import Json, b64decode, b64encode, parse_json
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.keys import PublicKey, Signer, VerifyingKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_LINE: Final = 65_535
MAX_SIGNATURES: Final = 32


@dataclass(frozen=True, slots=True)
class EnvelopeSignature:
    keyid: Digest
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed payload. `verified_by` decides; the mere presence of a signature means nothing."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def parse(cls, line: bytes) -> Envelope:
        """Parse one line (at most 65,535 bytes, no line feed). Raises Malformed."""
        if b"\n" in line:
            raise Malformed("envelope is malformed", why="more than one line")
        fields = Fields(parse_json(line, limit=MAX_LINE, what="envelope"), "envelope")
        payload = b64decode(fields.take("payload"))
        payload_type = fields.text("payloadType", most=100)
        signatures = tuple(_signature(item) for item in fields.items("signatures", least=1, most=MAX_SIGNATURES))
        fields.done()
        if len({signature.keyid for signature in signatures}) != len(signatures):
            raise Malformed("envelope is malformed", why="one key signs twice")
        return cls(payload_type, payload, signatures)

    def encode(self) -> bytes:
        """One line, without line feed. Raises Malformed beyond 65,535 bytes."""
        document = {
            "payload": b64encode(self.payload),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": s.keyid, "sig": b64encode(s.sig)} for s in self.signatures],
        }
        line = json.dumps(document, separators=(",", ":")).encode("ascii")
        if len(line) > MAX_LINE:
            raise Malformed("envelope too large", why=f"{len(line)} bytes, a log entry has at most {MAX_LINE}")
        return line

    @property
    def statement_digest(self) -> Digest:
        """What is said, whoever signed it: SHA-256 of the pre-authentication encoding."""
        return sha256(pae(self.payload_type, self.payload))

    def verified_by(self, key: VerifyingKey) -> bool:
        """Whether every half of `key` has a valid signature here."""
        return all(self.verified_by_half(half) for half in key.halves)

    def verified_by_half(self, key: PublicKey) -> bool:
        message = pae(self.payload_type, self.payload)
        return any(_holds(key, s.sig, message) for s in self.signatures if s.keyid == key.id)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, *signers: Signer, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Sign `payload` by every signer, in order. Raises Malformed where two signers share a key."""
    message = pae(payload_type, payload)
    signatures = tuple(EnvelopeSignature(keyid, sig) for signer in signers for keyid, sig in signer.sign(message))
    if len({signature.keyid for signature in signatures}) != len(signatures):
        raise Malformed("cannot sign", why="one key would sign twice")
    return Envelope(payload_type, payload, signatures)


def _signature(item: Json) -> EnvelopeSignature:
    fields = Fields(item, "envelope signature")
    signature = EnvelopeSignature(fields.digest("keyid"), b64decode(fields.take("sig")))
    fields.done()
    return signature


def _holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except Untrusted:
        return False
    return True
