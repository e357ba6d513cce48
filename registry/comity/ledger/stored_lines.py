"""How a ledger stores the lines of logs: an envelope without base64 and hexadecimal digits, a quarter smaller.

    packed    0x01, the number of signatures (1 byte); for each, the key id (32 bytes), the length of the signature
              (2 bytes, big-endian) and the signature; then the payload
    escaped   0x00, then the line
    plain     the line, if it begins with neither of these bytes

`pack_line` compares what `unpack_line` makes of its result with the line, so every line comes back as it was. A line
that is no canonical envelope of an in-toto statement, which a mirrored log may have, is stored as it is.
"""

from __future__ import annotations

import binascii
import struct
from base64 import b64encode
from typing import Final

from comity.trust.errors import Malformed
from comity.trust.statement import PAYLOAD_TYPE

ESCAPED: Final = b"\x00"
PACKED: Final = b"\x01"

_BEGIN: Final = b'{"payload":"'
_TYPE: Final = b'","payloadType":"%b","signatures":[{"keyid":"' % PAYLOAD_TYPE.encode()
_SIGNATURE: Final = b'","sig":"'
_NEXT: Final = b'"},{"keyid":"'
_END: Final = b'"}]}'
_KEY_ID: Final = 32
_LENGTH: Final = struct.Struct(">H")


def pack_line(line: bytes) -> bytes:
    """Returns the bytes to store for `line`, at most one more than it has."""
    try:
        packed = _pack(line)
        if _unpack(packed) == line:
            return packed
    except (ValueError, struct.error, Malformed):
        pass  # not such an envelope
    return ESCAPED + line if line[:1] in (ESCAPED, PACKED) else line


def unpack_line(stored: bytes) -> bytes:
    """Inverse of `pack_line`. Raises Malformed if a packed line is cut off."""
    if stored[:1] == PACKED:
        return _unpack(stored)
    return stored[1:] if stored[:1] == ESCAPED else stored


def line_size(stored: bytes) -> int:
    """Returns the bytes of the line that is stored as `stored`; of a damaged one, the stored bytes."""
    try:
        return len(unpack_line(stored))
    except Malformed:
        return len(stored)


def _pack(line: bytes) -> bytes:
    if not line.startswith(_BEGIN):
        raise ValueError("no envelope")
    payload, _, signatures = line[len(_BEGIN) : -len(_END)].partition(_TYPE)
    parts = [PACKED, b""]
    for signature in signatures.split(_NEXT):
        keyid, _, encoded = signature.partition(_SIGNATURE)
        sig = binascii.a2b_base64(encoded)
        parts += [binascii.a2b_hex(keyid), _LENGTH.pack(len(sig)), sig]
    parts[1] = bytes([len(parts) // 3])
    return b"".join((*parts, binascii.a2b_base64(payload)))


def _unpack(packed: bytes) -> bytes:
    if len(packed) < len(PACKED) + 1 or not packed[1]:
        raise _cut_off("it has no signature")
    at, signatures = len(PACKED) + 1, []
    for _ in range(packed[1]):
        start = at + _KEY_ID + _LENGTH.size
        if start > len(packed):
            raise _cut_off("a signature is missing")
        end = start + _LENGTH.unpack_from(packed, at + _KEY_ID)[0]
        if end > len(packed):
            raise _cut_off("a signature ends early")
        signatures.append(packed[at : at + _KEY_ID].hex().encode() + _SIGNATURE + b64encode(packed[start:end]))
        at = end
    return b"".join((_BEGIN, b64encode(packed[at:]), _TYPE, _NEXT.join(signatures), _END))


def _cut_off(why: str) -> Malformed:
    return Malformed("a stored line is cut off", why=why)
