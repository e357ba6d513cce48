"""Proofs that a log has shown two histories, kept for ever and given to everyone who asks.

Whoever keeps a proof has checked it (`comity.trust.tlog.misbehaviour.convict`, where the kinds are explained); whoever
gets it checks it again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, insert, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.tlog.misbehaviour import KINDS

MAX_PART: Final = 1_100_000
"""Bytes; a note as large as we read one, and a proof with it."""
KEPT_PER_LOG: Final = 16
"""One proof convicts a log for ever; a key that makes more of them does not fill this disk."""

_SEEN = schema.misbehaviour.c


@dataclass(frozen=True, slots=True)
class Proof:
    """Two things that the log (`origin`, `vkey`) signed and that exclude one another.

    `parts` are the two in the order of their bytes; `seen_at` is when this node got them, in POSIX seconds.
    """

    kind: str
    origin: str
    vkey: str
    parts: tuple[bytes, bytes]
    seen_at: int


class Misbehaviour:
    """Proofs of misbehaviour of any log, mirrored here or not. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def keep(self, kind: str, origin: str, vkey: str, parts: Sequence[bytes]) -> bool:
        """Keep a checked proof; whether it was new.

        The two parts count as the same proof in either order. From the sixteenth proof on that convicts one log no
        more are kept. Raises Malformed.
        """
        if kind not in KINDS or len(parts) != 2 or max(map(len, parts)) > MAX_PART:
            raise Malformed("not a proof of misbehaviour", why="expected a known kind and two bounded parts")
        blob = _join(sorted(parts))
        digest = sha256(f"{kind}\n{vkey}\n".encode() + blob)
        with self._database.writing("misbehaviour") as connection:
            if self._is_known(connection, vkey, digest):
                return False
            connection.execute(
                insert(schema.misbehaviour).values(
                    kind=kind, origin=origin, vkey=vkey, proof=blob, digest=digest, seen_at=int(self._clock())
                )
            )
            return True

    def all(self, origin: str | None = None) -> list[Proof]:
        """Every proof kept, oldest first."""
        kept = select(_SEEN.kind, _SEEN.origin, _SEEN.vkey, _SEEN.proof, _SEEN.seen_at).order_by(_SEEN.id)
        if origin is not None:
            kept = kept.where(_SEEN.origin == origin)
        with self._database.reading() as connection:
            return [
                Proof(kind, origin, vkey, _parts(blob), seen_at)
                for kind, origin, vkey, blob, seen_at in connection.execute(kept)
            ]

    def _is_known(self, connection: Connection, vkey: str, digest: Digest) -> bool:
        same = connection.scalar(select(func.count()).where(_SEEN.digest == digest))
        of_this_log = connection.scalar(select(func.count()).where(_SEEN.vkey == vkey))
        return bool(same) or (of_this_log or 0) >= KEPT_PER_LOG


def _join(parts: Sequence[bytes]) -> bytes:
    return struct.pack(">I", len(parts[0])) + b"".join(parts)


def _parts(blob: bytes) -> tuple[bytes, bytes]:
    end = 4 + struct.unpack_from(">I", blob)[0]
    return blob[4:end], blob[end:]
