"""The parts of a running node that the gateway's routes use."""

from __future__ import annotations

from dataclasses import dataclass

from comity.gateway.fileserver.server import FileRoutes
from comity.gateway.http import ConnectionPlaces
from comity.node.config import Gateway
from comity.node.context import NodeContext
from comity.node.importing.read_through import ReadThroughImports
from comity.node.publishing import Submissions
from comity.node.replication.setup import ReplicationTasks
from comity.node.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """A node at work. `supervisor` runs the loops that routes need; it outlives the gateway's last request. Every body
    of a file that is sent here holds one of `bodies`."""

    core: NodeContext
    desk: Submissions
    replication: ReplicationTasks
    passages: ReadThroughImports
    supervisor: Supervisor
    blobs: FileRoutes
    bodies: ConnectionPlaces

    @property
    def settings(self) -> Gateway:
        return self.core.config.gateway
