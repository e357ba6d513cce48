"""Signed reports of attested machines: AMD SEV-SNP, Intel TDX, and NVIDIA GPUs in confidential-computing mode.

Every parser takes exactly as many bytes as a format says, and refuses a report that is too short or has bytes left.
What a report says is not verified before `verify`.

**SEV-SNP.** A report has 1,184 bytes, signed by the chip's VCEK; its integers, and the two halves of its signature, are
little-endian. The VCEK certificate names the chip and the versions of its trusted computing base (TCB) in extensions;
a report that states another chip or another TCB was not signed for what it says. Products of Zen 5 and later order the
TCB otherwise and are refused. Sources: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860), section 7.3;
AMD, Versioned Chip Endorsement Key Certificate and KDS Interface Specification (57230), table 8.

**TDX.** Quotes of versions 4 and 5 with ECDSA P-256 attestation keys. The machine's quoting enclave (QE) made the
attestation key. The QE's own report binds this key, and is signed by the machine's PCK, whose certificate chain is in
the quote. Collateral of the vendor, which this module does not read, states whether QE and TCB are recent. Integers are
little-endian. Source: Intel TDX DCAP Quote Generation Library and Quote Verification Library, appendix 3.

**NVIDIA.** One SPDM exchange, signed by the device: the request GET_MEASUREMENTS with the verifier's nonce, and the
response with all measurements. The signature covers both. Opaque data carry the versions of driver and VBIOS. Integers
are little-endian; the halves of the signature are big-endian. Sources: DMTF DSP0274 (SPDM) 1.1, sections 10.11 and
10.12; NVIDIA's published samples for the opaque data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from comity.addons.hardware.certificates import VendorChain, extension_bytes
from comity.trust.encoding import printable
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen


class BinaryReader:
    """Reads `data` from the front; integers are little-endian and unsigned. Every method raises Malformed.

    Args:
        data: the structure.
        what: its name, for errors.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self.offset = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self._data) - self.offset:
            raise self.error(f"it ends at byte {len(self._data)}, and {size} bytes are expected at {self.offset}")
        part = self._data[self.offset : self.offset + size]
        self.offset += size
        return part

    def integer(self, size: int) -> int:
        """An integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self._data) - self.offset)

    def done(self) -> None:
        """Raise Malformed if bytes are left."""
        if surplus := len(self._data) - self.offset:
            what = "1 surplus byte follows" if surplus == 1 else f"{surplus} surplus bytes follow"
            raise self.error(f"{what} its end at byte {self.offset}")

    def error(self, why: str) -> Malformed:
        return Malformed(f"{self._what} is malformed", why=why, code="HARDWARE-EVIDENCE")


def check_ecdsa(
    key: ec.EllipticCurvePublicKey, r: int, s: int, message: bytes, algorithm: hashes.HashAlgorithm, what: str
) -> None:
    """Raises Untrusted (HARDWARE-UNTRUSTED) unless (r, s) is the signature of `message` by `key`."""
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
    except InvalidSignature as error:
        why = "its signature does not verify: it was changed, or another device signed it"
        raise Untrusted(f"{what} refused", why=why, code="HARDWARE-UNTRUSTED") from error


def nist_point(curve: ec.EllipticCurve, raw: bytes, what: str) -> ec.EllipticCurvePublicKey:
    """The public key at x || y. Raises Malformed (HARDWARE-EVIDENCE) for a point that is not on the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + raw)
    except ValueError as error:
        raise Malformed(
            f"{what} is malformed", why="its key is not a point of the curve", code="HARDWARE-EVIDENCE"
        ) from error


REPORT_SIZE: Final = 1184
_SIGNED: Final = 0x2A0
_VERSIONS: Final = (2, 3)
_ECDSA_P384_SHA384: Final = 1
_VCEK: Final = 0
_SNP_DEBUG: Final = 1 << 19
_HALF: Final = 72
_OID: Final = "1.3.6.1.4.1.3704.1."
_TCB_PARTS: Final = (("boot loader", 0, "3.1"), ("TEE", 1, "3.2"), ("SNP", 6, "3.3"), ("microcode", 7, "3.8"))
"""Part of the TCB, its byte in the report's TCB, and the end of its object identifier in the certificate."""


