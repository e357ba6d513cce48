"""An unmodified huggingface_hub as a program, for the interpreter of any environment that has some version of it:

    python stock_hub_client.py < request.json        {"repository": "ns/name", "revision": "v1", "steps": ["info", …]}

prints one JSON object: the result of each step, or `{"raised": CLASS, "said": TEXT}`. The environment names the
endpoint, the cache and the token, as for any user. Imports nothing of this repository, and nothing that only one
version has.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem


class Client:
    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.repository: str = request["repository"]
        self.revision: str = request.get("revision", "main")
        self.file: str = request.get("file", "")
        self.api = HfApi()

    def version(self) -> Any:
        return huggingface_hub.__version__

    def info(self) -> Any:
        info = self.api.model_info(self.repository, revision=self.revision, files_metadata=True)
        siblings = info.siblings or []
        lfs = [sibling.lfs for sibling in siblings]
        return {
            "id": info.id,
            "sha": info.sha,
            "private": info.private,
            "gated": info.gated,
            "files": {s.rfilename: s.size for s in siblings},
            "sha256": [item["sha256"] if isinstance(item, dict) else item.sha256 for item in lfs if item],
        }

    def dataset_info(self) -> Any:
        return self.api.dataset_info(self.request["dataset"], revision=self.revision).sha

    def files(self) -> Any:
        return self.api.list_repo_files(self.repository, revision=self.revision)

    def tree(self) -> Any:
        entries = self.api.list_repo_tree(self.repository, revision=self.revision, recursive=True, expand=True)
        return [[type(entry).__name__, entry.path] for entry in entries]

    def folder(self) -> Any:
        entries = self.api.list_repo_tree(self.repository, self.request["folder"], revision=self.revision)
        return [entry.path for entry in entries]

    def paths_info(self) -> Any:
        wanted = [*self.request["paths"], "no/such/file"]
        return [entry.path for entry in self.api.get_paths_info(self.repository, wanted, revision=self.revision)]

    def refs(self) -> Any:
        found = self.api.list_repo_refs(self.repository)
        return {
            "branches": {ref.name: ref.target_commit for ref in found.branches},
            "tags": {ref.name: ref.target_commit for ref in found.tags},
        }

    def commits(self) -> Any:
        return [commit.commit_id for commit in self.api.list_repo_commits(self.repository, revision=self.revision)]

    def search(self) -> Any:
        return sorted(model.id for model in self.api.list_models(search=self.request.get("search"), limit=500))

    def exists(self) -> Any:
        api, name = self.api, self.repository
        return [
            api.repo_exists(name),
            api.repo_exists("nobody/nothing"),
            api.revision_exists(name, self.revision),
            api.revision_exists(name, "v99"),
            api.file_exists(name, self.file, revision=self.revision),
            api.file_exists(name, "no/such/file", revision=self.revision),
        ]

    def no_repository(self) -> Any:
        return self.api.model_info("nobody/nothing").id

    def no_revision(self) -> Any:
        return huggingface_hub.hf_hub_download(self.repository, self.file, revision="refs/pr/7")

    def no_file(self) -> Any:
        return huggingface_hub.hf_hub_download(self.repository, "no/such.file", revision=self.revision)

    def whoami(self) -> Any:
        return self.api.whoami()["name"]

    def download(self) -> Any:
        path = huggingface_hub.hf_hub_download(self.repository, self.file, revision=self.revision)
        return {"sha256": _sha256(Path(path)), "blob": Path(path).resolve().name}

    def snapshot(self) -> Any:
        folder = Path(huggingface_hub.snapshot_download(self.repository, revision=self.revision))
        return {"commit": folder.name, "files": _hashes(folder)}

    def upload(self) -> Any:
        """`hf upload`."""
        return _hf("upload", self.repository, __file__, "a.py")

    def crowd(self) -> Any:
        """As many concurrent clients as `caches` names, each for the next repository of `repositories`; the results of
        each. The caches are not kept. With `comes_back`, each retries when it is told to, as its user would.
        """
        repositories = self.request["repositories"]

        def load(repository: str, cache: str) -> Path:
            while True:
                try:
                    return Path(huggingface_hub.snapshot_download(repository, revision="v1", cache_dir=cache))
                except huggingface_hub.errors.HfHubHTTPError as error:
                    if not self.request.get("comes_back") or getattr(error.response, "status_code", 0) != 503:
                        raise
                    time.sleep(float(error.response.headers["Retry-After"]))

        def fetch(number: int, cache: str) -> dict[str, str]:
            got = _hashes(load(repositories[number % len(repositories)], cache))
            shutil.rmtree(cache)
            return got

        caches = self.request["caches"]
        with ThreadPoolExecutor(len(caches)) as pool:
            return list(pool.map(fetch, range(len(caches)), caches))

    def snapshot_offline(self) -> Any:
        found = huggingface_hub.snapshot_download(self.repository, revision=self.revision, local_files_only=True)
        return Path(found).name

    def local_dir(self) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            huggingface_hub.snapshot_download(self.repository, revision=self.revision, local_dir=folder)
            return {path: digest for path, digest in _hashes(Path(folder)).items() if not path.startswith(".cache/")}

    def command(self) -> Any:
        """`hf download`."""
        printed = _hf("download", self.repository, "--revision", self.revision)
        folder = next(word for word in printed.split() if "snapshots" in word).rpartition("path=")[2]
        return {"files": _hashes(Path(folder))}

    def cache_verify(self) -> Any:
        """`hf cache verify`, of versions that have it."""
        return "verified" in _hf("cache", "verify", self.repository, "--revision", self.revision).lower()

    def safetensors_header(self) -> Any:
        """Read from the file's beginning, over the network."""
        found = self.api.get_safetensors_metadata(self.repository, revision=self.revision)
        return {name: list(tensors.tensors) for name, tensors in found.files_metadata.items()}

    def filesystem(self) -> Any:
        files = HfFileSystem()
        root = f"{self.repository}@{self.revision}"
        with files.open(f"{root}/{self.file}", "rb") as opened:
            opened.seek(1000)
            middle = opened.read(50)
        listed: list[Any] = files.ls(root)
        return {
            "ls": sorted(item["name"] for item in listed),
            "middle": middle.hex(),
            "odd": {path: files.cat_file(f"{root}/{path}").hex() for path in self.request.get("odd", ())},
            "cat": hashlib.sha256(files.cat_file(f"{root}/{self.file}", start=10, end=300_000)).hexdigest(),
        }


def _hf(*arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "hf"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError((ran.stdout + ran.stderr)[-2000:])
    return ran.stdout + ran.stderr


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    request = json.load(sys.stdin)
    client, found = Client(request), {}
    for step in request["steps"]:
        try:
            found[step] = getattr(client, step)()
        except Exception as error:
            found[step] = {"raised": type(error).__name__, "said": str(error)[-1500:]}
    os.write(1, b"\n" + json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
