"""Finds artifacts by the first bits of the digests of their files (`FindFiles`), in the node's index."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import Final

from comity.node.file_index import FileIndexReader, FilesFound
from comity.node.threads import Pools
from comity.trust.errors import Malformed
from comity.wire import limits
from comity.wire.files import FilePrefixes, FoundFiles

TOGETHER: Final = 64
"""Prefixes that are looked up in one step."""


class FileFinder:
    """Reads the index that a reader keeps. Not thread-safe: call from the event loop."""

    def __init__(self, reader: FileIndexReader, pools: Pools) -> None:
        self._reader = reader
        self._pools = pools

    async def find(self, asked: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        """As `ArtifactService.files`: first how much is indexed, then what was found. Raises Malformed
        (PREFIX-TOO-SHORT)."""
        state = await self._pools.files(self._state, asked.pieces)
        yield state
        expected = max(1, state.indexed >> asked.bits) * len(asked.prefixes)
        if expected > limits.FILES_ASKED:
            why = f"about {expected} of {state.indexed} files, at most {limits.FILES_ASKED}"
            raise Malformed("the prefixes stand for too many files", why=why, code="PREFIX-TOO-SHORT")
        for start in range(0, len(asked.prefixes), TOGETHER):
            some = replace(asked, prefixes=asked.prefixes[start : start + TOGETHER])
            found = await self._pools.files(self._reader.index.with_prefixes, some)
            for part in _messages(state, found):
                yield part

    def _state(self, pieces: bool) -> FoundFiles:
        """Blocking."""
        progress, index = self._reader.progress(), self._reader.index
        return FoundFiles(index.pieces if pieces else index.count, (progress.total or 0) - progress.done)


def _messages(state: FoundFiles, found: FilesFound) -> Iterator[FoundFiles]:
    """What was found, in messages of at most `2 * limits.FILES_PART` files."""
    some = limits.FILES_PART
    for start in range(0, max(len(found.of_members), len(found.of_others), len(found.cut)), some):
        members, others = (files[start : start + some] for files in (found.of_members, found.of_others))
        cut = tuple(found.cut[start : start + some])
        yield replace(state, of_members=b"".join(members), of_others=b"".join(others), cut=cut)
