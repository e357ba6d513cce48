"""The epochs of charters that were found certified here.

Whoever keeps an epoch has proven it (`comity.trust.charter.certify`). Epochs are kept for ever, those of a branch that
was not followed included: which branch is followed is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.trust.digest import Digest
from comity.trust.errors import NotFound

_EPOCH = schema.charter_epochs.c


@dataclass(frozen=True, slots=True)
class KeptEpoch:
    """A certified body, as bytes, and the lines that certify it."""

    federation: Digest
    epoch: int
    digest: Digest
    prev: Digest | None
    body: bytes
    certificate: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EpochName:
    """Which epoch a body is, and which body it follows."""

    digest: Digest
    epoch: int
    prev: Digest | None


class Epochs:
    """Certified epochs of any federation. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, kept: KeptEpoch) -> bool:
        """Keep an epoch; whether it was new. One that is here stays as it is."""
        same = (_EPOCH.federation == kept.federation, _EPOCH.digest == kept.digest)
        with self._database.writing("epoch") as connection:
            if connection.scalar(select(func.count()).where(*same)):
                return False
            connection.execute(
                insert(schema.charter_epochs).values(
                    federation=kept.federation,
                    epoch=kept.epoch,
                    digest=kept.digest,
                    prev=kept.prev,
                    body=kept.body,
                    certificate=_join(kept.certificate),
                )
            )
            return True

    def get(self, federation: Digest, digest: Digest) -> KeptEpoch:
        """Raises NotFound (NO-CHARTER)."""
        wanted = select(schema.charter_epochs).where(_EPOCH.federation == federation, _EPOCH.digest == digest)
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None:
            raise NotFound("no such charter", why=f"no body {digest} is here", code="NO-CHARTER")
        return KeptEpoch(row.federation, row.epoch, row.digest, row.prev, row.body, _split(row.certificate))

    def all(self, federation: Digest) -> list[EpochName]:
        """Every epoch of a federation, all branches, in the order in which they were found."""
        columns = (_EPOCH.digest, _EPOCH.epoch, _EPOCH.prev)
        wanted = select(*columns).where(_EPOCH.federation == federation).order_by(_EPOCH.id)
        with self._database.reading() as connection:
            return [EpochName(*row) for row in connection.execute(wanted)]


def _join(lines: Sequence[bytes]) -> bytes:
    """Lines hold no line feed."""
    return b"\n".join(lines)


def _split(text: bytes) -> tuple[bytes, ...]:
    return tuple(text.split(b"\n")) if text else ()
