"""Weight files that no node knows, whose tensors are published: asked of nodes that answer over the wire."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from comity.rules.pieces import SMALL_TENSOR, TENSOR_LAYOUT
from comity.trust.encoding import Digest, sha256
from comity.wire.files import FilePrefixes, FoundFiles, file_pair
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identify import same_tensors
from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import Identified
from comity_client.identify.same_tensors import ASKED
from comity_client.identify.tensors import SameTensors
from support.fakes import FakeFederation, FakeNode, release
from support.weights import gguf, safetensors

LARGE = 300 * 1024
MODEL = {name: random.Random(name).randbytes(LARGE) for name in ("a", "b", "c", "d")}
OTHER = {"a": MODEL["a"], "x": random.Random("x").randbytes(LARGE)}
PUBLISHED = safetensors(MODEL)


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    folder = tmp_path_factory.mktemp("tensors")
    federation = FakeFederation(("CH", "SG"))
    with federation.running() as running:
        by = running.publisher
        other = {"model.safetensors": safetensors(OTHER)}
        running.publish(release(folder / "other", other, by=by, name="swiss-ai/other@v1"))
        running.publish(release(folder / "first", {"model.safetensors": PUBLISHED, "README.md": b"# Tiny"}, by=by))
        running.publish(release(folder / "gguf", {"m.gguf": gguf(MODEL)}, by=by, name="swiss-ai/gguf@v1"))
        yield running


@pytest.fixture
def client(running: FakeFederation, tmp_path: Path) -> Client:
    made = Client(Home(tmp_path / "home"))
    made.pin(running.file())
    return made


def identify(client: Client, folder: Path, *files: bytes) -> Identified:
    folder.mkdir()
    for number, data in enumerate(files):
        (folder / f"sha256-{number}").write_bytes(data)
    return client.identify([folder])


def only(found: Identified) -> tuple[str, SameTensors]:
    (same,) = found.tensors.same
    return found.tensors.artifacts[same.artifact].title, same


def test_tensors_under_other_names_in_two_shards_are_those_of_the_artifact_and_the_files_stay_unknown(
    client: Client, tmp_path: Path
) -> None:
    names = {f"model.{name}": data for name, data in MODEL.items()}
    shards = [safetensors(dict(list(names.items())[start : start + 2])) for start in (0, 2)]
    found = identify(client, tmp_path / "m", *shards)
    title, same = only(found)
    assert title in ("swiss-ai/tiny@v1", "swiss-ai/gguf@v1")
    assert (same.compared.all_same, same.compared.same, len(same.compared.renamed)) == (same.compared.same == 4, 4, 4)
    assert {each.path.name for each in same.files} == {"sha256-0", "sha256-1"}
    assert len(found.matched.unknown) == 2 and not found.artifacts


def test_a_file_too_small_for_a_piece_that_nodes_are_asked_about_is_not_opened(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[str]()

    def watched(file: DiskFile, *_: object) -> None:
        opened.append(file.path.name)

    monkeypatch.setattr(same_tensors, "read_weight_file", watched)
    identify(client, tmp_path / "m", b"small", bytes(SMALL_TENSOR))
    assert opened == ["sha256-1"]


def test_the_artifact_with_most_of_the_tensors_is_named_and_the_changed_one(client: Client, tmp_path: Path) -> None:
    title, same = only(identify(client, tmp_path / "m", safetensors({**OTHER, "x": OTHER["x"][:-1] + b"\0"})))
    assert same.compared.same == 1
    title, same = only(identify(client, tmp_path / "n", safetensors({**MODEL, "b": MODEL["b"][:-1] + b"\0"})))
    assert (title, same.compared.changed) == ("swiss-ai/tiny@v1", ("b",))


def test_a_changed_file_of_a_folder_and_a_truncated_one_are_compared(client: Client, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(PUBLISHED[:-1])
    (tmp_path / "m" / "README.md").write_bytes(b"# Tiny")
    found = client.identify([tmp_path / "m"])
    assert found.matched.folders[0].changed == ("model.safetensors",)
    title, same = only(found)
    assert (title, same.compared.cut, same.compared.same) == ("swiss-ai/tiny@v1", ("d",), 3)


def test_another_chat_template_of_a_gguf_file(client: Client, tmp_path: Path) -> None:
    found = identify(client, tmp_path / "m", gguf(MODEL, texts={"tokenizer.chat_template": "{{ other }}"}))
    assert only(found)[1].compared.all_same


def test_nothing_is_said_of_other_tensors_and_no_piece_is_asked_for_of_other_files(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, true = list[FilePrefixes](), FakeNode.files

    async def counted(self: FakeNode, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        asked.append(prefixes)
        async for part in true(self, prefixes):
            yield part

    monkeypatch.setattr(FakeNode, "files", counted)
    mine = safetensors({f"{number}": random.Random(number).randbytes(LARGE) for number in range(ASKED + 3)})
    assert identify(client, tmp_path / "m", b"text").tensors.same == ()
    assert not any(each.pieces for each in asked)
    assert identify(client, tmp_path / "n", mine).tensors.same == ()
    questions = [each for each in asked if each.pieces and each.prefixes]
    assert questions and all(len(each.prefixes) <= ASKED for each in questions)


def pieces_of(data: bytes, node: FakeNode) -> list[bytes]:
    records = node.records_held[sha256(data), TENSOR_LAYOUT]
    return [records[at + 4 : at + 20] for at in range(0, len(records), 36)]


def lie(node: FakeNode, data: bytes, files: list[Digest], monkeypatch: pytest.MonkeyPatch, bits: int = 0) -> None:
    """The node says that published files, and others, have all the pieces of a file."""
    true = node.files

    async def invents(prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        async for part in true(prefixes):
            yield part
        if prefixes.pieces and prefixes.prefixes:
            for file in files:
                yield FoundFiles(0, 0, b"".join(file_pair(piece, file) for piece in data_pieces))

    data_pieces = pieces_of(data, node)
    monkeypatch.setattr(node, "files", invents, raising=False)


def test_what_a_node_invents_names_no_artifact_and_hides_none(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = safetensors({**MODEL, "b": MODEL["b"][:-1] + b"\0"})
    false = [sha256(safetensors(OTHER)), *(sha256(b"%d" % number) for number in range(20))]
    lie(running.nodes[0], PUBLISHED, false, monkeypatch)
    title, same = only(identify(client, tmp_path / "m", here))
    assert (title, same.compared.changed) == ("swiss-ai/tiny@v1", ("b",))
    monkeypatch.setattr(same_tensors, "MAX_FILES", 3)
    assert len(identify(client, tmp_path / "n", here).tensors.same) <= 1


def test_of_a_file_whose_header_no_node_gives_nothing_is_said(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in running.nodes:
        monkeypatch.setattr(node, "lies_about", {sha256(PUBLISHED), sha256(gguf(MODEL)), sha256(safetensors(OTHER))})
    found = identify(client, tmp_path / "m", safetensors({**MODEL, "b": MODEL["a"]}))
    assert (found.tensors.same, len(found.matched.unknown)) == ((), 1)
