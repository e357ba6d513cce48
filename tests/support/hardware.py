"""Evidence of invented devices under an invented vendor, for tests of formats and appraisal without real samples. What
the add-on for hardware reads is imported where it is needed: statements with such evidence are the core's."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import pytest
from comity.rules.hardware_evidence import KINDS, NVIDIA, SEV_SNP, TDX, Device
from comity.trust.encoding import b64encode
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AT: Final = 1_795_000_000
"""November 2026."""
NOW: Final = datetime.datetime.fromtimestamp(AT, datetime.UTC)
DAY: Final = datetime.timedelta(days=1)
_AUTHORITIES: Final = {SEV_SNP: "SEV-Milan", TDX: "Intel SGX PCK Platform CA"}
CHIP_ID: Final = bytes(range(64))
TD_QUOTING_ENCLAVE: Final = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
"""Who signed Intel's quoting enclave for trust domains."""
TCB: Final = bytes([2, 0, 0, 0, 0, 0, 5, 200])
_SNP_EXTENSIONS: Final = {"4": CHIP_ID} | {
    oid: bytes([2, 1, value]) if value < 128 else bytes([2, 2, 0, value])
    for oid, value in (("3.1", 2), ("3.2", 0), ("3.3", 5), ("3.8", 200))
}


@contextmanager
def certificates_checked_once() -> Iterator[None]:
    """While the block lasts, each certificate is parsed, and checked against its issuer, once."""
    from comity.addons.hardware import certificates

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_load", "load_pem", "_check_issued"):
            patch.setattr(certificates, name, functools.cache(getattr(certificates, name)))
        yield


@dataclass(frozen=True)
class Issuer:
    """A certificate and its key; `above` is empty for a root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[Issuer, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Leaf first, without the root."""
        return tuple(issuer.der for issuer in (self, *self.above)[:-1])


def issue(
    name: str | x509.Name,
    above: Issuer | None = None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    curve: ec.EllipticCurve | None = None,
    valid: tuple[datetime.datetime, datetime.datetime] = (NOW - 1000 * DAY, NOW + 1000 * DAY),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issuer:
    """A certificate with a new key; a root if no issuer is given."""
    key = ec.generate_private_key(curve or ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) if isinstance(name, str) else name
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.issuer_name(above.certificate.subject if above else subject)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(valid[0]).not_valid_after(valid[1])
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    made = builder.sign(above.key if above else key, hashes.SHA384())
    return Issuer(made, key, (above, *above.above) if above else ())


def vendor(name: str = "Vendor", chip: str = "GH100") -> Issuer:
    """An authority for GPUs with a chip, under a root; named as NVIDIA's."""
    return issue(f"NVIDIA {chip} Provisioner ICA 1", issue(f"{name} root"))


def chip_authority(above: Issuer, chip: str = "GH100") -> Issuer:
    """The authority that a GPU is by itself, for the keys that it derives from its firmware."""
    return issue(f"{chip} A01 GSP BROM", above)


def gpu_leaf(above: Issuer, chip: str = "GH100", *, curve: ec.EllipticCurve | None = None) -> Issuer:
    """The key with which a new GPU signs, under an authority for GPUs, or the key of a GPU with other firmware, under
    that GPU's own authority."""
    own = above if above.certificate.subject.rfc4514_string().endswith("BROM") else chip_authority(above, chip)
    return issue(f"{chip} A01 GSP FMC LF", own, ca=False, curve=curve)


@functools.cache
def authority(above: Issuer, kind: str) -> Issuer:
    """Who issues the certificates of devices of a kind that revocation data can name: `above` for GPUs, an authority
    under it for processors."""
    return above if kind == NVIDIA else issue(_AUTHORITIES[kind], above)


def whole_revocation_data(above: Issuer) -> tuple[bytes, ...]:
    """Revocation data that cover every certificate of devices of every kind under `above`, and revoke none."""
    issuers = dict.fromkeys((*(authority(above, kind) for kind in KINDS), above.above[0]))
    return tuple(revocation_list(issuer) for issuer in issuers)


def _signed(key: ec.EllipticCurvePrivateKey, message: bytes, algorithm: hashes.HashAlgorithm) -> tuple[int, int]:
    return decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))


