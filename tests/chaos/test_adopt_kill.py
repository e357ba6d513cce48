"""`comity adopt` that is killed: no file is changed, evidence is there and verifies or is not there, the cache has the
artifact or not, and the same command finishes the work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.errors import NotFound
from comity.trust.evidence import PACK
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, release

pytestmark = pytest.mark.slow

FILES = {"config.json": b'{"model_type": "tiny"}', "README.md": b"# Tiny\n", "sub/tokens.json": b"[]"}
RUN = "import sys\nfrom comity_cli.main import main\nmain(sys.argv[1:])"


@pytest.fixture(name="client")
def _client(tmp_path: Path) -> Iterator[Client]:
    with FakeFederation(("CH", "SG", "ES")).running() as running:
        running.publish(release(tmp_path / "source", FILES, by=running.publisher))
        client = Client(Home(tmp_path / "home"))
        client.pin(running.file())
        yield client


def adopt(root: Path, **environ: str) -> int:
    """Adopt the folder `model` into a cache, each in `root`; returns the exit status."""
    words = ("adopt", root / "model", "--hub-cache", root / "cache", "--hard-links", "--quiet")
    command = [sys.executable, "-c", RUN, *map(str, words)]
    home = str(root.parent / "home")
    return subprocess.run(command, env={**os.environ, "COMITY_HOME": home, **environ}, check=False).returncode


def folder(root: Path) -> Path:
    for path, data in FILES.items():
        (root / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "model" / path).write_bytes(data)
    return root / "model"


def test_a_killed_adoption_leaves_nothing_half_done(client: Client, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    folder(tmp_path / "whole")
    hits = tmp_path / "hits"
    assert adopt(tmp_path / "whole", COMITY_FAULT_LOG=str(hits)) == 0
    passed = hits.read_text().split()
    renames = [point for point in dict.fromkeys(passed) if point.endswith(".rename")]
    kills = [f"{point}:{hit}" for point in renames for hit in dict.fromkeys((1, passed.count(point)))]
    kills = [kill for kill in kills if kill.startswith(("adopt", "pack", "link", "ref"))]
    kills.append(f"pack.done:{passed.count('pack.done')}")
    assert {kill.partition(".")[0] for kill in kills} == {"adopt", "pack", "link", "ref"}
    ends = set[tuple[bool, bool]]()
    for number, kill in enumerate(kills):
        root = tmp_path / f"{number}"
        model = folder(root)
        assert adopt(root, COMITY_FAULT=kill) == -9, kill
        assert {path: (model / path).read_bytes() for path in FILES} == FILES
        beside = (model / PACK / "manifest.json").exists()
        assert client.verify(model).accepted == beside, kill
        cached = in_cache(client, root / "cache")
        assert cached == offered(hub, root / "cache"), kill
        ends.add((cached, beside))
        assert adopt(root) == 0, kill
        assert client.verify(model).accepted and in_cache(client, root / "cache")
    assert {(False, False), (True, True)} <= ends


def in_cache(client: Client, cache: Path) -> bool:
    """Whether the cache has the artifact; it then verifies."""
    try:
        return client.verify("swiss-ai/tiny@v1", hub_cache=cache).accepted
    except NotFound:
        return False


def offered(hub: object, cache: Path) -> bool:
    """Whether an unmodified Hub client finds it there; it then has all files."""
    try:
        found = hub.snapshot_download("swiss-ai/tiny", revision="v1", cache_dir=cache, local_files_only=True)  # type: ignore[attr-defined]
    except OSError:
        return False
    assert {path: (Path(found) / path).read_bytes() for path in FILES} == FILES
    return True
