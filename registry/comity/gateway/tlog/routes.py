"""The routes of the transparency-log APIs."""

from __future__ import annotations

from starlette.routing import Route

from comity.gateway.tlog.logs import KnownLogs
from comity.gateway.tlog.mirror import MirrorRoutes
from comity.gateway.tlog.tiles import TileRoutes
from comity.gateway.tlog.witness import WitnessKey, WitnessRoutes
from comity.node.home import OpenedHome
from comity.node.own_log import OUTSIDE_MARK
from comity.node.replication.setup import ReplicationTasks


def tlog_routes(home: OpenedHome, replication: ReplicationTasks) -> list[Route]:
    """Blocking. Raises as `WitnessKey.load` does."""
    ledger, settings = home.ledger, home.config.tlog
    known = KnownLogs(ledger, home.membership, settings, home.mark(OUTSIDE_MARK))
    witness = WitnessKey.load(settings, home.keys)
    tiles = TileRoutes(ledger, home.pools, home.keys.record, home.config.gateway.url, known, witness)
    submissions = WitnessRoutes(ledger, home.clock, replication.misbehaviour, known, witness)
    uploads = MirrorRoutes(
        ledger,
        home.store,
        home.pools,
        replication.quotas,
        replication.misbehaviour,
        replication.cosigner,
        replication.advanced,
        known,
        submissions,
    )
    return [
        Route("/tlog", tiles.index),
        Route("/tlog/add-checkpoint", submissions.add_checkpoint, methods=["POST"]),
        Route("/tlog/add-entries", uploads.add_entries, methods=["POST"]),
        Route("/tlog/witness/{log}/checkpoint", submissions.witness_checkpoint),
        Route("/tlog/{log}/checkpoint", tiles.checkpoint),
        Route("/tlog/{log}/tile/{tile:path}", tiles.tile),
    ]
