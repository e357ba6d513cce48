"""What is done for a folder grows with its entries and no faster: steps of Python code are counted, not seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity_client.file_state import SETTLED_SECONDS
from comity_client.identify import disk
from comity_client.identify.disk import HashCache
from comity_client.identify.identify import Identified, hash_paths, locate
from comity_client.identify.judging import KnownArtifact
from comity_client.identify.match import match
from comity_client.identify.sarif import sarif_of
from comity_client.inventory.differences import differences
from comity_client.inventory.inventory import Inventory
from comity_client.inventory.taking import TakenAt, make_inventory

pytestmark = pytest.mark.slow

FEW, TIMES = 250, 4
PUBLISHED = 10
"""One of so many files is an artifact of its own; another one is a copy of a licence that they all have."""
LICENCE = b"licence of all"


def steps(work: Callable[[], object]) -> int:
    """Instructions of the interpreter in the product, in all threads."""
    counted = 0

    def trace(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal counted
        if "comity_client" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
        threading.settrace(None)
    return counted


def tree(root: Path, count: int) -> dict[Digest, Manifest]:
    """A folder of so many files, and the artifacts that some of them are."""
    root.mkdir()
    found = dict[Digest, Manifest]()
    for number in range(count):
        data = LICENCE if number % PUBLISHED == 1 else b"%d" % number
        name = f"LICENSE-{number}" if data == LICENCE else f"{number}.gguf"
        (root / name).write_bytes(data)
        if number % PUBLISHED == 0:
            licence = FileEntry("LICENSE", len(LICENCE), sha256(LICENCE))
            made = Manifest.of([FileEntry(name, len(data), sha256(data)), licence])
            found[made.digest] = made
    return found


def look(root: Path, cache: Path, manifests: dict[Digest, Manifest], before: Inventory | None) -> Inventory:
    files = hash_paths([root], HashCache(cache), 1, lambda count: None)
    matched = match(files, manifests)
    _, places = locate(files, matched)
    known = {each: KnownArtifact(each, f"a/{each[:8]}@v1") for each in places}
    found = Identified(matched, known, (), (), (), len(files), 0)
    sarif_of(found, "1", 9)
    taken = make_inventory(TakenAt("machine", 1, (root,)), files, found, before)
    differences(before, taken)
    return taken


def looked_at(folder: Path, count: int) -> list[int]:
    """The steps for so many files, and for the same ones once their hashes are kept."""
    root, cache, counted = folder / f"{count}", folder / f"cache-{count}", list[int]()
    manifests, taken = tree(root, count), list[Inventory]()
    cache.mkdir()

    def take() -> None:
        taken.append(look(root, cache, manifests, taken[0] if taken else None))

    counted += [steps(take), steps(take)]
    assert len(taken[1].files) == count and taken[0].files == taken[1].files
    return counted


def test_four_times_the_files_of_one_folder_are_four_times_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SETTLED_SECONDS", -SETTLED_SECONDS - 1e9)
    looked_at(tmp_path, 1)  # what is done once a process is not counted
    few, many = looked_at(tmp_path, FEW), looked_at(tmp_path, FEW * TIMES)
    for one, other in zip(few, many, strict=True):
        assert other < one * TIMES * 1.25
