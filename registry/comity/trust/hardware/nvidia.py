"""Measurement reports of NVIDIA GPUs in confidential-computing mode: one SPDM exchange, signed by the device.

A report is the request GET_MEASUREMENTS with the verifier's nonce, followed by the response with all measurements. The
signature covers both. Opaque data carry the versions of driver and VBIOS. Integers are little-endian; the halves of the
signature are big-endian. Sources: DMTF DSP0274 (SPDM) 1.1, sections 10.11 and 10.12; NVIDIA's published samples for the
opaque data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.encoding import printable
from comity.trust.errors import Untrusted
from comity.trust.hardware.certificates import VendorChain
from comity.trust.hardware.layout import BinaryReader, check_ecdsa

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


@dataclass(frozen=True, slots=True)
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
