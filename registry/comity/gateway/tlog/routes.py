"""The addresses of the C2SP faces, all under `/tlog`: the submission prefix of witness and mirror alike."""

from __future__ import annotations

from starlette.routing import Route

from comity.gateway.running import Running
from comity.gateway.tlog.known import Known
from comity.gateway.tlog.mirror import Uploads
from comity.gateway.tlog.tiles import Tiles
from comity.gateway.tlog.witness import Submissions
from comity.gateway.tlog.witness_key import WitnessKey


def routes(running: Running) -> list[Route]:
    """Blocking. Raises what `WitnessKey.load` raises."""
    known = Known(running.core)
    witness = WitnessKey.load(running.core)
    tiles = Tiles(running, known, witness)
    submissions = Submissions(running, known, witness)
    uploads = Uploads(running, known, submissions)
    return [
        Route("/tlog", tiles.index),
        Route("/tlog/add-checkpoint", submissions.add_checkpoint, methods=["POST"]),
        Route("/tlog/add-entries", uploads.add_entries, methods=["POST"]),
        Route("/tlog/witness/{log}/checkpoint", submissions.monitoring),
        Route("/tlog/{log}/checkpoint", tiles.checkpoint),
        Route("/tlog/{log}/tile/{tile:path}", tiles.tile),
    ]
