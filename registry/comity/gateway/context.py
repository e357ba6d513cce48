"""The parts of a running node that the routes of the gateway use."""

from __future__ import annotations

from dataclasses import dataclass

from comity.gateway.fileserver.server import FileRoutes
from comity.gateway.http import ConnectionSlots
from comity.node.config import Gateway
from comity.node.context import NodeContext
from comity.node.importing.read_through import ReadThroughImports
from comity.node.publishing import Submissions
from comity.node.replication.setup import ReplicationTasks
from comity.node.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """Parts of a running node. `supervisor` runs the loops that routes need; it outlives the last request. Each file
    body that is sent here uses one of `bodies`."""

    core: NodeContext
    submissions: Submissions
    replication: ReplicationTasks
    read_through: ReadThroughImports
    supervisor: Supervisor
    blobs: FileRoutes
    bodies: ConnectionSlots

    @property
    def settings(self) -> Gateway:
        return self.core.config.gateway
