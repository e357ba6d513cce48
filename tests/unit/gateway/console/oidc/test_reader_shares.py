"""Readers whose requests make a node fetch: those of one address block do not use the share of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.content.blobs import FolderStore
from comity.gateway.console.oidc.provider import OpenIdProvider
from comity.node.importing import read_through
from comity.node.importing.read_through import ReadThroughImports
from comity.node.replication import on_demand
from comity.node.replication.files import FileDownloads
from comity.node.replication.on_demand import OnDemandFetch
from comity.node.settings import ReadThrough
from comity.trust.artifact import FileEntry
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound
from comity.wire.access import BLOCK
from comity.wire.throttle import FairShares


def as_block(block: str, work: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
    """Run a request of a reader in an address block."""

    async def run() -> Any:
        BLOCK.set(block)
        try:
            return await work()
        except ComityError as error:
            return error.code

    return asyncio.create_task(run())


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class InThisThread:
    """A replacement of a node's thread pools."""

    async def files(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class EndlessFetcher:
    """A `FileFetcher` whose files never arrive; `asked` are the paths that it was told to fetch."""

    def __init__(self) -> None:
        self.downloads = FileDownloads()
        self.asked: list[str] = []

    async def require_objects(self, objects: object) -> None:
        pass

    async def fetch(self, files: Any, **_: object) -> None:
        self.asked.append(files[0][0].path)
        await asyncio.Event().wait()


def published_with(index: bytes) -> Any:
    pieces = SimpleNamespace(digest=sha256(index))
    return SimpleNamespace(artifact=sha256(b"artifact"), pieces=pieces, manifest=pieces, name="a/b@v1")


def cold_reads(
    tmp_path: Path, size: Callable[[str], int] = lambda path: 5
) -> tuple[OnDemandFetch, EndlessFetcher, Callable[[str], Awaitable[bytes]]]:
    fetcher = EndlessFetcher()

    async def never(_: object) -> bool:
        return False

    fetch = OnDemandFetch(
        FolderStore(tmp_path / "store"),
        cast(Any, InThisThread()),
        lambda name: False,
        cast(Any, fetcher),
        never,
        reserve_bytes=0,
    )
    published = published_with(b"index")
    layouts: dict[str, Any] = {}
    fetch._indexes[published.pieces.digest] = layouts

    async def read(path: str) -> bytes:
        layouts[path] = f"layout of {path}"
        entry = FileEntry(path, size(path), sha256(path.encode()))
        async with aclosing(fetch.read(cast(Any, published), entry, 0, 5)) as parts:
            return await anext(parts)

    return fetch, fetcher, read


async def test_files_of_one_block_leave_slots_for_another_block(tmp_path: Path) -> None:
    fetch, fetcher, read = cold_reads(tmp_path)
    many = on_demand.MAX_WAITING + on_demand.MAX_CONCURRENT + 10
    greedy = [as_block("192.0.2.0/24", partial(read, f"g{number}")) for number in range(many)]
    await settle()
    assert len(fetcher.asked) == on_demand.MAX_OF_A_BLOCK
    refused = [task for task in greedy if task.done()]
    assert refused
    assert {task.result() for task in refused} == {"COLD-BUSY"}
    other = as_block("198.51.100.0/24", partial(read, "honest"))
    await settle()
    assert "honest" in fetcher.asked
    await stop(other, *greedy)
    await fetch.close()


async def test_above_the_bound_the_block_with_most_waiting_files_loses_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, bound in (("MAX_CONCURRENT", 3), ("MAX_OF_A_BLOCK", 2), ("MAX_WAITING", 4)):
        monkeypatch.setattr(on_demand, name, bound)
    fetch, fetcher, read = cold_reads(tmp_path)
    readers: dict[str, asyncio.Task[Any]] = {}
    for name in ("a0", "a1", "b0", "a2", "a3", "a4", "b1"):
        readers[name] = as_block(name[0], partial(read, name))
        await settle()
    assert fetcher.asked == ["a0", "a1", "b0"]
    assert [name for name, task in readers.items() if task.done()] == []
    readers["c0"] = as_block("c", partial(read, "c0"))
    await settle()
    assert {name: task.result() for name, task in readers.items() if task.done()} == {"a2": "GIVEN-UP"}
    await stop(*readers.values())
    await fetch.close()


async def test_downloads_of_two_blocks_keep_no_slot_from_a_third_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member with a slow node publishes files, and readers in two blocks ask for them: each could last for hours."""
    for name, bound in (("MAX_CONCURRENT", 3), ("MAX_OF_A_BLOCK", 2)):
        monkeypatch.setattr(on_demand, name, bound)
    fetch, fetcher, read = cold_reads(tmp_path)
    readers = [as_block(name[0], partial(read, name)) for name in ("a0", "a1", "b0", "a2")]
    await settle()
    assert fetcher.asked == ["a0", "a1", "b0"]
    early = as_block("c", partial(read, "early"))
    await settle()
    assert (early.done(), [reader.done() for reader in readers]) == (False, [False] * 4), "each has its turn"
    monkeypatch.setattr(on_demand, "TURN", -1.0)
    again = as_block("c", partial(read, "early"))
    await settle()
    assert fetcher.asked == ["a0", "a1", "b0", "early"]
    assert [reader.result() if reader.done() else "" for reader in readers] == ["GIVEN-UP", "", "", ""]
    other = as_block("d", partial(read, "late"))
    await settle()
    assert (other.done(), len(fetcher.asked)) == (False, 4), "each of the others has one"
    await stop(early, again, other, *readers)
    await fetch.close()


async def test_files_that_one_block_asks_for_keep_no_space_from_another_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of a file costs its publisher nothing."""
    sizes = {"huge0": 600, "huge1": 300, "small": 150, "large": 950, "more": 60}
    fetch, fetcher, read = cold_reads(tmp_path, sizes.__getitem__)
    monkeypatch.setattr(FolderStore, "free_bytes", lambda self: 1_000)
    huge = [as_block("a", partial(read, name)) for name in ("huge0", "huge1")]
    await settle()
    small = as_block("b", partial(read, "small"))
    await settle()
    assert fetcher.asked == ["huge0", "huge1", "small"]
    assert [reader.result() if reader.done() else "" for reader in (*huge, small)] == ["GIVEN-UP", "", ""]
    large, again = as_block("c", partial(read, "large")), as_block("a", partial(read, "huge0"))
    await settle()
    assert [reader.result() for reader in (large, again)] == ["OUT-OF-SPACE"] * 2, "others have less than these ask"
    more = as_block("a", partial(read, "more"))
    await settle()
    assert fetcher.asked[3:] == ["more"]
    assert not small.done() and not huge[1].done()
    await stop(small, more, *huge)
    await fetch.close()


async def test_a_piece_index_is_read_once_for_all_its_files_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "MAX_LAYOUTS", 100)
    fetch, _, _ = cold_reads(tmp_path)
    read: list[object] = []
    files = tuple((f"f{number}", f"layout {number}") for number in range(40))

    def read_artifact(store: object, manifest: object, pieces: object) -> Any:
        read.append(pieces)
        return None, SimpleNamespace(files=files)

    monkeypatch.setattr(on_demand, "read_artifact", read_artifact)
    every = [FileEntry(path, 5, sha256(path.encode())) for path, _ in files]
    layouts = await asyncio.gather(*(fetch._layout(published_with(b"one"), entry) for entry in every))
    assert [str(layout) for layout in layouts] == [layout for _, layout in files]
    assert len(read) == 1
    for index in (b"two", b"three", b"one"):
        await fetch._layout(published_with(index), every[0])
    assert len(read) == 4, "the least recently used one was dropped"
    with pytest.raises(NotFound):
        await fetch._layout(published_with(b"one"), FileEntry("other", 5, sha256(b"other")))
    await fetch.close()


