"""What there is, who says what about it, who has it; logs, as an outsider reads them."""

from __future__ import annotations

from collections.abc import Sequence

from comity.trust.digest import Digest

from comity_client.api.base import Base, Resolution
from comity_client.events import OnEvent, ignore
from comity_client.evidence import dossier, logs, node_states
from comity_client.evidence.accusations import Accusation, accusations
from comity_client.evidence.dossier import Dossier, Listing, Replica
from comity_client.evidence.logs import LogCheck, LogEntry, ProvenIn, SeenCheckpoint
from comity_client.evidence.node_states import NodeState
from comity_client.nodes.gateway import ToldGateway, told_gateway
from comity_client.nodes.session import Session
from comity_client.owner.memory import Contradiction


class Looking(Base):
    """What there is, who says what about it, who has it; logs, as an outsider reads them."""

    def resolve(self, reference: str) -> Resolution:
        """What a reference stands for. Raises Malformed, NotFound, Unavailable; PolicyNotMet where only the owner can
        decide, with the claimants listed."""
        return self._with(lambda session: self._resolve(session, reference, self.policy()))

    def search(self, text: str, limit: int = 50) -> list[Listing]:
        """Raises Unavailable."""
        return self._with(lambda session: dossier.search(session, text, limit))

    def show(self, reference: str) -> Dossier:
        """Raises as `resolve` does."""

        async def work(session: Session) -> Dossier:
            policy = self.policy()
            return await dossier.describe(session, await self._resolve(session, reference, policy), policy)

        return self._with(work)

    def whereis(self, reference: str) -> list[Replica]:
        """Who claims a copy, and who has it as they answer now. Raises as `resolve` does."""

        async def work(session: Session) -> list[Replica]:
            policy = self.policy()
            return await dossier.replicas(session, await self._resolve(session, reference, policy), policy)

        return self._with(work)

    def status(self, on_event: OnEvent = ignore) -> list[NodeState]:
        """How every known node is; alarms where a log contradicts what was seen before."""
        return self._with(lambda session: node_states.node_states(session, self._memory(), on_event), on_event)

    def gateway(self, node: str = "") -> ToldGateway:
        """Where a node claims that its gateway is: the one named, or the only one. Raises as `told_gateway` does."""
        return self._with(lambda session: told_gateway(session, node))

    def misbehaviour(self) -> list[Contradiction]:
        """Contradictions of logs that this user has seen, and keeps the proof of."""
        return list(self._memory().contradictions())

    def accusations(self, nodes: Sequence[str] = ()) -> list[Accusation]:
        """What nodes keep against logs, judged again here: those named, or all. Raises NotFound, Unavailable."""
        return self._with(lambda session: accusations(session, nodes))

    def log_checkpoint(self, origin: str) -> SeenCheckpoint:
        """Raises as `logs.newest_checkpoint` does."""
        return self._with(lambda session: logs.newest_checkpoint(session, self._memory(), origin))

    def log_entries(self, origin: str, start: int, end: int) -> list[LogEntry]:
        """Raises Malformed, NotFound, Unavailable."""
        return self._with(lambda session: logs.read_entries(session, origin, start, end))

    def log_proof(self, line: Digest) -> list[ProvenIn]:
        """Raises NotFound, Unavailable, Untrusted."""
        return self._with(lambda session: logs.prove_line(session, line))

    def log_check(self, origin: str) -> LogCheck:
        """Raises Equivocation, Untrusted, NotFound, Unavailable."""
        return self._with(lambda session: logs.check_log(session, self._memory(), origin))
