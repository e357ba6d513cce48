"""What a git server answers: packs of git itself, and packs, trees, changes and pointers that lie."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from pathlib import Path

import pytest
from comity.trust.errors import Malformed
from comity.upstream import git_objects
from comity.upstream.git_objects import (
    FLUSH,
    GitObject,
    PackReader,
    apply_delta,
    commit_entries,
    listed_blob,
    packet,
    packet_lines,
)
from hypothesis import given
from hypothesis import strategies as st
from support.git_site import Lfs, git

BASE = bytes(range(200))


def header(kind: int, size: int) -> bytes:
    first, size = kind << 4 | size & 15, size >> 4
    result = bytearray()
    while size:
        result.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    return bytes([*result, first])


def pack(*objects: bytes, count: int | None = None) -> bytes:
    body = b"PACK" + struct.pack(">II", 2, len(objects) if count is None else count) + b"".join(objects)
    return body + hashlib.sha1(body).digest()


def plain(kind: int, data: bytes, size: int | None = None) -> bytes:
    return header(kind, len(data) if size is None else size) + zlib.compress(data)


def delta_of(copied: int, added: bytes, base: bytes = BASE) -> bytes:
    """The first bytes of the base, and others."""
    size = copied + len(added)
    return (
        bytes([len(base) & 0x7F | 0x80, len(base) >> 7, size & 0x7F | 0x80, size >> 7])
        + (bytes([0x90, copied]) if copied else b"")
        + (bytes([len(added)]) + added if added else b"")
    )


def named(base: bytes, delta: bytes) -> bytes:
    name = bytes.fromhex(GitObject("blob", base).id)
    return header(7, len(delta)) + name + zlib.compress(delta)


def test_a_pack_of_git_with_changes_is_read_as_git_reads_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    chance = random.Random(7)
    text = chance.randbytes(30_000)
    wanted = {}
    for number in range(6):
        text = text[: 4000 * number] + b"changed" + text[4000 * number :]
        wanted[git(tmp_path, "hash-object", "-w", "--stdin", data=text).decode().strip()] = text
    made = git(tmp_path, "pack-objects", "--stdout", "--delta-base-offset", "-q", data="\n".join(wanted).encode())
    assert len(made) < 2 * len(text), "git stored changes"
    assert {name: item.data for name, item in PackReader(made).objects().items()} == wanted
    by_name = git(tmp_path, "pack-objects", "--stdout", "-q", data="\n".join(wanted).encode())
    assert set(PackReader(by_name).objects()) == set(wanted)


def test_a_change_before_its_base_and_a_change_of_a_change_are_read() -> None:
    once = BASE[:50] + b"more"
    delta = named(BASE, delta_of(50, b"more"))
    twice = named(once, delta_of(10, b"!", once))
    found = PackReader(pack(twice, delta, plain(3, BASE))).objects()
    assert {item.data for item in found.values()} == {BASE, once, once[:10] + b"!"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PACK" + bytes(40),
        pack(plain(3, b"abc"))[:-1] + b"\0",
        pack(plain(3, b"abc"), count=2),
        pack(plain(3, b"abc"), count=0),
        pack(count=2**32 - 1),
        pack(plain(5, b"abc")),
        pack(plain(3, b"abc", size=2)),
        pack(plain(3, b"abc", size=4)),
        pack(plain(3, bytes(10**6), size=10)),
        pack(header(3, 3) + b"\x78\x9c\xff\xff\xff"),
        pack(header(3, 3)),
        pack(b"\xff" * 12),
        pack(header(6, 4) + b"\x20" + zlib.compress(b"\3\3\0\0")),
        pack(header(6, 4) + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        pack(named(BASE, delta_of(50, b""))),
        pack(plain(3, BASE), named(BASE, b"\x80")),
        pack(plain(3, BASE), named(BASE, delta_of(50, b"") + b"\0")),
    ],
)
def test_another_pack_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        PackReader(data).objects()
    assert caught.value.code == "UPSTREAM-ANSWER"


def test_objects_that_would_fill_the_memory_are_refused_by_the_sizes_that_they_declare() -> None:
    small = delta_of(127, b"")
    for objects in ((plain(3, b"", size=2**40),), (plain(3, BASE), *([named(BASE, small)] * 6))):
        with pytest.raises(Malformed, match="have more than"):
            PackReader(pack(*objects), most=900).objects()


def one_byte_at_a_time(count: int, base: bytes) -> bytes:
    """A change that copies and adds single bytes in turn."""
    steps = b"".join(b"\x90\1" if number % 2 else b"\1x" for number in range(count))
    return bytes([len(base) & 0x7F | 0x80, len(base) >> 7, count & 0x7F | 0x80, count >> 7]) + steps


@given(counts=st.lists(st.integers(1, 300), min_size=1, max_size=6, unique=True), waiting=st.booleans())
def test_a_pack_makes_no_more_steps_than_the_bound_in_all_its_changes_together(
    counts: list[int], waiting: bool
) -> None:
    changes = [named(BASE, one_byte_at_a_time(count, BASE)) for count in counts]
    data = pack(*changes, plain(3, BASE)) if waiting else pack(plain(3, BASE), *changes)
    assert len(PackReader(data, instructions=sum(counts)).objects()) == 1 + len(counts)
    with pytest.raises(Malformed, match="instructions") as caught:
        PackReader(data, instructions=sum(counts) - 1).objects()
    assert caught.value.code == "UPSTREAM-ANSWER"


@given(base=st.binary(min_size=1, max_size=200), delta=st.binary(max_size=60))
def test_a_change_gives_the_declared_size_or_is_refused(base: bytes, delta: bytes) -> None:
    try:
        made, _ = apply_delta(base, bytes([len(base) & 0x7F | 0x80, len(base) >> 7]) + delta)
    except Malformed:
        return
    assert git_objects._delta_sizes(bytes([0x80, 0]) + delta)[1] == len(made)


@pytest.mark.parametrize("body", [b"0003", b"00", b"zzzz", b"+005a", b"0009ab", b"0000fff"])
def test_packet_lines_of_invalid_lengths_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        list(packet_lines(body))


def test_packet_lines_are_those_that_are_written() -> None:
    assert list(packet_lines(packet("want x") + b"0000")) == [b"want x\n", FLUSH]


def tree(*entries: tuple[str, bytes, GitObject]) -> GitObject:
    rows = (b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(item.id)) for mode, name, item in entries)
    return GitObject("tree", b"".join(rows))


def committed(*objects: GitObject) -> tuple[dict[str, GitObject], str]:
    commit = GitObject("commit", b"tree %s\nauthor a\n" % objects[0].id.encode())
    return {item.id: item for item in (commit, *objects)}, commit.id


FILE = GitObject("blob", b"x")


def test_the_entries_of_a_commit_have_the_paths_of_their_folders() -> None:
    sub = tree(("100755", b"run.sh", FILE), ("120000", b"link", FILE))
    objects, commit = committed(tree(("100644", b"a", FILE), ("40000", b"sub", sub)), sub)
    found = {entry.path: entry.is_file for entry in commit_entries(objects, commit)}
    assert found == {"a": True, "sub/run.sh": True, "sub/link": False}


@pytest.mark.parametrize(
    "root",
    [
        GitObject("blob", b""),
        GitObject("tree", b"100644 a\0short"),
        GitObject("tree", b"nothing"),
        tree(("100644", b"", FILE)),
        tree(("100644", b"a/b", FILE)),
        tree(("100644", b"\xff", FILE)),
        tree(("100644", b"a" * 1025, FILE)),
        tree(("40000", b"gone", GitObject("tree", b"?"))),
        tree(("40000", b"file", FILE)),
    ],
)
def test_another_tree_is_refused(root: GitObject) -> None:
    objects, commit = committed(root, FILE)
    with pytest.raises(Malformed):
        list(commit_entries(objects, commit))


def test_trees_that_hold_each_other_many_times_are_refused_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_objects, "MAX_FILES", 1000)
    above = tree()
    levels = [above]
    for _ in range(40):
        above = tree(*(("40000", b"%d" % number, above) for number in range(8)))
        levels.insert(0, above)
    objects, commit = committed(*levels)
    with pytest.raises(Malformed, match="more than 1000"):
        list(commit_entries(objects, commit))


def test_a_commit_that_was_not_sent_is_refused() -> None:
    objects, _ = committed(tree(("100644", b"a", FILE)))
    for name in ("1f" * 20, FILE.id):
        with pytest.raises(Malformed):
            list(commit_entries(objects | {FILE.id: FILE}, name))


def test_a_pointer_is_listed_with_what_it_names_and_any_other_file_with_its_bytes() -> None:
    lfs = Lfs(b"weights")
    listed = listed_blob("w", GitObject("blob", lfs.pointer))
    assert (listed.size, listed.lfs, listed.content) == (7, lfs.oid, None)
    other = listed_blob("f", GitObject("blob", b"hello"))
    assert (other.size, other.lfs, other.content, other.blob) == (5, None, b"hello", GitObject("blob", b"hello").id)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"sha256", b"sha1"),
        (b"size 7", b"size -7"),
        (b"size 7", b"size 07"),
        (b"size 7", b"size 999999999999999"),
        (b"\noid", b"\next-0-x sha256:00\noid"),
        (b"\n", b"\r\n"),
        (b"/v1", b"/v2"),
    ],
)
def test_a_pointer_of_another_form_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(Malformed):
        listed_blob("w", GitObject("blob", Lfs(b"weights").pointer.replace(old, new)))
