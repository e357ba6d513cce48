"""A folder without evidence is verified by its files and the evidence of nodes, which answer over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identify.folder import some
from support.fakes import FakeFederation, release
from support.known_files import FILES, written


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation(("CH", "SG", "ES")).running() as running:
        running.publish(release(tmp_path_factory.mktemp("folder"), FILES, by=running.publisher))
        yield running


@pytest.fixture
def client(running: FakeFederation, tmp_path: Path) -> Client:
    made = Client(Home(tmp_path / "home"))
    made.pin(running.file())
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The published files, as `hf download --local-dir` leaves them."""
    notes = ".cache/huggingface"
    beside = {f"{notes}/.gitignore": b"*", f"{notes}/CACHEDIR.TAG": b"S", f"{notes}/download/README.md.metadata": b"6c"}
    return written(tmp_path / "model", FILES | beside)


def test_a_folder_of_a_hub_client_has_the_verdict_of_a_pulled_one(client: Client, model: Path, tmp_path: Path) -> None:
    before = sorted(model.rglob("*"))
    found = client.verify_by_files(model)
    assert found.identified is not None and found.why is None
    assert (found.identified.title, found.identified.answered) == ("swiss-ai/tiny@v1", 3)
    assert sorted(model.rglob("*")) == before
    pulled = client.pull("swiss-ai/tiny@v1", to=tmp_path / "pulled")
    assert found.verdict == pulled.verdict and found.verdict.accepted


def test_missing_files_are_named_and_the_folder_is_partial(client: Client, model: Path) -> None:
    (model / "README.md").unlink()
    found = client.verify_by_files(model)
    assert found.identified is not None and found.verdict.exit_status == 8
    assert "2 of 3 files are here; missing: README.md" in found.identified.basis


def test_changed_and_further_files_are_named_and_do_not_verify(client: Client, model: Path) -> None:
    (model / "README.md").write_bytes(b"other")
    (model / ".cache" / "huggingface" / "download" / "evil.py").write_bytes(b"evil")
    found = client.verify_by_files(model)
    assert found.identified is not None and found.verdict.exit_status == 3
    assert "other bytes: README.md" in found.identified.basis
    said = [fact.text for fact in found.verdict.row("bytes").facts]
    assert ".cache/huggingface/download/evil.py: not in the manifest" in said


def test_what_no_node_knows_is_not_identified(client: Client, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    empty = client.verify_by_files(tmp_path / "mine")
    assert empty.why is not None and (empty.why.code, empty.why.why) == ("UNIDENTIFIED", "it has no file")
    (tmp_path / "mine" / "own.bin").write_bytes(b"nobody has this")
    found = client.verify_by_files(tmp_path / "mine")
    assert (found.identified, found.verdict.exit_status) == (None, 5)
    assert found.why is not None and found.why.code == "UNIDENTIFIED"
    assert "no node knows any of its 1 files" in found.why.why and "comity identify" in found.why.hint


def test_a_folder_above_and_one_with_other_places_have_the_next_step(client: Client, model: Path) -> None:
    above = client.verify_by_files(model.parent).why
    assert above is not None and above.hint == f"comity verify {model}"
    (model / "blobs").mkdir()
    for number, path in enumerate(FILES):
        (model / path).rename(model / "blobs" / f"sha256-{number}")
    moved = client.verify_by_files(model).why
    assert moved is not None and "3 of 3 files are of published artifacts" in moved.why


def test_without_pinned_nodes_the_verdict_is_that_of_the_folder_alone(model: Path, tmp_path: Path) -> None:
    found = Client(Home(tmp_path / "other")).verify_by_files(model)
    assert found.verdict.exit_status in (4, 5) and not found.verdict.accepted
    assert found.why is not None and found.why.code == "NO-NODES"


def test_of_many_paths_the_first_are_named() -> None:
    assert some(("a", "b", "c", "d", "e")) == "a, b, c and 2 more"
    assert some(("a",)) == "a"