class EndlessImporter:
    """An `Importer` whose upstream never answers; its requests are in `pinned` and `mirrored`."""

    def __init__(self) -> None:
        self.pinned: list[str] = []
        self.mirrored: list[str] = []

    async def pin(self, order: Any, counter: object) -> Any:
        self.pinned.append(order.wanted.revision)
        await asyncio.Event().wait()

    async def mirror(self, order: Any, revision_info: object, counter: object, observer: object) -> None:
        self.mirrored.append(order.wanted.repository)
        await asyncio.Event().wait()


def reading_through() -> tuple[ReadThroughImports, EndlessImporter]:
    importer = EndlessImporter()
    settings = ReadThrough(allow=("*/*",))
    return ReadThroughImports(settings, cast(Any, importer), enabled=True), importer


async def test_revisions_of_one_block_leave_slots_for_another_block() -> None:
    imports, importer = reading_through()
    greedy = [
        as_block("192.0.2.0/24", partial(imports.pin, "org/model", f"r{number}"))
        for number in range(read_through.MAX_PINS + 10)
    ]
    await settle()
    assert {task.result() for task in greedy if task.done()} == {"COLD-BUSY"}
    other = as_block("198.51.100.0/24", partial(imports.pin, "org/model", "honest"))
    await settle()
    assert importer.pinned == ["r0", "honest"]
    assert sum(task.done() for task in greedy) == 10, "the slot was free, so no holder lost one"
    await stop(other, *greedy)
    await imports.close()


