"""A second checker of charters that contradict one another, written from the text of the protocol alone.

It uses none of Comity's code. Of two certificates for one epoch it names the members that equivocated, and shows the
two votes that prove it (7.3).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

Proof: TypeAlias = tuple[bytes, bytes]
Verify: TypeAlias = Callable[[str, bytes, bytes, bytes], bool]
"""Whether (algorithm, raw public key) made the signature over the message."""

MOST = 24
"""Signatures of one line."""
LENGTHS = (64, 96, 2420, 3309)
"""Of signatures: Ed25519 and ECDSA P-256, ECDSA P-384, ML-DSA-44, ML-DSA-65."""
P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of P-256."""


def liars(
    previous: bytes, first: Iterable[bytes], second: Iterable[bytes], verify: Verify | None = None
) -> dict[str, Proof]:
    """Members of the charter body `previous` that equivocated, by id, each with two lines of the certificates."""
    lines = [*dict.fromkeys((*first, *second))]
    told = _Told(previous, lines, verify or verifies)
    found: dict[str, Proof] = {}
    for one, other in itertools.combinations(told.readings(), 2):
        if one.member == other.member and (contradict(one, other) or contradict(other, one)):
            found.setdefault(one.member, (one.line, other.line))
    return found


def fewest(previous: bytes) -> int:
    """2q - n: the least number of members that must have equivocated if two certificates for one epoch exist (I2)."""
    body = json.loads(previous)
    active = [seat for seat in body["members"] if seat["status"] == "active"]
    return 2 * int(body["policy"]["quorum_change"]) - len(active)


@dataclass(frozen=True)
class Said:
    """An INTENT or RATIFY that its member signed. `locked` is the round of an INTENT's `last_ratified`, 0 for null."""

    kind: str
    member: str
    round: int
    content: str
    locked: int
    line: bytes


def contradict(one: Said, other: Said) -> bool:
    """Whether no honest member signs both; for votes of different kinds `one` is the INTENT."""
    if one.kind == other.kind:
        return one.round == other.round and one.content != other.content
    return (one.kind, other.kind) == ("intent", "ratified") and one.locked < other.round < one.round


class _Told:
    """The content of the lines about the successor of one body."""

    def __init__(self, previous: bytes, lines: list[bytes], verify: Verify) -> None:
        self._prev = hashlib.sha256(previous).hexdigest()
        self._verify = verify
        self._lines = lines
        seats = [seat for seat in json.loads(previous)["members"] if seat["status"] == "active"]
        self._keys = {seat["id"]: self._ever(seat) for seat in seats}

    def readings(self) -> Iterator[Said]:
        for line, predicate, kind in self._statements("intent", "ratified"):
            member = predicate["by"].get("identity")
            if predicate["prev"] != self._prev or member not in self._keys:
                continue
            if any(self._signed(line, keys, threshold) for keys, threshold in self._keys[member]):
                locked = (predicate.get("last_ratified") or {"round": 0})["round"]
                content = json.dumps(predicate, sort_keys=True)
                yield Said(kind, member, predicate["round"], content, locked, line)

    def _statements(self, *kinds: str) -> Iterator[tuple[bytes, Mapping[str, Any], str]]:
        for line in self._lines:
            try:
                statement = json.loads(_opened(line)["payload"])
                kind = statement["predicateType"].removeprefix("urn:comity:").removesuffix(":v1")
            except (ValueError, KeyError, TypeError):
                continue  # a certificate may hold lines that count for nothing
            if kind in kinds:
                yield line, statement["predicate"], kind

    def _ever(self, seat: Mapping[str, Any]) -> list[tuple[list[dict[str, str]], int]]:
        """The key sets of a seat and of the rotations that lead on from it, with their thresholds."""
        ahead = [(seat["governance_keys"], seat["threshold"], seat["recovery_digests"])]
        for keys, threshold, recovery in ahead:  # grows below
            for line, rotated, _ in self._statements("rotated"):
                after = (rotated["keys"], rotated["threshold"], rotated["recovery"])
                leaves = rotated["prev"] == _state(seat["id"], keys, threshold, recovery)
                its_own = leaves and rotated["by"] == {"identity": seat["id"]}
                if its_own and after not in ahead and self._changed_by(line, rotated, recovery):
                    ahead.append(after)
        return [(keys, threshold) for keys, threshold, _ in ahead]

    def _changed_by(self, line: bytes, rotated: Mapping[str, Any], recovery: list[str]) -> bool:
        """Whether most of the recovery keys signed, and all the new ones, and no other key."""
        used, new = rotated["used"], rotated["keys"]
        majority = 2 * len(used) > len(recovery) and {_key_id(key) for key in used} <= set(recovery)
        return majority and self._signed(line, [*used, *new], len(used) + len(new))

    def _signed(self, line: bytes, keys: list[dict[str, str]], threshold: int) -> bool:
        """5a: every half of enough of the keys signed, every signature is valid, and none is by another key."""
        envelope = _opened(line)
        kind, payload = envelope["payloadType"].encode(), envelope["payload"]
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        left, signers = dict(envelope["signatures"]), 0
        for key in keys:
            halves = {_half_id(alg, raw): (alg, base64.b64decode(raw)) for alg, raw in key.items()}
            given = {half: left.pop(half) for half in halves if half in left}
            if not given:
                continue
            if given.keys() != halves.keys():
                return False
            if not all(self._verify(*halves[half], signature, message) for half, signature in given.items()):
                return False
            signers += 1
        return signers >= threshold and not left


def _opened(line: bytes) -> dict[str, Any]:
    """5a: the only valid form of an envelope. Raises ValueError, KeyError or TypeError for any other."""
    envelope = json.loads(line)
    spelled = json.dumps(envelope, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if spelled != line or not isinstance(envelope, dict) or set(envelope) != {"payload", "payloadType", "signatures"}:
        raise ValueError("not the one spelling")
    given = [
        (each["keyid"], _unbased(each["sig"])) for each in envelope["signatures"] if each.keys() == {"keyid", "sig"}
    ]
    ids = [keyid for keyid, _ in given]
    if len(given) != len(envelope["signatures"]) or ids != sorted(set(ids)) or not 1 <= len(ids) <= MOST:
        raise ValueError("signatures out of order, twice, too many, or with a rider")
    if any(len(signature) not in LENGTHS for _, signature in given):
        raise ValueError("a length that no algorithm has")
    payload = _unbased(envelope["payload"])
    return {"payloadType": envelope["payloadType"], "payload": payload, "signatures": dict(given)}


def _unbased(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 with bits to spare")
    return data


def _half_id(alg: str, raw: str) -> str:
    return hashlib.sha256(alg.encode() + b"\n" + base64.b64decode(raw)).hexdigest()


def verifies(alg: str, raw: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key made the signature."""
    try:
        if alg == "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        elif alg == "ml-dsa-65":
            mldsa.MLDSA65PublicKey.from_public_bytes(raw).verify(signature, message)
        elif alg == "ecdsa-p256":
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            if len(signature) != 64 or s > P256 // 2:
                return False
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
            point.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True


def _state(identity: str, keys: list[dict[str, str]], threshold: int, recovery: list[str]) -> str:
    ids = sorted(map(_key_id, keys))
    return _digest({"identity": identity, "keys": ids, "recovery": sorted(recovery), "threshold": threshold})


def _key_id(key: Mapping[str, str]) -> str:
    return _digest(dict(key))


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
