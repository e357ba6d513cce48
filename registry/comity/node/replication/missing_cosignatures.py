"""Asks for cosignatures of mirrored logs that their signers have not told this node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from comity.node.members import PeerKey
from comity.node.replication.cosigner import CheckpointCosigner
from comity.node.replication.link import CopySource, PeerLink
from comity.node.replication.news import ANSWER_TIMEOUT
from comity.node.replication.questions import PeerQuestions
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger
from comity.trust.tlog.note import VerifierKey
from comity.wire.limits import ASKED_LOGS
from comity.wire.news import LogNews

ASK_ROUNDS: Final = 12
"""Rounds between two questions."""
MAX_SKIP: Final = 15
"""Questions left out at most while no peer has an answer."""
STEP_DEADLINE: Final = 1800.0


class MissingCosignatures:
    """Asks peers for cosignatures that their signers have not told this node: a signer may be unreachable from here.
    Asks two peers at a time, in turn, and less often while it finds nothing."""

    def __init__(
        self,
        ledger: AsyncLedger,
        cosigner: CheckpointCosigner,
        links: Mapping[PeerKey, PeerLink],
        questions: PeerQuestions,
    ) -> None:
        self._ledger = ledger
        self._cosigner = cosigner
        self._links = links
        self._questions = questions
        self._lacked: Mapping[str, int] = {}
        """Logs that lacked cosignatures at the last step, with the size of their checkpoint."""
        self._turn = 0
        self._skip = self._skipped = 0
        """Steps to skip before the next question, and those that were skipped."""

    def begin(self, supervisor: Supervisor, interval: float) -> None:
        """Start the loop. `interval`: seconds between two rounds with a peer."""
        supervisor.loop("cosignatures", self.step, LoopTiming(ASK_ROUNDS * interval, STEP_DEADLINE))

    async def step(self) -> None:
        """Ask two peers for what has been missing since the last step."""
        lacking = await self._ledger.run(self._cosigner.look_around)
        asked = [item for item in lacking if self._lacked.get(item.log) == item.size]
        self._lacked = {item.log: item.size for item in lacking}
        able = [link for link in self._links.values() if link.state.reachable and link.news.misbehaviour is not None]
        self._skipped += 1
        if not asked or not able or self._skipped <= self._skip:
            return
        self._turn, self._skipped = self._turn + 1, 0
        first = (self._turn * ASKED_LOGS) % len(asked)
        some = (asked[first:] + asked[:first])[:ASKED_LOGS]

        async def cosignatures(source: CopySource) -> Sequence[LogNews]:
            return await source.client.news.cosignatures(some)

        answers = await self._questions.two(cosignatures, ANSWER_TIMEOUT, able)
        told = [item for answer in answers.found.values() for item in answer]
        for item in told:
            if self._lacked.get(item.log) == item.size:
                await self._cosigner.collect_told(VerifierKey.parse(item.log), item.size, item.cosignatures)
        self._skip = 0 if told else min(2 * self._skip + 1, MAX_SKIP)
