"""`ReadFileIndex`: records in bounded answers, each with what the node signs about all up to its end."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.file_index import FileIndex, IndexedArtifact
from comity.node.keys import NodeSigner
from comity.node.projection import Position
from comity.node.reading import ReadState
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.index_records import SIGNED_FOR, FileIndexSender
from comity.rules.file_records import START, FileIndexState, check_state, next_head, read_records
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Refused
from comity.wire import limits
from comity.wire.files import FileIndexPart, file_reference
from support.world import identity, node


class Scene:
    """A node with an index, whose clock and logs are set."""

    def __init__(self, folder: Path) -> None:
        self.node = node(identity("CH"))
        self.index = FileIndex(folder / "files.sqlite", "basis")
        weakref.finalize(self, self.index.close)
        self.heads: dict[str, tuple[int, bytes]] = {"log": (7, b"")}
        self.progress = ReadState(3, 3)
        self.now = 1_000.0
        self.signed = 0
        tables = SimpleNamespace(
            logs=SimpleNamespace(heads=lambda: self.heads), intake=SimpleNamespace(entries_processed=lambda: (7, 9))
        )
        signer = NodeSigner(self.node.record, self.node.online)
        reader: Any = SimpleNamespace(index=self.index, progress=lambda: self.progress)
        ledger: Any = SimpleNamespace(tables=tables, read=self._run)
        pools: Any = SimpleNamespace(files=self._run)
        self.sender = FileIndexSender(reader, ledger, pools, signer, lambda: self.now)

    async def _run(self, work: Any, *arguments: Any) -> Any:
        self.signed += work.__name__ == "sign_state"
        return work(*arguments)

    def add(self, *numbers: int) -> None:
        made = [
            IndexedArtifact(sha256(b"%d" % each), 0, frozenset({file_reference(sha256(b"file"))}), "a/b@v1")
            for each in numbers
        ]
        self.index.add(made, Position(1, "s"))

    async def ask(self, after: int = 0, head: bytes = START) -> tuple[list[bytes], FileIndexState]:
        """What one call gives: records, and the state, which is checked."""
        *parts, last = [part async for part in self.sender.send(after, head)]
        records = [data for part in parts for _, data in read_records(part.records)]
        state, _ = check_state(last.state, [self.node.record])
        for each in records:
            head = next_head(head, each)
        assert (state.head, state.records) == (Digest(head.hex()), after + len(records))
        return records, state


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with closing(made.index):
        yield made


async def test_an_answer_has_all_records_and_then_those_that_are_new(scene: Scene) -> None:
    scene.add(1, 2, 3)
    records, state = await scene.ask()
    assert (len(records), state.later, state.logs, state.time) == (3, 0, (("log", 7),), 1_000)
    scene.add(4)
    new, then = await scene.ask(state.records, bytes.fromhex(state.head))
    assert (len(new), then.records) == (1, 4)


async def test_an_answer_ends_at_a_bound_and_the_next_one_continues(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.add(*range(10))
    one = len(scene.index.records(0, START, 10**6).data) // 10
    monkeypatch.setattr(limits, "INDEX_PART", 2 * one)
    monkeypatch.setattr(limits, "INDEX_CALL", 5 * one)
    sizes = [len(part.records) // one async for part in scene.sender.send(0, START)]
    assert sizes == [2, 2, 1, 0]
    records, state = await scene.ask()
    rest, end = await scene.ask(state.records, bytes.fromhex(state.head))
    assert (len(records), state.later, len(rest), end.later, end.records) == (5, 5, 5, 0, 10)


async def test_what_is_unread_is_said(scene: Scene) -> None:
    scene.progress = ReadState(3, 8)
    _, state = await scene.ask()
    assert (state.unread, state.complete) == (5 + 2, False)  # statements, and entries before them


async def test_a_caller_who_asks_again_makes_the_node_sign_once_a_minute(scene: Scene) -> None:
    scene.add(1)
    _, state = await scene.ask()
    end = (state.records, bytes.fromhex(state.head))
    for _ in range(5):
        await scene.ask(*end)
    assert scene.signed == 1
    scene.now += SIGNED_FOR
    _, later = await scene.ask(*end)
    assert (scene.signed, later.time) == (2, 1_060)
    scene.add(2)
    assert (await scene.ask(*end))[1].records == 2
    assert scene.signed == 3


async def test_records_of_another_index_are_not_continued(scene: Scene) -> None:
    scene.add(1)
    _, state = await scene.ask()
    scene.index.begin_again("another basis")
    with pytest.raises(NotFound, match="other records"):
        await scene.ask(state.records, bytes.fromhex(state.head))
    assert await anext(scene.sender.send(0, START))


async def test_a_front_end_leaves_it_to_the_writer() -> None:
    service = ArtifactServicer(SimpleNamespace(tables=SimpleNamespace(proven=None, proven_times=None)), None, None)  # type: ignore[arg-type]
    parts: AsyncGenerator[FileIndexPart, None] = service.file_index(0, START)
    with pytest.raises(Refused) as refused:
        await anext(parts)
    assert refused.value.code == "FRONT-END"
