"""Tiles are served up to the served checkpoint only: of the own log the newest, of a mirrored log the newest that the
cosigner of this node signed, as tlog-mirror requires. So a served tile never changes. For outside witnesses of the own
log see `comity.node.outside_witnesses`.
"""

from __future__ import annotations

import gzip
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from comity.gateway.tlog.logs import KnownLogs
from comity.gateway.tlog.witness import WitnessKey
from comity.node.threads import AsyncLedger, Pools
from comity.rules.tiles import ENTRIES, WIDTH, parse_tile_path
from comity.trust.errors import Malformed, NotFound
from comity.trust.node_records import NodeRecord
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey

SHORT_CACHE: Final = {"Cache-Control": "public, max-age=1"}
IMMUTABLE_CACHE: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
COMPRESSED_AT_ONCE: Final = 2
"""Tiles that are compressed at once, by threads that hash files and judge artifacts too. Others are sent plain."""


class TileRoutes:
    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        record: NodeRecord,
        url: str,
        known: KnownLogs,
        witness: WitnessKey | None,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._record = record
        self._url = url
        self._known = known
        self._witness = witness
        self._compressing = 0

    async def index(self, request: Request) -> JSONResponse:
        """List the served logs, and the keys that sign for them."""
        base = f"{self._url}/tlog"
        logs = []
        for key in await self._known.stored_logs():
            size = Checkpoint.parse(note.text).size if (note := await self._served_checkpoint_or_none(key)) else None
            prefix = f"{base}/{await self._known.prefix(key)}"
            own = key == self._record.log
            logs.append({"origin": key.name, "vkey": str(key), "prefix": prefix, "size": size, "own": own})
        record = self._record
        mirror = {"vkeys": list(map(str, record.cosigners)), "submission": base, "monitoring": base}
        witness = None
        if self._witness is not None:
            witnessed_log = sorted(map(str, self._known.witnessed))
            vkeys = list(map(str, self._witness.keys))
            witness = {"vkeys": vkeys, "submission": base, "monitoring": f"{base}/witness", "logs": witnessed_log}
        return JSONResponse({"logs": logs, "mirror": mirror, "witness": witness}, headers=SHORT_CACHE)

    async def checkpoint(self, request: Request) -> Response:
        key = await self._known.log_by_prefix(request.path_params["log"])
        note = await self._served_checkpoint(key)
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=SHORT_CACHE)

    async def tile(self, request: Request) -> Response:
        key = await self._known.log_by_prefix(request.path_params["log"])
        try:
            tile = parse_tile_path(f"tile/{request.path_params['tile']}")
        except Malformed as error:
            raise NotFound("no such tile", why=error.why, code="NO-SUCH-TILE") from error
        size = Checkpoint.parse((await self._served_checkpoint(key)).text).size
        if (tile.index * WIDTH + tile.width) << 8 * max(tile.level, 0) > size:
            why = f"the served checkpoint covers {size} entries"
            raise NotFound("no such tile yet", why=why, code="NO-SUCH-TILE")
        data = await self._ledger.run(self._ledger.tables.history.tile, str(key), tile)
        headers = dict(IMMUTABLE_CACHE)
        if tile.level == ENTRIES:
            headers["Vary"] = "Accept-Encoding"
            if _takes_gzip(request) and self._compressing < COMPRESSED_AT_ONCE:
                data = await self._compressed(data)
                headers["Content-Encoding"] = "gzip"
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def _compressed(self, data: bytes) -> bytes:
        self._compressing += 1
        try:
            return await self._pools.hashing(gzip.compress, data, 6, mtime=0)
        finally:
            self._compressing -= 1

    async def _served_checkpoint(self, key: VerifierKey) -> SignedNote:
        """Return the checkpoint that bounds what is served of a log. Raises NotFound (NO-CHECKPOINT)."""
        record, cosignatures = self._record, self._ledger.tables.cosignatures
        if key == record.log:
            return await self._ledger.run(cosignatures.cosigned, str(key))
        return await self._ledger.run(cosignatures.newest_by, str(key), record.cosigners)

    async def _served_checkpoint_or_none(self, key: VerifierKey) -> SignedNote | None:
        try:
            return await self._served_checkpoint(key)
        except NotFound:
            return None


def _takes_gzip(request: Request) -> bool:
    """Return whether gzip is accepted without a weight, as clients send it."""
    return "gzip" in request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
