"""Fetches the indexes of files of nodes (`ReadFileIndex`): what is new since the last time, or all.

Each answer ends with what its node signs about everything up to there, and is kept as soon as this was checked: a fetch
that was cut short is continued. Where a node has computed its index again, the new one takes the place of the old one
when it is complete, and only if it is not older.

Without names, the nodes whose indexes are here are asked again; if there is none, `FIRST` nodes of different members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.wire.client import NodeClient

from comity_client.identify.kept_indexes import IndexWriter, KeptIndex, KeptIndexes, require_not_older
from comity_client.session import RemoteNode, Session

FIRST: Final = 3
"""Nodes whose indexes are fetched at first: what one leaves out, another one says."""
LEAST: Final = 256 * 1024
"""Bytes of an answer after which there is another one: a shorter one is the end, whatever the node says that it has
more, such as what it made meanwhile."""
REPLACED: Final = "FILE-INDEX-REPLACED"


@frozen
class FetchedIndex:
    """What came of a fetch from one node. `before`: the index that was here; `now`: the one that is; `received`: bytes;
    `replaced`: the node had computed its index again, so that all of it was fetched; `problem`: why it is not what the
    node has."""

    node: str
    before: KeptIndex | None
    now: KeptIndex | None
    received: int
    replaced: bool = False
    problem: str = ""
    exit_status: int = 0


def choose_nodes(session: Session, indexes: KeptIndexes, names: Sequence[str]) -> list[RemoteNode]:
    """Raises NotFound, Conflict."""
    session.require_nodes()
    if names:
        return list(dict.fromkeys(map(session.named, names)))
    here = indexes.all().nodes
    if kept := [node for node in session.nodes if node.record.node.id in here]:
        return kept
    by_member = {node.member.id: node for node in session.soonest(session.nodes, len(session.nodes))}
    return list(by_member.values())[:FIRST]


async def fetch_indexes(
    session: Session,
    indexes: KeptIndexes,
    names: Sequence[str],
    *,
    again: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> list[FetchedIndex]:
    """Fetch from each of the nodes, one after the other; what fails is in the result. Raises NotFound, Conflict.

    Args:
        names: of nodes; empty as said above.
        again: fetch everything, and take it even if it is older than what is here.
    """
    with indexes.locked():
        return [await _Fetch(node, indexes, on_bytes).fetch(again) for node in choose_nodes(session, indexes, names)]


class _Fetch:
    """A fetch from one node."""

    def __init__(self, node: RemoteNode, indexes: KeptIndexes, on_bytes: Callable[[int], None]) -> None:
        self._node = node
        self._indexes = indexes
        self._on_bytes = on_bytes
        self._received = 0

    async def fetch(self, again: bool) -> FetchedIndex:
        before, replaced = self._kept(), False
        try:
            try:
                now = await self._fetch(None, again=again)
            except NotFound as error:
                if again or before is None or error.code != REPLACED:
                    raise
                replaced = True
                now = await self._fetch(before, again=True)
        except ComityError as error:
            problem = str(error), error.exit_status
            return FetchedIndex(self._node.name, before, self._kept(), self._received, replaced, *problem)
        return FetchedIndex(self._node.name, before, now, self._received, replaced)

    def _kept(self) -> KeptIndex | None:
        try:
            return self._indexes.of(self._node.record)
        except ComityError:
            return None  # it is damaged, and replaced; or why it cannot be read is the problem that is told

    async def _fetch(self, replaced: KeptIndex | None, *, again: bool) -> KeptIndex:
        """`replaced`: the index that this one takes the place of, unless it is older."""
        with self._indexes.writing(self._node.record, again=again) as writer:
            keep_parts = not again or self._kept() is None
            while True:
                start = writer.size
                line = await self._node.ask(lambda client: self._call(client, writer))
                state = writer.done(line)
                for earlier in filter(None, (writer.kept, replaced)):
                    require_not_older(state, earlier)
                ends = not state.later or writer.size - start < LEAST
                if keep_parts or ends:
                    kept = writer.keep(line)
                    if ends:
                        return kept

    async def _call(self, client: NodeClient, writer: IndexWriter) -> bytes:
        """One call: adds records, and returns the line of the state."""
        writer.back()
        line = b""
        async with aclosing(client.file_index(writer.count, writer.head)) as parts:
            async for part in parts:
                writer.add(part.records)
                self._received += len(part.records) + len(part.state)
                self._on_bytes(len(part.records))
                line = part.state or line
        return line
