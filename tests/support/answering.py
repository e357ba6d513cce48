"""A node that answers what is said about an artifact, of which its log has much from others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from attackers.forging import Identity, RawKey, Release, b64, canonical, sha256
from attackers.records import rotation
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services.artifact import ArtifactServicer
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest
from comity.trust.statement import parse_entry
from comity.wire.messages import LocatedEntry
from support.logs import LogKeys

LOG, WHO, RELEASE = LogKeys.generate("far.example/log"), Identity.made("somebody"), Release(b"one\n")
ARTIFACT = parse_entry(WHO.publish("a/b@v1", RELEASE)).statement.subject


def nobody(namespace: str) -> None:
    """The charter binds no namespace."""


RECOVERY = RawKey.of_seed("recovery")


def with_recovery(seed: str) -> Identity:
    """An identity whose recovery key is `RECOVERY`."""
    return Identity.made(seed, recovery=(sha256(canonical({RECOVERY.alg: b64(RECOVERY.public)})),))


def inception_and_rotations(who: Identity, count: int) -> list[bytes]:
    """The inception of an identity and rotations by its recovery key, each another branch."""
    return [who.inception, *(rotation(who, RECOVERY, RawKey.of_seed(f"{who.id} {n}")) for n in range(count))]


class Flooded:
    """A node whose log has many warnings about a publisher's artifact, before and after those of the publisher."""

    def __init__(self, folder: Path, junk: int) -> None:
        self.ledger, self.names = Ledger.open(folder, lambda: 1_000), dict[bytes, str]()
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        self.service = self.service_among()
        self.say("publisher", WHO.inception, WHO.publish("a/b@v1", RELEASE))
        self.strangers(0, junk)
        self.say("publisher", WHO.advise(ARTIFACT, "withdrawn", "yank"))
        self.strangers(junk, junk)

    def service_among(self, *members: Identity) -> ArtifactServicer:
        """The service of a node whose federation has these members."""
        ids = tuple(Digest(member.id) for member in members)
        known = SimpleNamespace(
            node_ids=(),
            known=ids,
            peers=(),
            own_node=SimpleNamespace(record_line=WHO.inception),
            precedence=Precedence(members=frozenset(ids)),
            bound_publisher=nobody,
            body=None,
        )
        return ArtifactServicer(AsyncLedger(self.ledger), cast(Membership, known), Metrics())

    def strangers(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            stranger = Identity.made(f"stranger {number}")
            self.say("junk", stranger.inception, stranger.advise(ARTIFACT, "beware"))

    def say(self, name: str, *lines: bytes) -> None:
        self.ledger.logs.append(LOG.vkey, lines)
        self.names |= dict.fromkeys(lines, name)

    def copy_log(self, origin: str, *lines: bytes) -> str:
        """Another log, in which somebody logged these lines again."""
        other = LogKeys.generate(origin)
        self.ledger.logs.create(other.origin, other.vkey, own=True)
        self.ledger.logs.append(other.vkey, lines)
        return other.origin

    async def claims(self, *named: Digest) -> list[LocatedEntry]:
        return [located async for located in self.service.claims(ARTIFACT, named)]

    async def resolved(self, *named: Digest) -> list[LocatedEntry]:
        return [located async for located in self.service.resolve("a/b", None, None, named)]

    def of_publisher(self, found: list[LocatedEntry]) -> int:
        return len({each.line for each in found if self.names[each.line] == "publisher"})
