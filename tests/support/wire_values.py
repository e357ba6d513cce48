"""Generated values of the fields of messages, for tests of the wire."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from comity.rules.audit import AuditChallenge
from comity.rules.copy_counts import AssessedCopy, AuditResult, ClaimedCopy, CopyPolicy
from comity.rules.offers.offer import SliceAllocation, Window
from comity.trust.encoding import Digest, sha256
from comity.trust.tlog.note import NoteSignature
from comity.wire.audit import AuditOrder, AuditReply, CheckedCopy, HoldOrder
from comity.wire.bundle import LoadedArtifact, LoadedCharter, LoadedLog, LoadEnded, LoadEvent, LoadWaiting
from comity.wire.messages import LocatedEntry
from comity.wire.news import KnownCosignatures, LogNews, News
from comity.wire.node import ReplicaCounts
from comity.wire.node_status import (
    LogStatus,
    MemberCopies,
    NodeStatus,
    PeerStatus,
    Quota,
    ReplicationStatus,
    ScrubStatus,
    StoreStatus,
)
from comity.wire.offer import (
    AnswerDefault,
    Approve,
    Attest,
    OfferAction,
    OfferQuery,
    Post,
    Redeem,
    Reject,
    Release,
    UsageReport,
    Withdraw,
)
from comity.wire.publish import InlineObject
from comity.wire.upstream import ImportDone, ImportEvent, ImportOrder, ImportProgress, ImportStarted, ImportWaiting

CARD = 3
"""Items of a generated list, at most."""


class Values:
    """Generated values of the fields of messages."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def number(self, most: int = 1 << 31) -> int:
        return self._random.randrange(most)

    def coin(self) -> bool:
        return self._random.random() < 0.5

    def digest(self) -> Digest:
        return sha256(self._random.randbytes(8))

    def data(self, most: int = 40) -> bytes:
        return self._random.randbytes(self._random.randrange(1, most))

    def line(self) -> bytes:
        return self.data().hex().encode()

    def word(self) -> str:
        return self.data(9).hex()

    def text(self) -> str:
        return f"{self.word()} é {self.word()}"

    def origin(self) -> str:
        return f"{self.word()}.example/log"

    def some(self, make: Callable[[], Any], least: int = 0) -> tuple[Any, ...]:
        return tuple(make() for _ in range(self._random.randrange(least, CARD + 1)))

    def maybe(self, make: Callable[[], Any]) -> Any:
        return make() if self.coin() else None

    def located(self) -> LocatedEntry:
        return LocatedEntry(self.origin(), self.number(), self.line(), self.coin(), self.coin())

    def policy(self) -> CopyPolicy:
        return CopyPolicy(3, 1 + self.number(3), self.number(3))

    def order(self, lease: int = 0) -> AuditOrder:
        numbers = tuple(sorted(self._random.sample(range(1000), 4)))
        federation = self.digest()
        ids = self.digest(), self.digest(), self.digest(), self.digest(), self.digest()
        return AuditOrder(federation, AuditChallenge(*ids, numbers=numbers, lease=lease))

    def reply(self) -> AuditReply:
        return AuditReply(self.line(), self.some(lambda: self.some(lambda: bytes.fromhex(self.digest()))))

    def checked(self) -> CheckedCopy:
        return CheckedCopy(self.text(), self.text(), "CH", "passed", self.text(), self.number())

    def copy(self) -> AssessedCopy:
        claimed = ClaimedCopy(self.digest(), self.digest(), "CH", "", ("CH", "US"), self.text())
        results = self.some(
            lambda: AuditResult(self.digest(), self.number(20_000), "missed", self.number(), self.coin())
        )
        return AssessedCopy(claimed, "claimed", results)

    def log_news(self) -> LogNews:
        signatures = self.some(lambda: NoteSignature(self.word(), self.digest().encode()[:4], self.data()))
        return LogNews(f"{self.origin()}+abcd+{self.word()}", self.data(), self.number(), signatures)

    def page_of_news(self) -> News:
        return News(self.data(), self.coin(), self.some(self.log_news), self.number(), self.maybe(self.digest))

    def located_number(self) -> tuple[bytes, int]:
        return self.digest().encode()[:4], self.number()

    def known(self) -> KnownCosignatures:
        return KnownCosignatures(self.origin(), self.number(), self.some(self.located_number))

    def inline(self) -> InlineObject:
        return InlineObject(self.digest(), self.data())

    def offer_query(self) -> OfferQuery:
        return OfferQuery(
            accelerator=self.word(),
            least_amount=self.number(),
            jurisdictions=("CH",),
            beyond_reach_of=self.some(self.word),
            artifact=self.maybe(self.digest),
            engine=self.word(),
            provider=self.maybe(self.digest),
            ends_after=self.maybe(self.number),
            closed=self.coin(),
            after=self.maybe(self.digest),
            limit=self.number(1000),
        )

    def offer_actions(self) -> tuple[OfferAction, ...]:
        allocation = SliceAllocation("a", 2, 100, 200, 7)
        return (
            Post(self.data()),
            Withdraw(self.digest(), self.text()),
            Approve(self.digest(), (allocation,)),
            Reject(self.digest(), self.text()),
            Redeem(self.digest()),
            Release(self.digest()),
            AnswerDefault(self.digest(), self.text()),
            UsageReport(self.digest(), (1, 2, 3), Window(100, 200), self.text()),
            Attest(self.digest(), self.number(), self.digest(), self.data()),
        )

    def hold_order(self) -> HoldOrder:
        return HoldOrder(self.digest(), "space", self.text(), self.coin(), self.coin(), self.word(), self.coin())

    def load_events(self) -> tuple[LoadEvent, ...]:
        return (
            LoadedCharter(self.number(), self.number(), self.text(), "CODE"),
            LoadedLog(self.origin(), self.number(), self.number(), self.number(), self.text(), "CODE"),
            LoadedArtifact(self.digest(), self.text(), self.text(), "CODE"),
            LoadWaiting(),
            LoadEnded(self.coin(), self.number()),
        )

    def import_events(self) -> tuple[ImportEvent, ...]:
        return (
            ImportStarted(self.word(), self.number(), self.number()),
            ImportProgress(self.text(), -self.number()),
            ImportWaiting(self.text(), self.number()),
            ImportDone(self.line(), self.origin(), self.number(), self.coin()),
        )

    def import_order(self) -> ImportOrder:
        return ImportOrder(self.word(), self.word(), f"/{self.word()}", self.some(self.word), self.data(), self.word())

    def status(self) -> NodeStatus:
        replicas = ReplicaCounts(*(self.number() for _ in range(5)))
        scrub = ScrubStatus(self.number(), "22-6", self.number(), self.number(1000), self.maybe(self.number))
        member = MemberCopies(self.digest(), self.text(), self.number(), self.number(), self.maybe(self.number))
        return NodeStatus(
            self.text(),
            self.origin(),
            self.number(),
            (PeerStatus(self.text(), "CH", self.text(), self.coin(), self.number(), 0, self.text()),),
            (LogStatus(self.origin(), self.number(), self.coin(), 0, self.some(self.text)),),
            StoreStatus(self.number(), self.number(), self.maybe(self.number), 0, scrub),
            self.number(),
            self.number(),
            (Quota(self.text(), self.number(), self.number()),),
            self.some(self.text),
            replication=ReplicationStatus(replicas, members=(member,)),
        )
