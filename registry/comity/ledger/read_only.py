"""A ledger that another process writes: the database as a process sees it that takes no lock, migrates nothing and only
reads. What the writer commits is noticed by `following`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import Engine

from comity.ledger.database import NEWEST, ledger_newer
from comity.trust.errors import Refused, Unavailable

_HINT: Final = "start the writer of this ledger with this version of Comity first: it changes the tables"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a database found.

    Attributes:
        visible: names the set of transactions whose changes are visible.
        identity: as `Backing.identity`.
        revision: of the tables.
        writer: whether a process holds the writer's lock.
    """

    visible: str
    identity: str
    revision: str
    writer: bool


class ReadBacking(Protocol):
    """The database of a ledger for a process that only reads it: a factory for its connections."""

    def engine(self) -> Engine:
        """Create an engine whose transactions read one snapshot and cannot write."""

    def identity(self) -> str:
        """As `Backing.identity`."""

    def look(self) -> Look:
        """Raises Unavailable(code="LEDGER-FAILED")."""


class NoWriter:
    """The lock of a process that never writes."""

    def require(self) -> None:
        """Raises Refused(code="FRONT-END")."""
        raise Refused(
            "this process only reads the ledger",
            why="it is a front end, and a ledger has one writer",
            hint="ask the writer of this node",
            code="FRONT-END",
        )

    def release(self) -> None:
        """Nothing is held."""


def require_revision(found: str | None) -> None:
    """Raises Refused(code="LEDGER-OLDER" or "LEDGER-NEWER") unless the tables are those of this version."""
    if found == NEWEST:
        return
    if found is not None and found > NEWEST:
        raise ledger_newer(found)
    why = f"its tables have revision {found}, this version reads {NEWEST}" if found else "it has no tables yet"
    raise Refused("this ledger is not ready to be read", why=why, hint=_HINT, code="LEDGER-OLDER")


def replaced(why: str) -> Unavailable:
    return Unavailable(
        "the ledger was replaced by another one",
        why=why,
        hint="start this front end again: it reads the ledger that is there now",
        code="LEDGER-REPLACED",
    )