@frozen
class SnpReport:
    """A report whose signature is not verified before `verify`.

    Attributes:
        guest_policy: bits that the guest's owner set; bit 19 allows debugging.
        report_data: 64 bytes of the attester's choice: the challenge.
        measurement: SHA-384 of the guest at its launch.
        reported_tcb: eight bytes, the TCB versions by which the VCEK was derived.
        chip_id: 64 bytes, unique to the chip.
    """

    version: int
    guest_svn: int
    guest_policy: int
    vmpl: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    reported_tcb: bytes
    chip_id: bytes
    signed: bytes
    r: int
    s: int

    @classmethod
    def parse(cls, data: bytes) -> SnpReport:
        """Raises Malformed (HARDWARE-EVIDENCE)."""
        reader = BinaryReader(data, "SEV-SNP report")
        version, guest_svn, guest_policy = reader.integer(4), reader.integer(4), reader.integer(8)
        reader.take(32)  # family and image ids, of the guest owner's choice
        vmpl, algorithm = reader.integer(4), reader.integer(4)
        reader.take(16)  # current TCB, platform information
        flags = reader.integer(4)
        reader.take(4)
        report_data, measurement, host_data = reader.take(64), reader.take(48), reader.take(32)
        reader.take(0x180 - reader.offset)  # digests of the guest owner's keys, report ids
        reported_tcb = reader.take(8)
        reader.take(0x1A0 - reader.offset)
        chip_id = reader.take(64)
        reader.take(_SIGNED - reader.offset)
        r, s = reader.integer(_HALF), reader.integer(_HALF)
        if any(reader.take(REPORT_SIZE - reader.offset)):
            raise reader.error("the bytes after its signature are not zero")
        reader.done()
        if version not in _VERSIONS:
            raise reader.error(f"version {version} is not supported, only {' and '.join(map(str, _VERSIONS))}")
        if algorithm != _ECDSA_P384_SHA384 or flags >> 2 & 7 != _VCEK:
            raise reader.error("it is not signed by a VCEK with ECDSA P-384 and SHA-384")
        return cls(
            version=version,
            guest_svn=guest_svn,
            guest_policy=guest_policy,
            vmpl=vmpl,
            report_data=report_data,
            measurement=measurement,
            host_data=host_data,
            reported_tcb=reported_tcb,
            chip_id=chip_id,
            signed=data[:_SIGNED],
            r=r,
            s=s,
        )

    @property
    def debuggable(self) -> bool:
        """Whether the host may read the guest's memory."""
        return bool(self.guest_policy & _SNP_DEBUG)

    @property
    def tcb(self) -> tuple[tuple[str, str], ...]:
        """The versions of the TCB, by part."""
        return tuple((name, str(self.reported_tcb[at])) for name, at, _ in _TCB_PARTS)

    def verify(self, chain: VendorChain) -> None:
        """Check the signature by the chain's leaf, and that the leaf is the VCEK of this chip and TCB.

        The chain itself is judged by `VendorChain.check`. Raises Malformed (HARDWARE-EVIDENCE) or Untrusted
        (HARDWARE-UNTRUSTED).
        """
        key = chain.leaf_key
        if not isinstance(key.curve, ec.SECP384R1):
            raise Untrusted("SEV-SNP report refused", why="its key is not on P-384", code="HARDWARE-UNTRUSTED")
        check_ecdsa(key, self.r, self.s, self.signed, hashes.SHA384(), "SEV-SNP report")
        if extension_bytes(chain.leaf, _OID + "4") != self.chip_id:
            raise Untrusted(
                "SEV-SNP report refused", why="its chip is not the certificate's", code="HARDWARE-UNTRUSTED"
            )
        for name, at, oid in _TCB_PARTS:
            if extension_bytes(chain.leaf, _OID + oid) != _der_integer(self.reported_tcb[at]):
                why = f"its {name} version {self.reported_tcb[at]} is not the certificate's"
                raise Untrusted("SEV-SNP report refused", why=why, code="HARDWARE-UNTRUSTED")


def _der_integer(value: int) -> bytes:
    """DER of an INTEGER from 0 to 255."""
    return bytes([2, 2, 0, value]) if value > 127 else bytes([2, 1, value])


_ECDSA_P256: Final = 2
_TEE_TDX: Final = 0x81
_BODY_SIZES: Final = {2: 584, 3: 648}
"""Size of a body by its type, of TDX 1.0 and 1.5. A quote of version 4 has the body of TDX 1.0."""
_QE_CERTIFICATION: Final = 6
_PCK_CHAIN: Final = 5
_QE_REPORT: Final = 384
_MAX_QUOTE: Final = 32_768
_TDX_DEBUG: Final = 1