def gpu(above: Issuer, nonce: bytes, *, driver: str = "550.90.07", leaf: Issuer | None = None) -> Device:
    """A GPU with three measurements."""
    leaf = leaf or gpu_leaf(above)
    record = b"".join(
        bytes([i, 1]) + (51).to_bytes(2, "little") + bytes([1, 48, 0]) + bytes([i] * 48) for i in (1, 2, 3)
    )
    opaque = _item(3, driver.encode() + b"\0") + _item(6, bytes.fromhex("009f009601")) + _item(99, b"unknown")
    message = bytes([0x11, 0xE0, 1, 0xFF]) + nonce + b"\0" + bytes([0x11, 0x60, 0, 0, 3])
    message += len(record).to_bytes(3, "little") + record + bytes(32) + len(opaque).to_bytes(2, "little") + opaque
    r, s = _signed(leaf.key, message, hashes.SHA384())
    return Device(NVIDIA, message + r.to_bytes(48, "big") + s.to_bytes(48, "big"), leaf.chain)


def gpu_list(*devices: Device) -> bytes:
    """The list that NVIDIA's tools write, of some GPUs."""
    return json.dumps([_listed(device) for device in devices]).encode()


def _listed(device: Device) -> dict[str, str]:
    pem = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in device.certificates)
    return {
        "arch": "HOPPER",
        "certificate": b64encode(pem),
        "evidence": b64encode(device.report),
        "nonce": device.report[4:36].hex(),
    }


