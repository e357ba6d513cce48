"""A private Sigstore: an authority, its certificate log and its transparency log, and a trusted root that names them.
It issues a certificate for any identity and signs keyless bundles, as the real one does.
"""

from __future__ import annotations

import datetime
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comity.trust.encoding import Json, b64encode, canonical, sha256
from comity.trust.model_signing.bundle import MEDIA_TYPE
from comity.trust.statement import PAYLOAD_TYPE, pae
from comity.trust.tlog.merkle import leaf_hash, node_hash, root
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.model_sig import FILES, listed

SIGNED_AT = datetime.datetime(2021, 6, 1, tzinfo=datetime.UTC)
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
OIDC_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ORIGIN = "rekor.example - 1"


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki(private: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(encoding, form)


def key_id(private: ec.EllipticCurvePrivateKey) -> bytes:
    return bytes.fromhex(sha256(spki(private)))


def sign(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return private.sign(message, ec.ECDSA(hashes.SHA256()))


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class Site:
    """The authority's key and certificate, and the keys of both logs."""

    authority: ec.EllipticCurvePrivateKey = field(default_factory=key)
    certificates: ec.EllipticCurvePrivateKey = field(default_factory=key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=key)

    @property
    def trusted_root(self) -> bytes:
        window = {"start": "2020-01-01T00:00:00Z"}
        authority = {
            "subject": {"organization": "Example", "commonName": "Example"},
            "uri": "https://fulcio.example",
            "certChain": {"certificates": [{"rawBytes": b64encode(der(self._root()))}]},
            "validFor": window,
        }
        document: dict[str, Any] = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_log("https://rekor.example", self.log, window)],
            "certificateAuthorities": [authority],
            "ctlogs": [_log("https://ctfe.example", self.certificates, window)],
            "timestampAuthorities": [],
        }
        return json.dumps(document).encode()

    def bundle(
        self,
        identity: str = "release@lab.example",
        issuer: str = "https://accounts.example",
        files: Mapping[str, bytes] = FILES,
    ) -> bytes:
        """A keyless `model.sig` by `identity`."""
        private = key()
        leaf = self._leaf(private, identity, issuer)
        payload = listed(files).encode()
        signature = sign(private, pae(PAYLOAD_TYPE, payload))
        envelope = {
            "payload": b64encode(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64encode(signature), "keyid": ""}],
        }
        entry = self._logged(leaf, envelope, payload)
        material = {"certificate": {"rawBytes": b64encode(der(leaf))}, "tlogEntries": [entry]}
        return json.dumps(
            {"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
        ).encode()

    def _root(self) -> x509.Certificate:
        builder = _certificate("Example", self.authority, datetime.timedelta(days=9000), -datetime.timedelta(days=400))
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        builder = builder.add_extension(_usage(issues=True), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key())
        return builder.add_extension(own, critical=False).sign(self.authority, hashes.SHA256())

    def _leaf(self, private: ec.EllipticCurvePrivateKey, identity: str, issuer: str) -> x509.Certificate:
        """Valid for ten minutes, and logged: it contains the signed promise of the certificate log."""
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key())
        builder = _certificate("", private, datetime.timedelta(minutes=10), datetime.timedelta())
        for extension, critical in (
            (_usage(issues=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            (authority, False),
            (x509.SubjectAlternativeName([x509.RFC822Name(identity)]), True),
            (x509.UnrecognizedExtension(OIDC_ISSUER, issuer.encode()), False),
        ):
            builder = builder.add_extension(extension, critical)
        promised = self._promise(builder.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes)
        return builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, promised), False).sign(
            self.authority, hashes.SHA256()
        )

    def _promise(self, tbs: bytes) -> bytes:
        """A list of one signed certificate timestamp (RFC 6962), over the certificate without it."""
        moment = struct.pack(">Q", int(SIGNED_AT.timestamp() * 1000))
        entry = struct.pack(">H", 1) + key_id(self.authority) + len(tbs).to_bytes(3, "big") + tbs
        signature = sign(self.certificates, b"\0\0" + moment + entry + b"\0\0")
        timestamp = b"\0" + key_id(self.certificates) + moment + b"\0\0" + b"\4\3" + _sized(signature)
        return _octets(_sized(_sized(timestamp)))

    def _logged(self, leaf: x509.Certificate, envelope: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        """The entry with the proof of the transparency log: included, under a signed checkpoint, and promised at a
        time.
        """
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        signatures = [{"signature": envelope["signatures"][0]["sig"], "verifier": b64encode(pem)}]
        spec: dict[str, Json] = {
            "envelopeHash": {"algorithm": "sha256", "value": sha256(canonical(envelope))},
            "payloadHash": {"algorithm": "sha256", "value": sha256(payload)},
            "signatures": signatures,
        }
        body = canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        first, second, after = (leaf_hash(data) for data in (b"first", b"second", b"after"))
        leaves = [first, second, leaf_hash(body), after]
        note = f"{ORIGIN}\n{len(leaves)}\n{b64encode(root(leaves))}\n"
        line = b64encode(key_id(self.log)[:4] + sign(self.log, note.encode()))
        at = int(SIGNED_AT.timestamp())
        promise: dict[str, Json] = {
            "body": b64encode(body),
            "integratedTime": at,
            "logID": key_id(self.log).hex(),
            "logIndex": 2,
        }
        return {
            "logIndex": "2",
            "logId": {"keyId": b64encode(key_id(self.log))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": b64encode(sign(self.log, canonical(promise)))},
            "inclusionProof": {
                "logIndex": "2",
                "rootHash": b64encode(root(leaves)),
                "treeSize": str(len(leaves)),
                "hashes": [b64encode(after), b64encode(node_hash(first, second))],
                "checkpoint": {"envelope": f"{note}\n— rekor.example {line}\n"},
            },
            "canonicalizedBody": b64encode(body),
        }


def _log(url: str, private: ec.EllipticCurvePrivateKey, window: Mapping[str, str]) -> dict[str, Any]:
    public = {"rawBytes": b64encode(spki(private)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": window}
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": public,
        "logId": {"keyId": b64encode(key_id(private))},
    }


def _certificate(
    subject: str, private: ec.EllipticCurvePrivateKey, lasts: datetime.timedelta, begins: datetime.timedelta
) -> x509.CertificateBuilder:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    start = (SIGNED_AT + begins).replace(tzinfo=None)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example")]))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lasts)
    )


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _octets(data: bytes) -> bytes:
    """A DER octet string of fewer than 256 bytes."""
    length = bytes([len(data)]) if len(data) < 128 else bytes([0x81, len(data)])
    return b"\x04" + length + data