@frozen
class TdxQuote:
    """A quote whose signatures are not verified before `verify`.

    Attributes:
        tcb_svn: 16 bytes, the versions of the TDX module.
        attributes: bits of the trust domain; bit 0 allows debugging.
        mr_td: SHA-384 of the trust domain at its start.
        rtmr: four SHA-384 registers that the trust domain extends.
        report_data: 64 bytes of the attester's choice: the challenge.
        qe_signer: SHA-256 of the key that signed the quoting enclave; `qe_product` is the number of this product of it.
    """

    version: int
    tcb_svn: bytes
    attributes: int
    mr_td: bytes
    rtmr: tuple[bytes, ...]
    report_data: bytes
    qe_signer: bytes
    qe_product: int
    qe_svn: int
    chain: VendorChain
    _signed: bytes
    _signature: bytes
    _key: bytes
    _qe_report: bytes
    _qe_signature: bytes
    _qe_auth: bytes

    @classmethod
    def parse(cls, data: bytes) -> TdxQuote:
        """Raises Malformed (HARDWARE-EVIDENCE). Zero bytes after the end, which buffers leave, are allowed."""
        reader = BinaryReader(data, "TDX quote")
        if len(data) > _MAX_QUOTE:
            raise reader.error(f"it has {len(data)} bytes, at most {_MAX_QUOTE} are allowed")
        version, key_type, tee = reader.integer(2), reader.integer(2), reader.integer(4)
        if version not in (4, 5) or key_type != _ECDSA_P256 or tee != _TEE_TDX:
            why = f"version {version}, key type {key_type} and TEE type {tee:#x} are not supported"
            raise reader.error(why)
        reader.take(40)  # QE and PCE versions, vendor id, user data
        body = BinaryReader(_take_body(reader, version), "TDX quote's body")
        tcb_svn = body.take(16)
        body.take(120 - body.offset)  # measurements of the TDX module
        attributes = body.integer(8)
        body.take(8)
        mr_td = body.take(48)
        body.take(328 - body.offset)  # configuration and owner
        rtmr = tuple(body.take(48) for _ in range(4))
        report_data = body.take(64)
        end = reader.offset
        signature_data = BinaryReader(reader.take(reader.integer(4)), "TDX quote's signature data")
        if data[reader.offset :].strip(b"\0"):
            reader.done()
        signature, key = signature_data.take(64), signature_data.take(64)
        certification = BinaryReader(_certified(signature_data, _QE_CERTIFICATION), "QE's certification data")
        signature_data.done()
        qe_report, qe_signature = certification.take(_QE_REPORT), certification.take(64)
        qe_auth = certification.take(certification.integer(2))
        chain = VendorChain.parse_pem(_certified(certification, _PCK_CHAIN).rstrip(b"\0"))
        certification.done()
        return cls(
            version=version,
            tcb_svn=tcb_svn,
            attributes=attributes,
            mr_td=mr_td,
            rtmr=rtmr,
            report_data=report_data,
            qe_signer=qe_report[128:160],
            qe_product=int.from_bytes(qe_report[256:258], "little"),
            qe_svn=int.from_bytes(qe_report[258:260], "little"),
            chain=chain,
            _signed=data[:end],
            _signature=signature,
            _key=key,
            _qe_report=qe_report,
            _qe_signature=qe_signature,
            _qe_auth=qe_auth,
        )

    @property
    def debuggable(self) -> bool:
        """Whether the host may read the trust domain's memory."""
        return bool(self.attributes & _TDX_DEBUG)

    def verify(self) -> None:
        """Check both signatures and that the QE's report binds the attestation key.

        The chain itself is judged by `VendorChain.check`. Raises Malformed (HARDWARE-EVIDENCE) or Untrusted
        (HARDWARE-UNTRUSTED).
        """
        pck = self.chain.leaf_key
        if not isinstance(pck.curve, ec.SECP256R1):
            raise Untrusted("TDX quote refused", why="its PCK is not on P-256", code="HARDWARE-UNTRUSTED")
        _check_raw(pck, self._qe_signature, self._qe_report, "QE report")
        if self._qe_report[320:384] != hashlib.sha256(self._key + self._qe_auth).digest() + bytes(32):
            raise Untrusted(
                "TDX quote refused", why="the QE's report binds another attestation key", code="HARDWARE-UNTRUSTED"
            )
        key = nist_point(ec.SECP256R1(), self._key, "TDX quote")
        _check_raw(key, self._signature, self._signed, "TDX quote")


def _take_body(reader: BinaryReader, version: int) -> bytes:
    if version == 4:
        return reader.take(_BODY_SIZES[2])
    kind, size = reader.integer(2), reader.integer(4)
    if _BODY_SIZES.get(kind) != size:
        raise reader.error(f"a body of type {kind} with {size} bytes is not supported")
    return reader.take(size)


def _certified(reader: BinaryReader, expected: int) -> bytes:
    """The value of {type u16, size u32, value}, of type `expected`."""
    kind, size = reader.integer(2), reader.integer(4)
    if kind != expected:
        raise reader.error(f"certification data of type {kind} are not supported, only {expected}")
    return reader.take(size)


