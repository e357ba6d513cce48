"""Manifests: their bytes, the order of files, and the paths that are allowed."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from comity.trust import artifact
from comity.trust.artifact import MAX_FILES, MAX_PATH_BYTES, FileEntry, Manifest, check_path
from comity.trust.encoding import MAX_INTEGER, Digest, canonical, sha256
from comity.trust.errors import Malformed
from hypothesis import given
from hypothesis import strategies as st

DIGEST = sha256(b"x")
MANIFEST = Manifest.of([FileEntry("b/weights", 3, DIGEST), FileEntry("a", 2, DIGEST), FileEntry("empty", 0, DIGEST)])


def listing(*paths: str) -> list[FileEntry]:
    return [FileEntry(path, 1, DIGEST) for path in paths]


def document(**change: Any) -> bytes:
    return canonical({**json.loads(MANIFEST.encode()), **change})


def file(**change: Any) -> bytes:
    return document(files=[{"path": "a", "size": 5, "sha256": DIGEST, **change}])


def test_the_bytes_of_a_manifest() -> None:
    assert Manifest.of([FileEntry("config.json", 612, Digest("9" * 64))]).encode() == (
        b'{"files":[{"path":"config.json","sha256":"' + b"9" * 64 + b'","size":612}],'
        b'"schema":"comity/manifest/v1","size":612}'
    )


def test_a_manifest_reads_back() -> None:
    assert Manifest.parse(MANIFEST.encode()) == MANIFEST
    assert Manifest.parse(MANIFEST.encode()).digest == sha256(MANIFEST.encode())


def test_an_artifact_without_files_is_an_artifact() -> None:
    assert Manifest.parse(Manifest(()).encode()) == Manifest(())


def test_files_are_in_the_order_of_their_utf8_bytes() -> None:
    # In UTF-16 order, which RFC 8785 uses for members, U+1F600 would come first.
    paths = ["B", "a-b", "a.b", "a/b", "a0", "\ufb33", "\U0001f600"]
    assert [entry.path for entry in Manifest.of(listing(*reversed(paths))).files] == paths


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(MANIFEST.encode() + b"\n", id="white space"),
        pytest.param(document(schema="comity/manifest/v2"), id="another schema"),
        pytest.param(document(size=6), id="a size that is not the sum"),
        pytest.param(document(name="x"), id="an unknown member"),
        pytest.param(document(files=list(reversed(json.loads(MANIFEST.encode())["files"]))), id="another order"),
        pytest.param(document(files=[{"path": "a", "size": 1, "sha256": DIGEST}] * 2, size=2), id="a file twice"),
        pytest.param(file(size=-1), id="a negative size"),
        pytest.param(file(size=True), id="a size that is no number"),
        pytest.param(file(sha256="sha256:" + DIGEST), id="a second spelling of a digest"),
        pytest.param(file(sha256=DIGEST.upper()), id="an upper-case digest"),
        pytest.param(file(mode="0755"), id="an unknown member of a file"),
        pytest.param(file(path="../a"), id="a path out of the folder"),
        pytest.param(document(files={}), id="files that are no list"),
        pytest.param(b"[]", id="no object"),
    ],
)
def test_bytes_that_encode_would_not_write_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Manifest.parse(data)


def test_sizes_beyond_exact_integers_are_refused() -> None:
    assert Manifest.of([FileEntry("a", MAX_INTEGER, DIGEST), FileEntry("b", 0, DIGEST)]).size == MAX_INTEGER
    beyond = Manifest.of([FileEntry("a", MAX_INTEGER, DIGEST), FileEntry("b", 1, DIGEST)])
    for read in (lambda: beyond.size, beyond.encode):
        with pytest.raises(Malformed):
            read()


def test_as_many_files_as_the_bound_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_FILES", 3)
    assert len(Manifest.of(listing("a", "b", "c")).files) == 3
    with pytest.raises(Malformed, match="4 files, at most 3"):
        Manifest.of(listing("a", "b", "c", "d"))


def test_the_start_of_a_long_path_is_shown() -> None:
    with pytest.raises(Malformed) as refusal:
        check_path("x" * 119 + "yz/" + "x" * MAX_PATH_BYTES)
    assert refusal.value.what == f"path '{'x' * 119}y' cannot be published"


def test_the_number_of_files_is_bounded() -> None:
    with pytest.raises(Malformed, match="too large"):
        Manifest.of(FileEntry(f"{number:06}", 0, DIGEST) for number in range(MAX_FILES + 1))


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a" * MAX_PATH_BYTES,
        "a/b/c",
        "é/ü",
        ".gitattributes",
        ".github/workflows/x.yml",
        ".cache/other",
        "a b",
        "...",
        "x.git/y",
        "日本/語",
    ],
)
def test_a_path_that_means_the_same_everywhere_is_accepted(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/../b", "a/.."),
        *("a\\b", "a\nb", "a\x00b", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "\u2029", "\ud800"),
        *(".git", ".git/config", ".comity", ".comity/manifest.json", ".cache/huggingface", ".cache/huggingface/x"),
        *(".GIT/config", ".Comity/claims.jsonl", ".Cache/HuggingFace/x"),
        *("a/" * (MAX_PATH_BYTES // 2) + "a", "é" * 600),
    ],
)
def test_a_path_that_does_not_is_refused(path: str) -> None:
    with pytest.raises(Malformed) as refusal:
        check_path(path)
    assert refusal.value.code == "BAD-PATH"
    with pytest.raises(Malformed):
        Manifest.of(listing(path))


@given(st.text(max_size=9) | st.text(" /.a\u0085\u2028\u2029\u202e\ufeff\U000e0001", max_size=9))
def test_a_manifest_with_any_path_that_is_allowed_reads_back(path: str) -> None:
    try:
        made = Manifest.of(listing(path))
    except Malformed:
        return
    assert Manifest.parse(made.encode()) == made


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(("README", "readme"), id="case"),
        pytest.param(("straße", "STRASSE"), id="case folding that changes the length"),
        pytest.param(("caf\u00e9", "cafe\u0301"), id="composed and decomposed"),
        pytest.param(("a", "a/b"), id="a file and a folder"),
        pytest.param(("a", "a-b", "a/b"), id="a file and a folder with something sorted between them"),
        pytest.param(("A", "a/b"), id="a file and a folder by case"),
        pytest.param(("A/x", "a/y"), id="two folders by case"),
        pytest.param(("x/A/1", "x/a/2"), id="two inner folders by case"),
        pytest.param(("caf\u00e9/x", "cafe\u0301/y"), id="two folders by Unicode form"),
    ],
)
def test_paths_that_some_file_system_would_merge_are_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(Malformed) as refusal:
        Manifest.of(listing(*paths))
    assert refusal.value.code == "BAD-PATH"


def test_paths_that_look_alike_and_are_not_merged_are_accepted() -> None:
    assert len(Manifest.of(listing("a/b", "a-b", "a.b/c", "ab/c", "a b", "aa/b", "a/c")).files) == 7


def test_folders_that_paths_have_in_common_are_not_folded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, real = list[str](), artifact._folded

    def fold(path: str) -> str:
        folded.append(path)
        return real(path)

    monkeypatch.setattr(artifact, "_folded", fold)
    paths = ["d/" * 400 + f"{number:02}" for number in range(10)]
    Manifest.of(listing(*paths))
    assert len(folded) == 2 * len(paths)


def test_deep_paths_cost_no_more_than_their_bytes() -> None:
    paths = [f"{number:03}/" + "d/" * 508 + "d" for number in range(300)]
    tracemalloc.start()
    try:
        Manifest.of(listing(*paths))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * sum(map(len, paths))  # a set of all folders would take 250 times as much
