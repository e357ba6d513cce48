"""What only this node's operators may ask."""

from __future__ import annotations

from pathlib import Path

from comity.node.publishing.desk import Desk
from comity.node.services.status import Status
from comity.trust.digest import Digest
from comity.wire.values import NodeStatus


class Operators:
    """Answers `Operating`."""

    def __init__(self, desk: Desk, status: Status) -> None:
        self._desk = desk
        self._status = status

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        return await self._desk.adopt(path, digest, size)

    async def status(self) -> NodeStatus:
        return await self._status.now()
