"""Hashes of audited pieces, by `hashlib` alone."""

from __future__ import annotations

import hashlib
from typing import Any, Final

NAMED: Final = ("federation", "auditor", "prover", "auditor_nonce", "prover_nonce", "artifact")
"""What stands before the number, in order."""


def hashes() -> dict[str, Any]:
    cases = [
        _case(0, b""),
        _case(3, b"bytes"),
        _case(2**40 + 1, bytes(range(256)) * 4),
        _case(3, b"bytes", prover=_id("another prover")),
        _case(3, b"bytes", auditor=_id("prover"), prover=_id("auditor")),
    ]
    return {
        "about": "The hash of an audited piece. `before_hex` is what stands before the bytes of the piece: 216 bytes. "
        "The last two cases are those before them with another prover, and with both nodes swapped.",
        "cases": cases,
    }


def _case(number: int, data: bytes, **changed: str) -> dict[str, Any]:
    named = {name: _id(name.replace("_", " ")) for name in NAMED} | changed
    before = b"comity/audit/v2\n" + bytes.fromhex("".join(named[name] for name in NAMED)) + number.to_bytes(8, "big")
    hashed = {"before_hex": before.hex(), "bytes_hex": data.hex(), "hash": hashlib.sha256(before + data).hexdigest()}
    return {**named, "number": number, **hashed}


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
