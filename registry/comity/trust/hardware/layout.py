"""A bounded reader of binary structures, and ECDSA signatures in fixed-width form.

Every reader takes exactly as many bytes as it says, and refuses a structure that is too short or has bytes left.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from comity.trust.errors import Malformed, Untrusted


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
        if self.offset != len(self._data):
            raise self.error(f"{len(self._data) - self.offset} bytes follow its end")

    def error(self, why: str) -> Malformed:
        return Malformed(f"{self._what} is malformed", why=why, code="HARDWARE-EVIDENCE")


def check_ecdsa(
    key: ec.EllipticCurvePublicKey, r: int, s: int, message: bytes, algorithm: hashes.HashAlgorithm, what: str
) -> None:
    """Raises Untrusted (HARDWARE-UNTRUSTED) unless (r, s) is the signature of `message` by `key`."""
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
    except InvalidSignature as error:
        raise Untrusted(f"{what} refused", why="its signature does not verify", code="HARDWARE-UNTRUSTED") from error


def nist_point(curve: ec.EllipticCurve, raw: bytes, what: str) -> ec.EllipticCurvePublicKey:
    """The public key at x || y. Raises Malformed (HARDWARE-EVIDENCE) for a point that is not on the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + raw)
    except ValueError as error:
        raise Malformed(
            f"{what} is malformed", why="its key is not a point of the curve", code="HARDWARE-EVIDENCE"
        ) from error
