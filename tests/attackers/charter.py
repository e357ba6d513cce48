"""Raw charter lines of a stranger, or of one member with all its keys; built without Comity's encoders.

The lines go into a log of the attacker's own, or to any open port. The attacker makes valid signatures with the given
keys only; all other fields are arbitrary.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attackers.forging import Author, Identity, Key, RawKey, b64, canonical, named, sha256, signed, statement

JUNK = (3309, 64)
"""Bytes of a junk signature: those of ML-DSA-65 while they fit into a line, then those of Ed25519."""
ROOM = 62_000


def padded(line: bytes, number: int, *, signatures: int = 14) -> bytes:
    """The same statement in another envelope, with additional signatures by unknown keys."""
    envelope: dict[str, Any] = json.loads(line)
    left, junk = ROOM - len(line), []
    for at in range(signatures - len(envelope["signatures"])):
        sig = b64(at.to_bytes(3, "big") * (JUNK[0] // 3) if left > 4600 else bytes(JUNK[1]))
        left -= len(sig) + 100
        junk.append({"keyid": sha256(b"%d %d" % (number, at)), "sig": sig})
    envelope["signatures"] = sorted([*envelope["signatures"], *junk], key=lambda each: str(each["keyid"]))
    return canonical(envelope)


def copies(line: bytes, count: int) -> Iterator[bytes]:
    """`count` different envelopes of one public statement, each nearly as long as a line may be."""
    return (padded(line, number) for number in range(count))


def unsigned(line: bytes, number: int) -> bytes:
    """The same statement under the same key ids, with invalid signatures of the right lengths."""
    envelope: dict[str, Any] = json.loads(line)
    for each in envelope["signatures"]:
        sig = bytearray(base64.b64decode(each["sig"]))
        sig[:8] = number.to_bytes(8, "big")
        each["sig"] = b64(bytes(sig))
    return canonical(envelope)


def reading(
    member: Author, prev: str, epoch: int, round_: int, body: str, *, ratified: bool = False, **more: Any
) -> bytes:
    """An `intent` or `ratified` vote of a member, with arbitrary content."""
    said: dict[str, Any] = {"body": body, "epoch": epoch, "prev": prev, "round": round_}
    if not ratified:
        said |= {"last_ratified": None, "unlock": None, **more}
    return member.say("ratified" if ratified else "intent", ("charter", body), said)


def contradictions(
    member: Author, prev: str, epoch: int, bodies: Sequence[str], rounds: Iterable[int]
) -> Iterator[bytes]:
    """Conflicting votes: for every body in every round, once for each text."""
    for round_ in rounds:
        for body in bodies:
            yield reading(member, prev, epoch, round_, body)
            yield reading(member, prev, epoch, round_, body, ratified=True)
            for lock in range(1, min(round_, 4)):
                hidden = {"body": body, "round": lock}
                yield reading(member, prev, epoch, round_, body, last_ratified=hidden, unlock=lock)


def draft(member: Author, federation: str, prev: str, body: bytes, text: str) -> bytes:
    """A member proposes a body, once more for each text."""
    said = {"body": sha256(body), "federation": federation, "prev": prev, "text": text}
    return member.say("draft", ("charter", sha256(body)), said, [named(body)])


def rotation(identity: str, prev: str, recovery: Key, new: Key, *, seq: int = 1, home: str = "") -> bytes:
    """One of many valid rotations of one state, by its only recovery key: each to a key of its own."""
    body = {
        "cut": [],
        "home": home,
        "keys": [{new.alg: b64(new.public)}],
        "prev": prev,
        "recovery": [],
        "seq": seq,
        "threshold": 1,
        "used": [{recovery.alg: b64(recovery.public)}],
    }
    said = statement("rotated", {"identity": identity}, ("", identity), body)
    return signed(said, (recovery, new))


def branches(identity: str, prev: str, recovery: Key, count: int) -> Iterator[bytes]:
    """Conflicting rotations of one state."""
    return (rotation(identity, prev, recovery, RawKey.of_seed(f"branch {number}")) for number in range(count))


def made_up_members(count: int, jurisdiction: str = "CH") -> Iterator[Identity]:
    """Identities of members, as anyone can make them."""
    return (
        Identity.made(f"made up {number}", label=f"made up {number}", kind="member", jurisdiction=jurisdiction)
        for number in range(count)
    )
