"""What an unmodified Hub client has to find when it reads the repository of `support.client_repository`."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from comity.rules.git_ids import commit_id
from support.client_repository import CHILD, ODD, ROWS, SHARD, SHARDS, ClientRepository

READING: Final = (
    "info",
    "dataset_info",
    "files",
    "tree",
    "folder",
    "paths_info",
    "refs",
    "commits",
    "search",
    "exists",
)
LOADING: Final = ("download", "snapshot", "local_dir", "command", "cache_verify", "filesystem", "safetensors_header")
FAILING: Final = ("no_repository", "no_revision", "no_file")
ASKED: Final[dict[str, Any]] = {
    "repository": CHILD,
    "dataset": ROWS,
    "revision": "v1",
    "file": SHARD,
    "folder": "scheduler",
    "paths": ["deep", "empty.txt", *ODD],
    "odd": ["empty.txt", *ODD],
    "search": CHILD.upper(),
}
"""The request of the steps above."""


def check_reading(found: dict[str, Any], repository: ClientRepository) -> None:
    manifest, commit = repository.child.ingested.manifest, repository.commit
    paths = [entry.path for entry in manifest.files]
    folders = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    assert found["info"] == {
        "id": CHILD,
        "sha": commit,
        "private": False,
        "gated": False,
        "files": {entry.path: entry.size for entry in manifest.files},
        "sha256": [entry.sha256 for entry in manifest.files],
    }
    assert found["dataset_info"] == commit_id(repository.data.ingested.manifest)
    assert sorted(found["files"]) == sorted(paths)
    tree = [*(["RepoFolder", path] for path in folders), *(["RepoFile", path] for path in paths)]
    assert found["tree"] == sorted(tree, key=lambda entry: entry[1])
    assert found["folder"] == ["scheduler/scheduler_config.json"]
    assert sorted(found["paths_info"]) == sorted(ASKED["paths"])
    assert found["refs"] == {"branches": {"main": commit}, "tags": {"v1": commit}}
    assert found["commits"] == [commit]
    assert found["search"] == [CHILD]
    assert found["exists"] == [True, False, True, False, True, False]


def check_loading(found: dict[str, Any], repository: ClientRepository) -> None:
    """Of all steps but `download` and `cache_verify`, which the oldest clients fail or lack."""
    files, weights = repository.hashes, repository.read(SHARD)
    assert found["snapshot"] == {"commit": repository.commit, "files": files}
    assert found["local_dir"] == files
    assert found["command"] == {"files": files}
    assert found["safetensors_header"] == {path: [name] for path, (name, _) in SHARDS.items()}
    assert found["filesystem"] == {
        "ls": sorted({f"{CHILD}@v1/{path.split('/')[0]}" for path in files}),
        "middle": weights[1000:1050].hex(),
        "cat": hashlib.sha256(weights[10:300_000]).hexdigest(),
        "odd": {path: repository.read(path).hex() for path in ASKED["odd"]},
    }


def check_failing(found: dict[str, Any]) -> None:
    assert found["no_repository"]["raised"] == "RepositoryNotFoundError"
    assert found["no_revision"]["raised"] == "RevisionNotFoundError"
    assert found["no_file"]["raised"] in ("RemoteEntryNotFoundError", "EntryNotFoundError")
