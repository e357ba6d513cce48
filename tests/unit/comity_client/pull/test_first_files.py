"""What is asked for before the verdict: which files, in which shares, and what is taken when nodes lie or are slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.wire.limits import SMALL_OBJECT
from comity_client.pull import first_files as module
from comity_client.pull.first_files import LEAST_SHARE, MOST, SHARES, ArrivedFile, first_files, first_of, shared
from hypothesis import example, given
from hypothesis import strategies as st
from support.sources import source_key

LARGE = bytes(range(256)) * 3000  # comes in parts
SMALL = b"a small file"
FILES = {"model.safetensors": LARGE, "config.json": SMALL, "empty.txt": b""}
ENTRIES = [FileEntry(path, len(data), sha256(data)) for path, data in FILES.items()]
MODEL, CONFIG, EMPTY = ENTRIES


class Node:
    """An honest source."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = self.host = source_key(name)
        self.asked: list[Digest] = []
        self.files = {sha256(data): data for data in FILES.values()}

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        self.asked += digests
        for digest in digests:
            yield digest, self.files[digest]

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        self.asked.append(digest)
        data = self.files[digest][offset : offset + length]
        for start in range(0, length, 50_000):
            yield data[start : start + 50_000]


class Wrong(Node):
    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        yield bytes(length)

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        for digest in digests:
            yield digest, bytes(len(self.files[digest]))


class Foreign(Node):
    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        yield bytes(length + 1)

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        yield sha256(b"not asked for"), b"not asked for"


class Short(Node):
    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        yield bytes(length - 1)

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        return
        yield


class Failing(Node):
    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        raise Unavailable("not now")
        yield

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        raise NotFound("not here")
        yield


class Silent(Node):
    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        await asyncio.Event().wait()
        yield digests[0], b""


class Dripping(Node):
    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        for at in range(offset, offset + length):
            await asyncio.sleep(0.002)
            yield self.files[digest][at : at + 1]


async def taken(nodes: Sequence[Node], entries: Sequence[FileEntry] = ENTRIES) -> list[ArrivedFile | None]:
    async with first_files() as first:
        first.begin(nodes, entries)
        return [await first.take(entry) for entry in entries]


async def test_files_come_from_several_nodes_each_a_share() -> None:
    nodes = [Node("a"), Node("b"), Node("c")]
    model, config, empty = await taken(nodes)
    assert model and config and not empty
    assert (model.data, config.data) == (LARGE, SMALL)
    assert {key: size > LEAST_SHARE for key, size in model.by_source.items()} == {node.key: True for node in nodes}
    assert sum(model.by_source.values()) == len(LARGE)
    assert sum(config.by_source.values()) == len(SMALL)


async def test_a_file_is_given_once_and_only_if_it_was_asked_for() -> None:
    async with first_files() as first:
        assert await first.take(CONFIG) is None
        first.begin([Node("a")], [CONFIG])
        assert await first.take(CONFIG) and await first.take(CONFIG) is None
        first.begin([], [MODEL])
        assert await first.take(MODEL) is None


@pytest.mark.parametrize("kind", [Wrong, Foreign, Short, Failing, Silent, Dripping])
@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
async def test_what_one_node_spoils_is_not_given_and_the_rest_is(
    monkeypatch: pytest.MonkeyPatch, kind: type[Node], path: str
) -> None:
    monkeypatch.setattr(module, "STILL", 0.05)
    monkeypatch.setattr(module, "LONGEST", 0.1)
    entry = next(entry for entry in ENTRIES if entry.path == path)
    (alone,) = await taken([kind("bad")], [entry])
    assert alone is None or (kind is Dripping and entry is CONFIG)
    model, config, _ = await taken([Node("good"), kind("bad")])
    assert model is None
    assert config and set(config.by_source) == {source_key("good")}


async def test_what_nobody_takes_ends_with_the_block() -> None:
    node = Silent("silent")
    async with first_files() as first:
        first.begin([node], ENTRIES)
        await asyncio.sleep(0)
        running = len(asyncio.all_tasks())
    assert len(asyncio.all_tasks()) < running
    async with first_files() as first:  # and what has not begun yet
        first.begin([node], ENTRIES)
    assert node.asked == []


async def test_what_is_given_up_is_asked_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STILL", 0.05)
    before = len(asyncio.all_tasks())
    async with first_files() as first:
        first.begin([Silent("silent")], ENTRIES)
        assert await first.take(MODEL) is None
        assert len(asyncio.all_tasks()) == before


async def test_many_small_files_are_asked_for_in_calls_of_what_a_node_answers() -> None:
    files = {f"{number}.txt": b"%d" % number for number in range(300)}
    node, calls = Node("a"), list[int]()
    node.files = {sha256(data): data for data in files.values()}
    real = node.objects

    def counted(digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        calls.append(len(digests))
        return real(digests)

    node.objects = counted  # type: ignore[method-assign]
    found = await taken([node], [FileEntry(path, len(data), sha256(data)) for path, data in files.items()])
    assert [each and each.data for each in found] == list(files.values())
    assert calls == [256, 44]


entries = st.lists(st.sampled_from([0, 1, 1000, SMALL_OBJECT, SMALL_OBJECT + 1, 700_000, MOST, MOST + 1]), max_size=40)


@given(entries, st.integers(1, 9))
def test_the_shares_are_the_first_files_once_and_a_small_one_is_whole(sizes: list[int], sources: int) -> None:
    listed = [FileEntry(str(number), size, sha256(b"%d" % number)) for number, size in enumerate(sizes)]
    chosen = first_of([*listed, *listed])
    assert sum(entry.size for entry in chosen) <= MOST and all(entry.size for entry in chosen)
    assert len({entry.sha256 for entry in chosen}) == len(chosen)
    assert not chosen or len(chosen) < len(listed) or sum(sizes) <= MOST
    shares = shared(chosen, sources)
    assert len(shares) <= min(sources, SHARES)
    for entry in chosen:
        parts = sorted(
            (part for share in shares for part in share if part.entry is entry), key=lambda part: part.offset
        )
        assert [part.offset for part in parts] == [sum(p.length for p in parts[:n]) for n in range(len(parts))]
        assert sum(part.length for part in parts) == entry.size
        assert len(parts) == 1 or all(not part.small and part.length >= LEAST_SHARE for part in parts)


@example([SMALL_OBJECT] * 5, 3)
@given(entries, st.integers(2, 4))
def test_no_share_is_much_larger_than_the_others(sizes: list[int], sources: int) -> None:
    listed = [FileEntry(str(number), size, sha256(b"%d" % number)) for number, size in enumerate(sizes)]
    chosen = first_of(listed)
    shares = shared(chosen, sources)
    fair = sum(entry.size for entry in chosen) / max(1, len(shares))
    assert all(sum(part.length for part in share) <= fair + SMALL_OBJECT + LEAST_SHARE for share in shares)
