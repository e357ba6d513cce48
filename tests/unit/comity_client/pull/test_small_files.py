"""The small files of a pull: what is here already, and what no source gives in a batch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from comity.transfer.fetch import FetchOptions
from comity.transfer.limits import TransferLimits
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable
from comity.wire.limits import SMALL_OBJECT
from comity_client.events import Event, FileDone, Progress
from comity_client.pull.first_files import FirstFiles
from comity_client.pull.placed_pieces import PlacedPieces
from comity_client.pull.small_files import SmallFiles, is_small, whole_record
from support.sources import source_key

DATA = {"a.txt": b"first", "b.txt": b"second", "c.txt": b"third", "empty.txt": b""}
ENTRIES = [FileEntry(path, len(data), sha256(data)) for path, data in DATA.items()]


class Node:
    """A source that has these files, or fails."""

    def __init__(self, files: Sequence[bytes], failure: ComityError | None = None) -> None:
        self.name = "node"
        self.key = self.host = source_key("node")
        self.files = {sha256(data): data for data in files}
        self.failure = failure
        self.asked: list[Digest] = []

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        self.asked += digests
        for digest in digests:
            if digest in self.files:
                yield digest, self.files[digest]
        if self.failure:
            raise self.failure


class Scene:
    """A destination, an index of placed files, and the events of a fetch."""

    def __init__(self, folder: Path) -> None:
        self.incoming, self.places, self.index = (folder / name for name in ("incoming", "places", "index"))
        for made in (self.incoming, self.places, self.index):
            made.mkdir()
        self.placed = PlacedPieces(self.index)
        self.events: list[Event] = []
        self.first = FirstFiles()
        self.small = SmallFiles(self.incoming, lambda entry: self.places / entry.path, self.placed, self.events.append)

    async def fetch(self, node: Node) -> list[str]:
        """Returns the paths that the node does not give."""
        options = FetchOptions(limits=TransferLimits(read_timeout=0.1, patience=0.3, first_delay=0.01, max_delay=0.05))
        return [entry.path for entry in await self.small.fetch(ENTRIES, [node], options, self.first)]

    def brought(self) -> dict[str, bytes]:
        """The files in `incoming`, by path."""
        paths = {entry.sha256: entry.path for entry in ENTRIES}
        return {paths[Digest(path.name)]: path.read_bytes() for path in self.incoming.iterdir()}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_only_what_is_nowhere_here_is_asked_for(scene: Scene, tmp_path: Path) -> None:
    (scene.incoming / ENTRIES[0].sha256).write_bytes(b"first")
    other = tmp_path / "other.txt"
    other.write_bytes(b"second")
    scene.placed.remember(other, [whole_record(ENTRIES[1])])
    node = Node([b"third"])
    assert await scene.fetch(node) == []
    assert (node.asked, scene.brought()) == ([sha256(b"third")], DATA)
    tally = scene.small.tally
    assert (tally.resumed, tally.reused, tally.by_node) == (len(b"first"), len(b"second"), {"node": len(b"third")})
    assert {event.path for event in scene.events if isinstance(event, FileDone)} == DATA.keys()
    assert sum(event.count for event in scene.events if isinstance(event, Progress)) == sum(map(len, DATA.values()))


async def test_what_was_asked_for_first_is_taken_and_not_fetched_again(scene: Scene) -> None:
    async def read(digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        raise AssertionError("a small file comes with others")
        yield b""

    early, node = Node([b"first", b"second"]), Node([b"third"])
    early.read = read  # type: ignore[attr-defined]
    scene.first.begin([early], ENTRIES[:2])  # type: ignore[list-item]
    assert await scene.fetch(node) == []
    await scene.first.close()
    assert (node.asked, scene.brought()) == ([sha256(b"third")], DATA)
    assert scene.small.tally.by_node == {"node": len(b"firstsecondthird")}


async def test_what_another_pull_has_placed_is_neither_fetched_nor_written(scene: Scene) -> None:
    for path, data in DATA.items():
        (scene.places / path).write_bytes(data)
    node = Node([])
    assert await scene.fetch(node) == []
    assert (node.asked, set(scene.brought())) == ([], {"empty.txt"})


async def test_changed_bytes_of_an_earlier_attempt_or_of_a_placed_file_are_fetched_again(
    scene: Scene, tmp_path: Path
) -> None:
    (scene.incoming / ENTRIES[0].sha256).write_bytes(b"torn!")
    (scene.places / "b.txt").write_bytes(b"SECOND")
    other = tmp_path / "other.txt"
    other.write_bytes(b"third")
    scene.placed.remember(other, [whole_record(ENTRIES[2])])
    other.write_bytes(b"THIRD")
    assert await scene.fetch(Node([b"first", b"second", b"third"])) == []
    assert scene.brought() == DATA


@pytest.mark.parametrize("failure", [None, NotFound("gone"), Refused("no")])
async def test_what_no_source_gives_in_a_batch_is_left_for_another_way(
    scene: Scene, failure: ComityError | None
) -> None:
    assert await scene.fetch(Node([], failure)) == ["a.txt", "b.txt", "c.txt"]


async def test_a_source_that_fails_all_the_time_ends_the_fetch(scene: Scene) -> None:
    with pytest.raises(Unavailable) as raised:
        await scene.fetch(Node([], Unavailable("not now")))
    assert raised.value.code == "PATIENCE"


def test_a_file_is_small_as_far_as_nodes_give_it_with_others() -> None:
    sizes = [0, 1, SMALL_OBJECT, SMALL_OBJECT + 1]
    assert [is_small(FileEntry("x", size, sha256(b""))) for size in sizes] == [True, True, True, False]
