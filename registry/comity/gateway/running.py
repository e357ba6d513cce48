"""The parts of a running node that the gateway's routes use."""

from __future__ import annotations

from dataclasses import dataclass

from comity.gateway.blobs.serving import Blobs
from comity.gateway.places import Places
from comity.node.config import Gateway
from comity.node.core import Core
from comity.node.importing.passages import Passages
from comity.node.publishing.desk import Desk
from comity.node.replication.assembly import Replication
from comity.node.tasks import Supervisor


@dataclass(frozen=True, slots=True)
class Running:
    """A node at work. `supervisor` runs the loops that routes need; it outlives the gateway's last request. Every body
    of a file that is sent here holds one of `bodies`."""

    core: Core
    desk: Desk
    replication: Replication
    passages: Passages
    supervisor: Supervisor
    blobs: Blobs
    bodies: Places

    @property
    def settings(self) -> Gateway:
        return self.core.config.gateway
