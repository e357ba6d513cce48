"""Imports from each kind of upstream that are killed ten times on the way and end with equal digests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from comity.upstream.packed_layers import TAR, TAR_GZIP
from support.file_site import file_server
from support.git_site import Lfs, git_site
from support.image_registry import image_registry, layer, manifest, push, push_layers
from support.model_scope_site import model_scope_site
from support.s3 import S3Account
from support.seaweed import seaweed
from support.tar_archives import archive, gzipped

pytestmark = pytest.mark.slow

CHILD = Path(__file__).parents[1] / "support" / "mirror_child.py"
MIB = 1024 * 1024
FILES = {"config.json": b"{}\n", "weights.bin": b"".join(bytes([n]) * MIB for n in range(23))}
KILLS = 10


def require_equal_after_kills(endpoint: str, name: str, folder: Path, token: str = "") -> None:
    """Mirror in a process that is killed after 2, 4, … MiB, then in one that is not."""
    folder.mkdir()
    command = [sys.executable, str(CHILD), endpoint, "localhost", name, str(folder)]
    environ = {**os.environ, "MIRROR_TOKEN": token}
    for number in range(1, KILLS + 1):
        killed = subprocess.run(
            [*command, str(number * 2 * MIB)], env=environ, check=False, capture_output=True, timeout=120
        )
        assert killed.returncode == -signal.SIGKILL, killed
        assert sum(path.stat().st_size for path in folder.iterdir()) >= number * 2 * MIB - MIB
    ended = subprocess.run(command, env=environ, check=True, capture_output=True, timeout=120)
    said = json.loads(ended.stdout)
    assert said.get("files") == {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}, said


def test_a_list_at_a_web_server(tmp_path: Path) -> None:
    site = tmp_path / "site" / "tiny"
    site.mkdir(parents=True)
    for path, data in FILES.items():
        (site / path).write_bytes(data)
    lines = [f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in FILES.items()]
    (site / "SHA256SUMS").write_text("".join(lines))
    with file_server(tmp_path / "site") as server:
        require_equal_after_kills(server.url, "https:127.0.0.1/tiny", tmp_path / "work")


def test_a_prefix_of_a_bucket(tmp_path: Path) -> None:
    (tmp_path / "weed").mkdir()
    with seaweed(tmp_path / "weed") as service:
        client = S3Account.open(service.endpoint, service.user, tmp_path, "pub").client()
        for path, data in FILES.items():
            client.put_object(Bucket="pub", Key=f"tiny/{path}", Body=data)
        token = f"{service.user.access_key}:{service.user.secret_key}"
        require_equal_after_kills(f"{service.endpoint}/pub", "s3:127.0.0.1/tiny", tmp_path / "work", token)


def test_a_repository_of_modelscope(tmp_path: Path) -> None:
    with model_scope_site(tmp_path / "site", FILES) as server:
        require_equal_after_kills(server.url, "ms:org/tiny", tmp_path / "work")


def test_an_image_in_a_registry(tmp_path: Path) -> None:
    with image_registry(tmp_path) as registry:
        push(registry, "lab/tiny", "v1", FILES)
        require_equal_after_kills(f"{registry}/lab", "oci:127.0.0.1/tiny@v1", tmp_path / "work")


def test_an_image_of_archives(tmp_path: Path) -> None:
    small, large = ({path: FILES[path]} for path in FILES)
    layers = [gzipped(archive(small)), archive(large)]
    kinds = [f"application/vnd.kitops.modelkit.model.v1.{packing}" for packing in (TAR_GZIP, TAR)]
    body = manifest(*(layer("", data, mediaType=kind) for data, kind in zip(layers, kinds, strict=True)))
    with image_registry(tmp_path) as registry:
        push_layers(registry, "lab/tiny", "v1", body, layers)
        require_equal_after_kills(f"{registry}/lab", "oci:127.0.0.1/tiny@v1", tmp_path / "work")


def test_a_git_repository_with_lfs(tmp_path: Path) -> None:
    with git_site(tmp_path) as site:
        site.commit("tiny", {path: Lfs(data) if len(data) > MIB else data for path, data in FILES.items()})
        require_equal_after_kills(site.url, "git:127.0.0.1/tiny", tmp_path / "work")
