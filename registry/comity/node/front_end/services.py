"""What a front end refuses, and the part of the charter's service that it serves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from comity.node.config import NodeConfig
from comity.node.epochs import EpochStore
from comity.node.services.charter import certified_epochs
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Refused
from comity.wire.access import Caller
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter


@dataclass(frozen=True, slots=True)
class WriterOnly:
    """Refuses what only the writer of the node does. `writer` is where it is reached, or empty."""

    writer: str

    @classmethod
    def of(cls, config: NodeConfig) -> WriterOnly:
        """By the setting `node.writer`; without it, by the addresses of the mutual port, which no front end has."""
        return cls(config.node.writer or ", ".join(config.advertise.mutual))

    def refusal(self) -> Refused:
        """The error to raise."""
        where = f"ask the writer of this node: {self.writer}" if self.writer else "ask the writer of this node"
        return Refused(
            "this front end only reads",
            why="it has no key to sign with, and writes nothing",
            hint=where,
            code="FRONT-END",
        )


class CharterEpochs:
    """Implements `CharterReads`: the certified epochs. Votes and drafts are at the writer, which computes the tally."""

    def __init__(self, ledger: AsyncLedger, epochs: EpochStore | None, writer: WriterOnly) -> None:
        self._ledger = ledger
        self._epochs = epochs
        self._writer = writer

    async def epochs(self, start: int) -> AsyncGenerator[Charter, None]:
        if self._epochs is None:
            raise NotFound("no such charter", why="this node belongs to no federation yet", code="NO-CHARTER")
        async for charter in certified_epochs(self._ledger, self._epochs, start):
            yield charter

    async def next_epoch_entries(self, prev: Digest | None) -> AsyncGenerator[LocatedEntry, None]:
        raise self._writer.refusal()
        yield

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        raise self._writer.refusal()

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        raise self._writer.refusal()
        yield
