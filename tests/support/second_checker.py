"""A second judge of charters that contradict one another, written from the protocol's text alone.

It knows nothing of Comity's own code. Of two certificates for one epoch it names the members that lied, and shows the
two readings that prove it (7.3).
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

Proof: TypeAlias = tuple[bytes, bytes]
Verify: TypeAlias = Callable[[str, bytes, bytes, bytes], bool]
"""Whether (algorithm, raw public key) made the signature over the message."""


def liars(
    previous: bytes, first: Iterable[bytes], second: Iterable[bytes], verify: Verify | None = None
) -> dict[str, Proof]:
    """Members of the charter body `previous` that lied, by id, each with two lines out of the certificates."""
    lines = [*dict.fromkeys((*first, *second))]
    told = _Told(previous, lines, verify or verifies)
    found: dict[str, Proof] = {}
    for one, other in itertools.combinations(told.readings(), 2):
        if one.member == other.member and (contradict(one, other) or contradict(other, one)):
            found.setdefault(one.member, (one.line, other.line))
    return found


def fewest(previous: bytes) -> int:
    """2q - n: how many members at least must have lied where two certificates for one epoch exist (I2)."""
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
    """Whether no honest member signs both; for readings of different kinds `one` is the INTENT."""
    if one.kind == other.kind:
        return one.round == other.round and one.content != other.content
    return (one.kind, other.kind) == ("intent", "ratified") and one.locked < other.round < one.round


class _Told:
    """What the lines say about the successor of one body."""

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
                statement = json.loads(base64.b64decode(json.loads(line)["payload"]))
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
        """Whether most of the recovery keys signed, and all the new ones."""
        used = [key for key in rotated["used"] if _key_id(key) in recovery]
        most = len(recovery) // 2 + 1
        return self._signed(line, used, most) and self._signed(line, rotated["keys"], len(rotated["keys"]))

    def _signed(self, line: bytes, keys: list[dict[str, str]], threshold: int) -> bool:
        envelope = json.loads(line)
        kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        signatures = {each["keyid"]: base64.b64decode(each["sig"]) for each in envelope["signatures"]}
        good = [all(self._half(alg, raw, signatures, message) for alg, raw in key.items()) for key in keys]
        return sum(good) >= threshold

    def _half(self, alg: str, encoded: str, signatures: Mapping[str, bytes], message: bytes) -> bool:
        raw = base64.b64decode(encoded)
        signature = signatures.get(hashlib.sha256(alg.encode() + b"\n" + raw).hexdigest())
        return signature is not None and self._verify(alg, raw, signature, message)


def verifies(alg: str, raw: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key made the signature."""
    try:
        if alg == "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        elif alg == "ml-dsa-65":
            mldsa.MLDSA65PublicKey.from_public_bytes(raw).verify(signature, message)
        elif alg == "ecdsa-p256":
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
            point.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _state(identity: str, keys: list[dict[str, str]], threshold: int, recovery: list[str]) -> str:
    ids = sorted(map(_key_id, keys))
    return _digest({"identity": identity, "keys": ids, "recovery": sorted(recovery), "threshold": threshold})


def _key_id(key: Mapping[str, str]) -> str:
    return _digest(dict(key))


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
