"""`FindFiles`: what the index has, in messages of bounded size, and what it has not read yet."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.file_index import FilesFound
from comity.node.reading import ReadState
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.files import TOGETHER, FileFinder
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.codec import MessageCodec
from comity.wire.files import FilePrefixes, FoundFiles, file_pair, file_pairs

ARTIFACT = sha256(b"artifact")


class Pools:
    async def files(self, work: Any, *arguments: Any) -> Any:
        return work(*arguments)


class Index:
    """An index in which each prefix has some files of one artifact."""

    def __init__(self, count: int, each: int, cut: Sequence[int] = ()) -> None:
        self.count, self.each, self.cut, self.asked = count, each, cut, list[int]()

    def with_prefixes(self, asked: FilePrefixes) -> FilesFound:
        self.asked.append(len(asked.prefixes))
        files = [file_pair(bytes(16), ARTIFACT) for _ in asked.prefixes for _ in range(self.each)]
        return FilesFound(files, files[1:], [each for each in self.cut if each in asked.prefixes])


async def find(index: Index, asked: FilePrefixes, done: int = 5, total: int = 5) -> list[FoundFiles]:
    reader: Any = SimpleNamespace(index=index, progress=lambda: ReadState(done, total))
    pools: Any = Pools()
    return [part async for part in FileFinder(reader, pools).find(asked)]


async def test_an_answer_begins_with_what_is_indexed_and_what_is_not_read_yet() -> None:
    (only,) = await find(Index(40, 1), FilePrefixes(9), 3, 5)
    assert only == FoundFiles(40, 2)


async def test_prefixes_are_looked_up_some_at_a_time_and_cut_ones_are_named() -> None:
    index, asked = Index(5_000, 2, cut=[3]), FilePrefixes(12, tuple(range(2 * TOGETHER + 1)))
    first, *parts = await find(index, asked)
    assert index.asked == [TOGETHER, TOGETHER, 1]
    assert sum(len(list(file_pairs(part.of_members))) for part in parts) == 2 * len(asked.prefixes)
    assert sum(len(list(file_pairs(part.of_others))) for part in parts) == 2 * len(asked.prefixes) - len(parts)
    assert [part.cut for part in parts] == [(3,), (), ()]
    assert first == FoundFiles(5_000, 0)


async def test_many_files_are_in_messages_that_may_be_sent() -> None:
    codec = MessageCodec(FoundFiles, artifact_pb2.FoundFiles)
    parts = await find(Index(10**6, limits.PREFIX_FILES), FilePrefixes(14, tuple(range(TOGETHER))))
    assert len(parts) == 1 + TOGETHER * limits.PREFIX_FILES // limits.FILES_PART
    for part in parts:
        assert codec.encode(part).ByteSize() < limits.MESSAGE / 2
        assert codec.decode(codec.encode(part)) == part


@pytest.mark.parametrize(("bits", "prefixes", "refused"), [(20, 1_000, False), (7, 1, True), (16, 1_000, True)])
async def test_prefixes_that_stand_for_too_many_files_are_refused(bits: int, prefixes: int, refused: bool) -> None:
    asked = FilePrefixes(bits, tuple(range(prefixes)))
    if not refused:
        assert len(await find(Index(10**7, 1), asked)) > 1
        return
    with pytest.raises(Malformed) as error:
        await find(Index(10**7, 1), asked)
    assert error.value.code == "PREFIX-TOO-SHORT"


async def test_a_front_end_says_that_it_has_read_nothing() -> None:
    async def read(work: Any) -> Any:
        return work()

    tables = SimpleNamespace(proven=SimpleNamespace(last_number=lambda: 12), proven_times=None)
    ledger: Any = SimpleNamespace(tables=tables, read=read)
    service = ArtifactServicer(ledger, None, None)  # type: ignore[arg-type]
    assert [part async for part in service.files(FilePrefixes(4, (1,)))] == [FoundFiles(0, 12)]
