"""The node of a hostile member: it answers with bytes built here, from a log with arbitrary lines.

Based on `support.lying_node`, which uses gRPC as a transport only. The hostile node has all keys of its member.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.lying_node import Answer, Liar, NoSuchCall, NotHere, Question
from support.raw_bytes import RawLog, leaf_hash, message

from attackers.forging import Holder, Key, canonical, keys_in, opened
from attackers.forging import sha256 as hex_sha256


@dataclass
class LongLog(RawLog):
    """A log that may be long: hashes are kept, so that none is computed twice. Lines are only ever appended."""

    _leaves: list[bytes] = field(default_factory=list)
    _notes: dict[int, bytes] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)

    def leaves(self, size: int | None = None) -> list[bytes]:
        with self._lock:
            self._leaves += [leaf_hash(line) for line in self.lines[len(self._leaves) :]]
            return self._leaves[:size]

    def note(self, size: int | None = None, *, signer: Ed25519PrivateKey | None = None) -> bytes:
        at = len(self.lines) if size is None else size
        if signer is not None:
            return super().note(at, signer=signer)
        if at not in self._notes:
            self._notes[at] = super().note(at)
        return self._notes[at]


class HostileNode(Liar):
    """See the module. `answered` counts the bytes of its answers by call; `errors` are programming errors of
    its own.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.log = LongLog(self.log.origin, self.log.key, list(self.log.lines))
        self.answered: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self.governance: tuple[Key, ...] = keys_in(home / "offline" / "governance.pem")
        self.online_keys: tuple[Key, ...] = keys_in(home / "keys" / "online.pem")
        self.inception, self.record_line = self._lines
        self.id: str = opened(self.inception)["predicate"]["by"]["identity"]
        self.label: str = opened(self.inception)["subject"][0]["name"]
        self.node_id = hex_sha256(canonical(opened(self.record_line)["predicate"]["online"]))

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Key and certificate of its node, PEM."""
        return self._identity

    def say(self, *lines: bytes, objects: Sequence[bytes] = ()) -> None:
        """Write lines into its own log, and serve these objects to all callers."""
        self.have(*objects)
        self.log.lines += lines

    @property
    def member(self) -> Holder:
        """The member, who signs with its governance keys."""
        return Holder({"identity": self.id}, self.governance)

    @property
    def node(self) -> Holder:
        """The node, which signs with its online key."""
        return Holder({"node": self.node_id}, self.online_keys)

    def answer(self, call: str, question: Question) -> Iterable[Answer]:
        try:
            for part in super().answer(call, question):
                self.answered[call] += len(part) if isinstance(part, bytes) else 0
                yield part
        except (NotHere, NoSuchCall):
            raise
        except Exception as error:
            self.errors.append(error)
            raise

    def truth(self, call: str, question: Question) -> Iterable[bytes]:
        if call in ("Resolve", "GetClaims", "GetRecords", "GetProof", "GetCharter", "ListLocations"):
            raise NotHere
        if call == "GetEntries" and question.data(1) in (self.log.origin.encode(), self.log.vkey.encode()):
            return batches(self.log, question.number(2), question.number(3))
        if call in ("Search", "SearchOffers", "ListGrants"):
            return [b""] if call == "Search" else []
        return super().truth(call, question)


def batches(log: RawLog, start: int, end: int) -> Iterator[bytes]:
    """Entries in messages of at most 1 MiB, as an honest node sends them."""
    lines = log.lines[start:end]
    while lines:
        total = 0
        for count, line in enumerate(lines[:1_000], 1):
            total += len(line) + 8
            if total > 1_000_000:
                count -= 1
                break
        yield message((1, start), *((2, line) for line in lines[:count]))
        start, lines = start + count, lines[count:]
