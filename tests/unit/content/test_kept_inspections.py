"""Answers of the inspection are made once for a file, its name and a version of the scanner; a changed one is known."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias

import pytest
from comity.content import inspections
from comity.content.blobs import FolderStore
from comity.content.inspections import KeptInspections
from comity.formats.inspect import inspect
from comity.node.inspector import worse_answers
from comity.trust.artifact import FileEntry
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound
from comity.trust.evidence import Inspection
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

DATA = pickle.dumps({"a": 1})
ENTRY = FileEntry("a/config.json", len(DATA), sha256(DATA))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "blobs")
    made.put(ENTRY.sha256, DATA)
    return made


Opened: TypeAlias = Callable[..., KeptInspections]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens the answers of a version; all are closed at the end."""
    with ExitStack() as stack:
        yield lambda **scanner: stack.enter_context(closing(KeptInspections(tmp_path / "kept.sqlite", **scanner)))


def test_an_answer_is_made_once(opened: Opened, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened()
    assert kept.kept(ENTRY.sha256, ENTRY.path) is None
    assert kept.inspect(store, ENTRY).active == ("pickle",)
    monkeypatch.delattr(inspections, "inspect_blob")
    again = opened()
    assert again.inspect(store, ENTRY) == again.kept(ENTRY.sha256, "other/config.json")
    assert again.kept(ENTRY.sha256, "config.yaml") is None, "the name decides how a text is interpreted"


CHUNK = b"\x28\xb5\x2f\xfd" + bytes(range(40))
PATHS = st.builds(
    "/".join,
    st.lists(st.sampled_from(["a.zarr", "B.ZARR", "c", "0", "0.0", "model.zarr.bak", "w.bin", "x"]), min_size=1),
)


@given(PATHS, PATHS, st.sampled_from([CHUNK, bytes(40), DATA]))
@settings(max_examples=examples(300))
def test_paths_share_an_answer_only_where_it_is_the_same(one: str, other: str, data: bytes) -> None:
    """A stranger who published a chunk of Zarr under another path decided what a gateway said about it."""
    digest = sha256(data)
    if inspections._key(digest, one) == inspections._key(digest, other):
        seen, again = (inspect(io.BytesIO(data), path, len(data)) for path in (one, other))
        assert seen == again


def test_changes_of_older_versions_leave_room_for_those_of_this_one(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspections, "MAX_CHANGED", 3)
    files = [sha256(b"%d" % number) for number in range(5)]
    counts = list[int]()
    for version in range(1, 4):
        kept = opened(scanner=version)
        for file in files:
            kept.keep(file, "config.json", Inspection(f"format {version}"))
        counts.append(len(kept.changed()))
    assert counts == [0, 3, 3]


def test_a_file_that_is_not_here_has_no_answer(tmp_path: Path, opened: Opened) -> None:
    kept = opened()
    with pytest.raises(NotFound):
        kept.inspect(FolderStore(tmp_path / "none"), ENTRY)
    assert kept.kept(ENTRY.sha256, ENTRY.path) is None


def test_a_newer_scanner_answers_again_and_what_it_changes_is_known(opened: Opened, store: FolderStore) -> None:
    older = opened(scanner=1)
    older.keep(ENTRY.sha256, ENTRY.path, Inspection("json"))
    older.keep(ENTRY.sha256, "same", Inspection("pickle", ("pickle",)))
    newer = opened(scanner=2)
    assert newer.kept(ENTRY.sha256, ENTRY.path) is None
    newer.inspect(store, ENTRY)
    newer.keep(ENTRY.sha256, "same", Inspection("pickle", ("pickle",)))
    (changed,) = newer.changed()
    assert (changed.file, changed.name, changed.was.format) == (ENTRY.sha256, "config.json", "json")
    ((_, reason),) = worse_answers([changed])
    assert reason.startswith("pickle")
    older.keep(ENTRY.sha256, ENTRY.path, Inspection("json"))
    assert newer.kept(ENTRY.sha256, ENTRY.path) == changed.now, "an older version replaces no newer answer"


def test_an_answer_that_becomes_better_is_no_alert() -> None:
    answer = inspections.ChangedAnswer(ENTRY.sha256, "a", Inspection("pickle", ("pickle",)), Inspection("json"))
    assert worse_answers([answer]) == []


def test_a_damaged_file_of_answers_is_made_again(tmp_path: Path, opened: Opened, store: FolderStore) -> None:
    (tmp_path / "kept.sqlite").write_bytes(b"not a database" * 100)
    assert opened().inspect(store, ENTRY).format == "pickle"
