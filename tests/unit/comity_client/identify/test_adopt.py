"""The evidence of a folder that was identified is written beside its files, which may go into a cache."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.errors import ComityError, Conflict, PolicyNotMet, Unavailable, Untrusted
from comity.trust.evidence import PACK
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identify import adopt as adopting
from comity_client.identify.adopt import FICLONE
from support.fakes import FakeFederation, release
from support.known_files import FILES, written


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    folder = tmp_path_factory.mktemp("adopt")
    with FakeFederation(("CH", "SG", "ES")).running() as running:
        running.publish(release(folder / "one", FILES, by=running.publisher))
        odd = {"weights.bin": bytes(range(256))}
        running.publish(release(folder / "odd", odd, by=running.publisher, name="swiss-ai/odd@v1"))
        yield running


@pytest.fixture
def client(running: FakeFederation, tmp_path: Path) -> Client:
    made = Client(Home(tmp_path / "home"))
    made.pin(running.file())
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path / "model", FILES)


def clones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that clones files."""

    def ioctl(made: int, request: int, source: int) -> int:
        assert request == FICLONE
        os.sendfile(made, source, 0, os.fstat(source).st_size)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def states(folder: Path) -> dict[Path, tuple[int, int, int, int]]:
    found = ((path, path.stat()) for path in folder.rglob("*") if path.is_file() and PACK not in path.parts)
    return {path: (each.st_ino, each.st_mode, each.st_mtime_ns, each.st_nlink) for path, each in found}


def test_the_evidence_is_that_of_a_pull_and_no_file_is_changed(client: Client, model: Path, tmp_path: Path) -> None:
    before = states(model)
    adopted = client.adopt(model)
    assert (adopted.title, adopted.files, adopted.missing, adopted.cache) == ("swiss-ai/tiny@v1", 3, (), None)
    assert states(model) == before
    pulled = client.pull("swiss-ai/tiny@v1", to=tmp_path / "pulled")
    packs = [{p.relative_to(folder): p.read_bytes() for p in (folder / PACK).rglob("*") if p.is_file()}
             for folder in (model, pulled.folder)]  # fmt: skip
    assert packs[0] == packs[1]
    verdict = Client(client.home).verify(model)
    assert verdict == pulled.verdict and verdict.accepted


def test_a_partial_folder_stays_one(client: Client, model: Path) -> None:
    (model / "README.md").unlink()
    adopted = client.adopt(model)
    assert (adopted.verdict.exit_status, adopted.missing) == (8, ("README.md",))
    assert client.verify(model).exit_status == 8


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"README.md": b"other"}, Untrusted),
        ({"more.json": b"{}"}, Untrusted),
        ({".comity/manifest.json": b"{}"}, Conflict),
    ],
)
def test_nothing_is_written_into_a_folder_with_other_content(
    client: Client, model: Path, change: dict[str, bytes], error: type[ComityError]
) -> None:
    written(model, change)
    before = sorted(model.rglob("*"))
    with pytest.raises(error):
        client.adopt(model)
    assert sorted(model.rglob("*")) == before


def test_what_the_policy_refuses_is_not_adopted(client: Client, tmp_path: Path) -> None:
    folder = written(tmp_path / "odd", {"weights.bin": bytes(range(256))})
    with pytest.raises(PolicyNotMet, match="file safety"):
        client.adopt(folder)
    assert not (folder / PACK).exists()


def test_a_pack_that_is_a_link_is_refused(client: Client, model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (model / PACK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((Conflict, Untrusted)):
        client.adopt(model)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_cache_gets_files_that_share_blocks_and_are_read_only(
    client: Client, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clones(monkeypatch)
    adopted = client.adopt(model, hub_cache=tmp_path / "cache")
    assert adopted.cloned and adopted.cache is not None
    assert {path: (adopted.cache / path).read_bytes() for path in FILES} == FILES
    assert (adopted.cache / "README.md").stat().st_mode & 0o222 == 0
    assert client.verify("swiss-ai/tiny@v1", hub_cache=tmp_path / "cache").accepted
    assert client.verify(model).accepted
    hub = pytest.importorskip("huggingface_hub")
    found = hub.snapshot_download("swiss-ai/tiny", revision="v1", cache_dir=tmp_path / "cache", local_files_only=True)
    assert Path(found) == adopted.cache and not hub.scan_cache_dir(tmp_path / "cache").warnings
    assert client.adopt(model, hub_cache=tmp_path / "cache").cache == adopted.cache


def test_where_there_are_no_clones_the_user_decides(
    client: Client, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(*_: int) -> int:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(Unavailable, match="share their blocks") as refused:
        client.adopt(model, hub_cache=tmp_path / "cache")
    assert refused.value.code == "NO-CLONES" and "--hard-links" in refused.value.hint
    assert not (model / PACK).exists() and not list((tmp_path / "cache").rglob("snapshots"))
    before = {path: seen[:3] for path, seen in states(model).items()}
    adopted = client.adopt(model, hub_cache=tmp_path / "cache", hard_links=True)
    assert adopted.cache is not None and not adopted.cloned
    assert {path: seen[:3] for path, seen in states(model).items()} == before
    assert (adopted.cache / "README.md").samefile(model / "README.md")
    (model / "README.md").write_bytes(b"# Tino\n")
    assert client.verify("swiss-ai/tiny@v1", hub_cache=tmp_path / "cache").exit_status == 3


def test_a_file_that_changes_while_it_goes_into_the_cache_is_not_in_it(
    client: Client, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = adopting._hard_link

    def changed(source: Path, path: Path, state: adopting.FileState | None) -> bool:
        source.write_bytes(b"changed since")
        return link(source, path, state)

    monkeypatch.setattr(adopting, "_hard_link", changed)
    with pytest.raises(Conflict, match="changed"):
        client.adopt(model, hub_cache=tmp_path / "cache", hard_links=True)
    assert not (model / PACK).exists()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "in-use.lock"]


def test_for_a_file_that_changes_after_it_was_hashed_no_evidence_is_written(client: Client, model: Path) -> None:
    with pytest.raises(Conflict, match="changed"):
        client.adopt(model, on_hashed=lambda count: os.utime(model / "README.md", ns=(0, count)))
    assert not (model / PACK).exists()
