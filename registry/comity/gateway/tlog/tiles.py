"""Reading logs over HTTP (C2SP tlog-tiles): checkpoint, tiles and entries of every log that is held here.

What is shown is bounded by the checkpoint that is shown: of the node's own log the newest, of a mirrored one the newest
that this node's cosigner has signed, as tlog-mirror asks. No tile is served that goes beyond it, so that a tile once
served is what it is for ever.
"""

from __future__ import annotations

import gzip
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from comity.gateway.running import Running
from comity.gateway.tlog.known import Known
from comity.gateway.tlog.witness_key import WitnessKey
from comity.trust.errors import Malformed, NotFound
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.trust.tlog.tiles import ENTRIES, WIDTH, parse_tile_path

MOMENT: Final = {"Cache-Control": "public, max-age=1"}
FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


class Tiles:
    def __init__(self, running: Running, known: Known, witness: WitnessKey | None) -> None:
        self._core = running.core
        self._known = known
        self._witness = witness

    async def index(self, request: Request) -> JSONResponse:
        """Every log that is served here, and who signs for them."""
        base = f"{self._core.config.gateway.url}/tlog"
        logs = []
        for key in await self._known.held():
            size = Checkpoint.parse(note.text).size if (note := await self._shown_or_none(key)) else None
            prefix = f"{base}/{await self._known.prefix(key)}"
            own = key == self._core.seat.record.log
            logs.append({"origin": key.name, "vkey": str(key), "prefix": prefix, "size": size, "own": own})
        record = self._core.seat.record
        mirror = {"vkeys": list(map(str, record.cosigners)), "submission": base, "monitoring": base}
        witness = None
        if self._witness is not None:
            watched = sorted(map(str, self._known.witnessed))
            vkeys = list(map(str, self._witness.keys))
            witness = {"vkeys": vkeys, "submission": base, "monitoring": f"{base}/witness", "logs": watched}
        return JSONResponse({"logs": logs, "mirror": mirror, "witness": witness}, headers=MOMENT)

    async def checkpoint(self, request: Request) -> Response:
        key = await self._known.served(request.path_params["log"])
        note = await self._shown(key)
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=MOMENT)

    async def tile(self, request: Request) -> Response:
        key = await self._known.served(request.path_params["log"])
        try:
            tile = parse_tile_path(f"tile/{request.path_params['tile']}")
        except Malformed as error:
            raise NotFound("no such tile", why=error.why, code="NO-SUCH-TILE") from error
        size = Checkpoint.parse((await self._shown(key)).text).size
        if (tile.index * WIDTH + tile.width) << 8 * max(tile.level, 0) > size:
            why = f"the checkpoint that is shown covers {size} entries"
            raise NotFound("no such tile yet", why=why, code="NO-SUCH-TILE")
        data = await self._core.pools.ledger(self._core.ledger.history.tile, str(key), tile)
        headers = dict(FOR_EVER)
        if tile.level == ENTRIES:
            headers["Vary"] = "Accept-Encoding"
            if _takes_gzip(request):
                data = await self._core.pools.hashing(gzip.compress, data, 6, mtime=0)
                headers["Content-Encoding"] = "gzip"
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def _shown(self, key: VerifierKey) -> SignedNote:
        """The checkpoint that bounds what is served of a log. Raises NotFound (NO-CHECKPOINT)."""
        record, cosignatures = self._core.seat.record, self._core.ledger.cosignatures
        if key == record.log:
            return await self._core.pools.ledger(cosignatures.cosigned, str(key))
        return await self._core.pools.ledger(cosignatures.newest_by, str(key), record.cosigners)

    async def _shown_or_none(self, key: VerifierKey) -> SignedNote | None:
        try:
            return await self._shown(key)
        except NotFound:
            return None


def _takes_gzip(request: Request) -> bool:
    """Whether gzip is named without a weight, as every client does that means it."""
    return "gzip" in request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
