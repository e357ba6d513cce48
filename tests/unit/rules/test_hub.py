"""The commit id of an artifact compared with the real git, which makes the same objects from the same pointer files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules import git_ids
from comity.rules.git_ids import MAX_FOLDERS, blob_id, commit_id, lfs_pointer, tree_id, tree_ids
from comity.trust.artifact import MAX_PATH_BYTES, FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from support.tools import needs

PATHS = [
    "README.md",
    "a",
    "a-b",
    "a.b",
    "a0",
    "b/a",
    "b/b/c",
    "b-b",
    "b.txt",
    "b0/x",
    "tokenizer/é.txt",
    "日本/語",
    "\U0001f600",
]


def manifest(paths: Sequence[str]) -> Manifest:
    return Manifest.of(FileEntry(path, number, sha256(path.encode())) for number, path in enumerate(paths))


class Git:
    """A bare repository, and the plumbing to write objects into it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.program = folder, needs("git", unlock="apt-get install git")
        self("init", "--quiet", "--bare", str(folder))

    def __call__(self, *arguments: str, stdin: bytes = b"", **env: str) -> str:
        plain = {"HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
        command = [self.program, "-C", str(self.folder.parent), f"--git-dir={self.folder}", *arguments]
        done = subprocess.run(command, input=stdin, env={**plain, **env}, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def blob(self, entry: FileEntry) -> str:
        return self("hash-object", "-w", "--stdin", stdin=lfs_pointer(entry))

    def tree(self, entries: Sequence[tuple[list[str], str]]) -> str:
        inside: dict[str, list[tuple[list[str], str]]] = {}
        for (head, *rest), blob in entries:
            inside.setdefault(head, []).append((rest, blob))
        lines = [
            f"040000 tree {self.tree(below)}\t{name}" if below[0][0] else f"100644 blob {below[0][1]}\t{name}"
            for name, below in inside.items()
        ]
        return self("mktree", "-z", stdin="".join(line + "\0" for line in lines).encode())

    def commit(self, tree: str, message: str) -> str:
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", "Comity"), ("EMAIL", "comity@invalid"), ("DATE", "@0 +0000"))
        }
        return self("commit-tree", tree, stdin=message.encode(), **who)


@pytest.mark.parametrize("paths", [PATHS, PATHS[:1], [], ["x/" * 100 + "y"]])
def test_git_makes_the_same_blobs_trees_and_commit(tmp_path: Path, paths: list[str]) -> None:
    git, made = Git(tmp_path / "repo.git"), manifest(paths)
    blobs = {entry.path: git.blob(entry) for entry in made.files}
    assert blobs == {entry.path: blob_id(entry) for entry in made.files}
    tree = git.tree([(path.split("/"), blob) for path, blob in blobs.items()])
    assert tree_id(made) == tree
    assert commit_id(made) == git.commit(tree, f"sha256:{made.digest}\n")
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_a_pointer_is_what_git_lfs_writes() -> None:
    assert lfs_pointer(FileEntry("a", 12345, sha256(b"x"))) == (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\n"
        b"size 12345\n"
    )


def test_the_commit_id_follows_from_the_files_alone() -> None:
    assert commit_id(manifest(PATHS)) == commit_id(Manifest.parse(manifest(PATHS).encode()))
    assert commit_id(manifest(PATHS)) != commit_id(manifest(PATHS[1:]))


def test_an_artifact_of_very_many_folders_has_no_commit() -> None:
    """Nodes compute the commit of every publication of others, and keep the id of every folder."""
    inner = MAX_PATH_BYTES // 2 - 10
    count = MAX_FOLDERS // (inner + 1)
    paths = [f"{number:04}/{'d/' * inner}d" for number in range(count + 1)]
    assert len(commit_id(manifest(paths[:10]))) == 40
    with pytest.raises(Malformed, match=f"more than {MAX_FOLDERS} folders"):
        commit_id(manifest(paths))


def test_the_tree_of_a_folder_is_that_of_an_artifact_with_the_files_below_it() -> None:
    paths = ("a/b/c/d", "a/b/e", "a/f", "a/g/b/h", "b/a/i", "b/a/j/k", "l")
    found = tree_ids(manifest(paths))
    assert set(found) == {"", "a", "a/b", "a/b/c", "a/g", "a/g/b", "b", "b/a", "b/a/j"}
    for folder, oid in found.items():
        inside = [entry for entry in manifest(paths).files if entry.path.startswith(f"{folder}/" if folder else "")]
        below = [replace(entry, path=entry.path.removeprefix(f"{folder}/")) for entry in inside]
        assert oid == tree_id(Manifest.of(below)), folder


def test_folders_are_counted_once_each_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ["a/b/c/1", "a/b/c/2", "a/b/d/3", "e/4", "e/5", "6"]
    monkeypatch.setattr(git_ids, "MAX_FOLDERS", 5)
    assert len(tree_ids(manifest(paths))) == 1 + 5
    with pytest.raises(Malformed, match="more than 5 folders"):
        tree_ids(manifest([*paths, "f/7"]))


def test_the_deepest_path_has_a_commit_too() -> None:
    assert len(commit_id(manifest(["d/" * (MAX_PATH_BYTES // 2 - 1) + "d"]))) == 40