async def test_a_displaced_revision_is_an_error_that_asks_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_through, "MAX_PINS", 3)
    imports, importer = reading_through()
    readers: dict[str, asyncio.Task[Any]] = {}
    for name in ("a0", "a1", "a2", "a3", "b0", "c0"):
        readers[name] = as_block(name[0], partial(imports.pin, "org/model", name))
        await settle()
    assert importer.pinned == ["a0", "b0"]
    assert {name: task.result() for name, task in readers.items() if task.done()} == {"a1": "COLD-BUSY"}
    again = as_block("a", partial(imports.pin, "org/model", "a1"))
    await settle()
    assert again.done(), "its block has the most"
    await stop(*readers.values())
    await imports.close()


async def test_many_cached_revisions_refuse_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_through, "MAX_PINS", 3)
    imports, importer = reading_through()

    async def at_once(order: Any, counter: object) -> Any:
        importer.pinned.append(order.wanted.revision)
        return SimpleNamespace(upstream=SimpleNamespace(repository="org/model"))

    monkeypatch.setattr(importer, "pin", at_once)
    for number in range(10):
        await imports.pin("org/model", f"r{number}")
    await imports.pin("org/model", "r9")
    assert importer.pinned == [f"r{number}" for number in range(10)]
    await imports.close()


def revision(repository: str) -> Any:
    upstream = SimpleNamespace(repository=repository, commit="c" * 40, requested="main", name=repository)
    return SimpleNamespace(upstream=upstream)


async def test_imports_of_one_block_leave_slots_for_another_block() -> None:
    imports, importer = reading_through()

    async def described(name: str) -> object:
        return await imports.import_of(revision(name)).described()

    greedy = [
        as_block("192.0.2.0/24", partial(described, f"org/m{number}")) for number in range(read_through.MAX_WAITING + 5)
    ]
    await settle()
    assert importer.mirrored == ["org/m0"]
    other = as_block("198.51.100.0/24", partial(described, "org/honest"))
    await settle()
    assert importer.mirrored == ["org/m0", "org/honest"]
    third = as_block("203.0.113.0/24", partial(described, "org/waits"))
    await settle()
    assert not third.done()
    assert "GIVEN-UP" not in {task.result() for task in greedy if task.done()}, "one place was free"
    fourth = as_block("203.0.113.0/24", partial(described, "org/waits-too"))
    await settle()
    assert not fourth.done()
    assert [task.result() for task in greedy if task.done()].count("GIVEN-UP") == 1
    await imports.close()
    await settle()
    assert other.result() == third.result() == fourth.result() == "GIVEN-UP"
    await stop(*greedy)


def test_no_holder_of_the_own_block_loses_its_slot() -> None:
    shares: FairShares[str] = FairShares(3, lambda: 0.0)
    for item, block in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        assert shares.acquire_from_others(item, block) is None
    assert shares.acquire_from_others("a3", "a") == "a3"
    assert shares.acquire_from_others("b2", "b") == "b2", "it would have as many as the other block"
    assert shares.acquire_from_others("c1", "c") == "a1"
    assert len(shares) == 3
    assert [shares.block_size(block) for block in "abc"] == [1, 1, 1]


async def test_sign_ins_of_one_block_leave_slots_for_another_block(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = OpenIdProvider(cast(Any, None), cast(Any, None), cast(Any, None), lambda: 0.0, lambda: 0.0)
    asked: list[str] = []

    async def known() -> object:
        return SimpleNamespace(metadata=None)

    async def exchange(metadata: object, code: str, verifier: str, redirect: str) -> None:
        asked.append(code)
        await asyncio.Event().wait()

    monkeypatch.setattr(provider, "_known", known)
    monkeypatch.setattr(provider, "_exchange", exchange)
    begin = partial(provider.person, verifier="", nonce="", redirect="")
    greedy = [as_block("192.0.2.0/24", partial(begin, f"g{number}")) for number in range(20)]
    await settle()
    assert {task.result() for task in greedy if task.done()} == {"OIDC-PROVIDER"}
    other = as_block("198.51.100.0/24", partial(begin, "honest"))
    await settle()
    assert asked == ["g0", "g1", "honest"]
    await stop(other, *greedy)