def _check_raw(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, what: str) -> None:
    """`signature` is r || s, 32 bytes each, big-endian."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    check_ecdsa(key, r, s, message, hashes.SHA256(), what)


MAX_REPORT: Final = 32_768
NONCE_SIZE: Final = 32
_SPDM_1_1: Final = 0x11
_GET_MEASUREMENTS: Final = 0xE0
_MEASUREMENTS: Final = 0x60
_WITH_SIGNATURE: Final = 1
_ALL: Final = 0xFF
_DMTF: Final = 1
_SIGNATURE_SIZE: Final = 96
_DRIVER, _VBIOS, _CHIP, _PROJECT, _SKU = 3, 6, 15, 17, 18
_TEXTS: Final = {_DRIVER: "driver", _CHIP: "chip", _PROJECT: "project", _SKU: "SKU"}


@frozen
class GpuReport:
    """A report whose signature is not verified before `verify`.

    Attributes:
        nonce: 32 bytes of the verifier's choice: the challenge.
        versions: what the opaque data say, as text: `driver`, `VBIOS`, `chip`, `project`, `SKU`, where present.
        measurements: SHA-384 digests by index, 1 to 255.
    """

    nonce: bytes
    versions: Mapping[str, str]
    measurements: Mapping[int, bytes]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> GpuReport:
        """Raises Malformed (HARDWARE-EVIDENCE)."""
        reader = BinaryReader(data, "GPU report")
        if len(data) > MAX_REPORT:
            raise reader.error(f"it has {len(data)} bytes, at most {MAX_REPORT} are allowed")
        _expect(reader, bytes([_SPDM_1_1, _GET_MEASUREMENTS, _WITH_SIGNATURE, _ALL]), "a request for all measurements")
        nonce = reader.take(NONCE_SIZE)
        reader.take(1)  # the certificate's slot
        _expect(reader, bytes([_SPDM_1_1, _MEASUREMENTS]), "measurements")
        reader.take(2)
        count, size = reader.integer(1), reader.integer(3)
        measurements = _read_measurements(BinaryReader(reader.take(size), "GPU report's record"), count)
        reader.take(NONCE_SIZE)  # the responder's own nonce
        opaque = BinaryReader(reader.take(reader.integer(2)), "GPU report's opaque data")
        versions = _read_versions(opaque)
        signed = data[: reader.offset]
        signature = reader.take(_SIGNATURE_SIZE)
        reader.done()
        return cls(nonce, versions, measurements, signed, signature)

    def verify(self, chain: VendorChain) -> None:
        """Check the signature by the chain's leaf. The chain itself is judged by `VendorChain.check`.

        Raises Malformed (HARDWARE-EVIDENCE) or Untrusted (HARDWARE-UNTRUSTED).
        """
        key = chain.leaf_key
        if not isinstance(key.curve, ec.SECP384R1):
            raise Untrusted("GPU report refused", why="its key is not on P-384", code="HARDWARE-UNTRUSTED")
        half = _SIGNATURE_SIZE // 2
        r, s = int.from_bytes(self.signature[:half], "big"), int.from_bytes(self.signature[half:], "big")
        check_ecdsa(key, r, s, self.signed, hashes.SHA384(), "GPU report")


def _expect(reader: BinaryReader, expected: bytes, what: str) -> None:
    if reader.take(len(expected)) != expected:
        raise reader.error(f"expected {what} of SPDM 1.1")


def _read_measurements(reader: BinaryReader, count: int) -> dict[int, bytes]:
    """Blocks of {index u8, specification u8, size u16, {type u8, size u16, value}}."""
    found: dict[int, bytes] = {}
    for _ in range(count):
        index, specification, size = reader.integer(1), reader.integer(1), reader.integer(2)
        if specification != _DMTF or index in found or index == 0:
            raise reader.error("a measurement has another specification, or an index of another one")
        block = BinaryReader(reader.take(size), "GPU report's measurement")
        block.take(1)
        found[index] = block.take(block.integer(2))
        block.done()
    reader.done()
    return found


def _read_versions(reader: BinaryReader) -> dict[str, str]:
    """Items of {type u16, size u16, value}; unknown types are passed over, a known one occurs once."""
    versions: dict[str, str] = {}
    end = len(reader.rest())
    reader.offset = 0
    while reader.offset < end:
        kind, value = reader.integer(2), reader.take(reader.integer(2))
        name = "VBIOS" if kind == _VBIOS else _TEXTS.get(kind)
        if name is None:
            continue
        if name in versions:
            raise reader.error(f"{name} is stated twice")
        versions[name] = _vbios(value) if kind == _VBIOS else _text(value)
    return versions


def _text(value: bytes) -> str:
    return printable(value.rstrip(b"\0").decode("ascii", "replace"))[:64]


def _vbios(value: bytes) -> str:
    """`96.00.9F.00.01`, the form that tools print: four bytes reversed, then the fifth."""
    return ".".join(f"{part:02X}" for part in (*value[:4][::-1], *value[4:8]))
