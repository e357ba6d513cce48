"""Quotes of Intel TDX, versions 4 and 5, with ECDSA P-256 attestation keys.

A quote is signed by an attestation key that the machine's quoting enclave (QE) made. The QE's own report binds this
key, and is signed by the machine's PCK, whose certificate chain is in the quote. Collateral of the vendor, which this
module does not read, states whether QE and TCB are recent. Integers are little-endian. Source: Intel TDX DCAP Quote
Generation Library and Quote Verification Library, appendix 3 (layouts of versions 4 and 5).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.errors import Untrusted
from comity.trust.hardware.certificates import VendorChain
from comity.trust.hardware.layout import BinaryReader, check_ecdsa, nist_point

_ECDSA_P256: Final = 2
_TEE_TDX: Final = 0x81
_BODY_SIZES: Final = {2: 584, 3: 648}
"""Size of a body by its type, of TDX 1.0 and 1.5. A quote of version 4 has the body of TDX 1.0."""
_QE_CERTIFICATION: Final = 6
_PCK_CHAIN: Final = 5
_QE_REPORT: Final = 384
_MAX_QUOTE: Final = 32_768
_DEBUG: Final = 1


@dataclass(frozen=True, slots=True)
class TdxQuote:
    """A quote whose signatures are not verified before `verify`.

    Attributes:
        tcb_svn: 16 bytes, the versions of the TDX module.
        attributes: bits of the trust domain; bit 0 allows debugging.
        mr_td: SHA-384 of the trust domain at its start.
        rtmr: four SHA-384 registers that the trust domain extends.
        report_data: 64 bytes of the attester's choice: the challenge.
        qe_signer: SHA-256 of the key that signed the quoting enclave.
    """

    version: int
    tcb_svn: bytes
    attributes: int
    mr_td: bytes
    rtmr: tuple[bytes, ...]
    report_data: bytes
    qe_signer: bytes
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
        if any(reader.rest()):
            raise reader.error("the bytes after its signature data are not zero")
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
        return bool(self.attributes & _DEBUG)

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