def _item(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value


def vcek(above: Issuer, chip_id: bytes = CHIP_ID) -> Issuer:
    """A new key of the chip with this id, for the TCB `TCB`."""
    extensions = [
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{oid}"), value), False)
        for oid, value in (_SNP_EXTENSIONS | {"4": chip_id}).items()
    ]
    return issue("SEV-VCEK", authority(above, SEV_SNP), ca=False, extensions=extensions)


def snp(
    above: Issuer, nonce: bytes, *, policy: int = 0x30000, chip_id: bytes = CHIP_ID, leaf: Issuer | None = None
) -> Device:
    """A machine with SEV-SNP, with a new VCEK for its chip and the TCB `TCB`."""
    leaf = leaf or vcek(above, chip_id)
    message = bytearray(0x2A0)
    message[0:16] = (2).to_bytes(4, "little") + bytes(4) + policy.to_bytes(8, "little")
    message[0x34] = 1
    message[0x50:0x90] = nonce + bytes(32)
    message[0x90:0xC0] = b"m" * 48
    message[0x180:0x188] = TCB
    message[0x1A0:0x1E0] = chip_id
    r, s = _signed(leaf.key, bytes(message), hashes.SHA384())
    report = bytes(message) + r.to_bytes(72, "little") + s.to_bytes(72, "little")
    return Device(SEV_SNP, report + bytes(1184 - len(report)), leaf.chain)


def _pck(above: Issuer, ppid: bytes) -> Issuer:
    platform = bytes.fromhex("3022301e060a2a864886f84d010d0101") + bytes([4, len(ppid)]) + ppid
    platform = bytes([0x30, len(platform) - 2]) + platform[2:]
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.840.113741.1.13.1"), platform)
    return issue(
        "Intel SGX PCK Certificate",
        authority(above, TDX),
        ca=False,
        curve=ec.SECP256R1(),
        extensions=[(extension, False)],
    )


def tdx(
    above: Issuer,
    nonce: bytes,
    *,
    version: int = 4,
    attributes: int = 0,
    ppid: bytes = bytes(16),
    enclave: bytes = TD_QUOTING_ENCLAVE,
) -> Device:
    """A trust domain on the platform with this id; its PCK is a new one, under `above`."""
    pck, attestation = _pck(above, ppid), ec.generate_private_key(ec.SECP256R1())
    body = bytearray(584 if version == 4 else 648)
    body[120:128] = attributes.to_bytes(8, "little")
    body[136:184] = b"t" * 48
    body[520:584] = nonce + bytes(32)
    typed = b"" if version == 4 else (3).to_bytes(2, "little") + len(body).to_bytes(4, "little")
    header = version.to_bytes(2, "little") + (2).to_bytes(2, "little") + (0x81).to_bytes(4, "little") + bytes(40)
    message = header + typed + bytes(body)
    point = attestation.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    auth = b"auth"
    qe_report = (
        bytes(128)
        + enclave
        + bytes(96)
        + (2).to_bytes(2, "little")
        + bytes(62)
        + hashlib.sha256(point + auth).digest()
        + bytes(32)
    )
    pem = b"".join(each.certificate.public_bytes(Encoding.PEM) for each in (pck, *pck.above))
    chain = (5).to_bytes(2, "little") + len(pem).to_bytes(4, "little") + pem
    certified = qe_report + _raw(pck.key, qe_report) + len(auth).to_bytes(2, "little") + auth + chain
    data = (
        _raw(attestation, message)
        + point
        + (6).to_bytes(2, "little")
        + len(certified).to_bytes(4, "little")
        + certified
    )
    return Device(TDX, message + len(data).to_bytes(4, "little") + data)


def _raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = _signed(key, message, hashes.SHA256())
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def revocation_list(
    issuer: Issuer,
    revoked: Sequence[x509.Certificate] = (),
    *,
    made: datetime.datetime = NOW - DAY,
    due: datetime.datetime = NOW + 30 * DAY,
    revoked_at: datetime.datetime | None = None,
    reason: x509.ReasonFlags | None = x509.ReasonFlags.certificate_hold,
    signer: Issuer | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """A list (DER) of `issuer`, signed by `signer` if it is another."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(made).next_update(due)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        entry = entry.revocation_date(revoked_at or made)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign((signer or issuer).key, hashes.SHA384()).public_bytes(Encoding.DER)


def ocsp_response(
    issuer: Issuer,
    certificate: x509.Certificate,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    *,
    made: datetime.datetime = NOW - DAY,
    due: datetime.datetime | None = NOW + DAY,
    reason: x509.ReasonFlags | None = x509.ReasonFlags.certificate_hold,
    responder: Issuer | None = None,
) -> bytes:
    """A response (DER) about `certificate`, signed by its issuer or by a responder."""
    revoked = status == ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=certificate,
        issuer=issuer.certificate,
        algorithm=hashes.SHA256(),
        cert_status=status,
        this_update=made,
        next_update=due,
        revocation_time=made if revoked else None,
        revocation_reason=reason if revoked else None,
    )
    signer = responder or issuer
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if responder is not None:
        builder = builder.certificates([responder.certificate])
    return builder.sign(signer.key, hashes.SHA384()).public_bytes(Encoding.DER)


def ocsp_responder(issuer: Issuer) -> Issuer:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    return issue("responder", issuer, ca=False, extensions=[(usage, False)])


def revocable(device: Device) -> x509.Certificate:
    """The certificate of a device that revocation data can name: of a GPU, its own authority's."""
    if device.kind == TDX:
        from comity.addons.hardware.reports import TdxQuote

        return TdxQuote.parse(device.report).chain.leaf
    return x509.load_der_x509_certificate(device.certificates[1 if device.kind == NVIDIA else 0])


def twin(der: bytes) -> bytes:
    """The same certificate with the other valid form (r, n-s) of its ECDSA signature over P-384."""
    signature = x509.load_der_x509_certificate(der).signature
    r, s = decode_dss_signature(signature)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
    other = encode_dss_signature(r, order - s)
    head, tbs = _der_split(der)
    rest = tbs[: len(tbs) - len(signature) - 3]
    body = rest + b"\x03" + bytes([len(other) + 1]) + b"\0" + other
    assert head == 0x30
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def _der_split(der: bytes) -> tuple[int, bytes]:
    """Tag and content of one long element."""
    octets = der[1] - 0x80
    return der[0], der[2 + octets :]


def flipped(device: Device, offset: int, bit: int = 0) -> Device:
    """The device with one bit of its report flipped."""
    report = bytearray(device.report)
    report[offset] ^= 1 << bit
    return replace(device, report=bytes(report))
