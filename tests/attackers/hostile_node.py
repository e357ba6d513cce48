"""The node of a hostile member: it answers with bytes made by hand, from a log that it writes as it likes.

Built on `support.liar`, which speaks gRPC as a transport only. It has the member's keys, all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from support.liar import Liar, NotHere, Question

from attackers.forging import Holder, Key, canonical, keys_in, opened
from attackers.forging import sha256 as hex_sha256


class HostileNode(Liar):
    """See the module. `answered` counts the bytes of its answers by call."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.home = home
        self.answered: Counter[str] = Counter()
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
        """Write lines into its own log, and have these objects for whoever asks."""
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

    def answer(self, call: str, question: Question) -> Iterable[bytes]:
        for part in super().answer(call, question):
            self.answered[call] += len(part)
            yield part

    def truth(self, call: str, question: Question) -> Iterable[bytes]:
        if call in ("Resolve", "GetClaims", "GetRecords", "GetProof", "GetCharter", "ListLocations"):
            raise NotHere
        if call in ("Search", "SearchOffers", "ListGrants"):
            return [b""] if call == "Search" else []
        return super().truth(call, question)
