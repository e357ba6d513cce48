"""What only this node's operators may ask."""

from __future__ import annotations

from pathlib import Path

from comity.node.publishing.desk import Desk
from comity.node.services.governance import Governance
from comity.node.services.status import Status
from comity.trust.digest import Digest
from comity.wire.values import NodeStatus


class Operators:
    """Answers `Operating`."""

    def __init__(self, desk: Desk, status: Status, governance: Governance) -> None:
        self._desk = desk
        self._status = status
        self._governance = governance

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        return await self._desk.adopt(path, digest, size)

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        await self._governance.decide_ask(member, keep=keep)

    async def status(self) -> NodeStatus:
        return await self._status.now()
