"""Attestation reports of AMD SEV-SNP, signed by the chip's VCEK.

The report has 1,184 bytes; its integers, and the two halves of its signature, are little-endian. The VCEK certificate
names the chip and the versions of its trusted computing base (TCB) in extensions; a report that states another chip or
another TCB was not signed for what it says. Products of Zen 5 and later order the TCB otherwise and are refused.
Sources: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860), section 7.3; AMD, Versioned Chip Endorsement
Key Certificate and KDS Interface Specification (57230), table 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.errors import Untrusted
from comity.trust.hardware.certificates import VendorChain, extension_bytes
from comity.trust.hardware.layout import BinaryReader, check_ecdsa

REPORT_SIZE: Final = 1184
_SIGNED: Final = 0x2A0
_VERSIONS: Final = (2, 3)
_ECDSA_P384_SHA384: Final = 1
_VCEK: Final = 0
_DEBUG: Final = 1 << 19
_HALF: Final = 72
_OID: Final = "1.3.6.1.4.1.3704.1."
_TCB_PARTS: Final = (("boot loader", 0, "3.1"), ("TEE", 1, "3.2"), ("SNP", 6, "3.3"), ("microcode", 7, "3.8"))
"""Part of the TCB, its byte in the report's TCB, and the end of its object identifier in the certificate."""


@dataclass(frozen=True, slots=True)
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
        return bool(self.guest_policy & _DEBUG)

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
