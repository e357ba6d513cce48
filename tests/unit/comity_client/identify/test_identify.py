"""What files are, asked of nodes that answer over the wire: true, silent and lying ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.wire.files import FilePrefixes, FoundFiles, file_pair, file_reference
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identify import identify, lookup
from comity_client.identify.identify import Identified
from comity_client.session import Session
from support.fakes import FakeFederation, FakeNode, release
from support.known_files import FILES, LATER, two_versions, written


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with two_versions(tmp_path_factory.mktemp("identify")) as running:
        yield running


@pytest.fixture
def client(running: FakeFederation, tmp_path: Path) -> Client:
    made = Client(Home(tmp_path / "home"))
    made.pin(running.file())
    return made


def titles(found: Identified) -> dict[str, str]:
    return {each.folder.name: found.artifacts[each.artifact].title for each in found.matched.folders}


def test_folders_are_the_versions_that_they_are_and_the_policy_judges_them(client: Client, tmp_path: Path) -> None:
    first, later = written(tmp_path / "one", FILES), written(tmp_path / "two", LATER)
    found = client.identify([first, later])
    assert titles(found) == {"one": "swiss-ai/tiny@v1", "two": "swiss-ai/tiny@v2"}
    assert all(each.verdict is not None and each.verdict.accepted for each in found.artifacts.values())
    assert (found.matched.unknown, found.unsure, found.files) == ((), (), 6)
    assert all(node.complete for node in found.nodes)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert before == {first / path: data for path, data in FILES.items()}


def test_a_file_of_nobody_is_unknown_only_where_all_nodes_that_answer_said_all(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = written(tmp_path / "m", {"mine.bin": b"nobody has this"})
    found = client.identify([here])
    assert [each.path.name for each in found.matched.unknown] == ["mine.bin"]

    def unfinished(prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        return answer(FoundFiles(10, 3))

    def cut(prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        return answer(FoundFiles(10, 0, cut=prefixes.prefixes))

    for lie in (unfinished, cut):
        with monkeypatch.context() as patched:
            patched.setattr(running.nodes[1], "files", lie, raising=False)
            found = client.identify([here])
        assert (found.matched.unknown, [each.path.name for each in found.unsure]) == ((), ["mine.bin"])


async def answer(*parts: FoundFiles) -> AsyncGenerator[FoundFiles, None]:
    for part in parts:
        yield part


def test_what_one_node_leaves_out_another_one_says(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in running.nodes[1:]:
        monkeypatch.setattr(node, "files", lambda prefixes: answer(FoundFiles(0, 0)), raising=False)
    assert titles(client.identify([written(tmp_path / "m", FILES)])) == {"m": "swiss-ai/tiny@v1"}


def test_what_a_node_invents_names_no_file(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One names a published artifact that has not this file, another one an artifact that does not exist."""
    mine = file_reference(sha256(b"mine"))
    published = next(each for each in running.nodes[0].blobs if b"manifest/v1" in running.nodes[0].blobs[each])
    for node, artifact in zip(running.nodes, (published, Digest("ab" * 32)), strict=False):
        said = FoundFiles(2, 0, file_pair(mine, artifact))
        monkeypatch.setattr(node, "files", lambda prefixes, said=said: answer(said), raising=False)
    found = client.identify([written(tmp_path / "m", {"x": b"mine"})])
    assert (found.matched.folders, found.matched.files, found.artifacts) == ((), (), {})
    assert [each.path.name for each in found.matched.unknown] == ["x"]


def test_a_false_claim_about_one_artifact_hides_no_other_one(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node says that the first version has a file that only the second one has."""
    later = file_reference(sha256(LATER["README.md"]))
    manifests = [data for data in running.nodes[0].blobs.values() if b"manifest/v1" in data]
    first = next(sha256(each) for each in manifests if sha256(FILES["README.md"]).encode() in each)
    true = running.nodes[0].files

    async def more(prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        async for part in true(prefixes):
            yield part
        yield FoundFiles(7, 0, file_pair(later, first))

    monkeypatch.setattr(running.nodes[0], "files", more, raising=False)
    found = client.identify([written(tmp_path / "m", FILES), written(tmp_path / "n", {"README": LATER["README.md"]})])
    assert titles(found) == {"m": "swiss-ai/tiny@v1"}
    assert [found.artifacts[each.artifact].title for each in found.matched.files] == ["swiss-ai/tiny@v2"]


def test_a_node_that_invents_artifacts_without_end_is_asked_for_a_bounded_number(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, asked, fetch = file_reference(sha256(b"mine")), list[Digest](), identify._manifest

    async def counted(session: Session, artifact: Digest) -> Manifest | None:
        asked.append(artifact)
        return await fetch(session, artifact)

    said = FoundFiles(200, 0, b"".join(file_pair(mine, sha256(b"%d" % number)) for number in range(100)))
    monkeypatch.setattr(running.nodes[0], "files", lambda prefixes: answer(said), raising=False)
    monkeypatch.setattr(identify, "_manifest", counted)
    monkeypatch.setattr(identify, "MAX_LOOKED_AT", 20)
    found = client.identify([written(tmp_path / "m", {"x": b"mine"})])
    assert len(asked) == 20
    assert (found.matched.unknown, [each.path.name for each in found.unsure]) == ((), ["x"])


def test_a_node_learns_as_many_bits_of_a_known_file_as_of_an_unknown_one(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[FilePrefixes]()
    true = FakeNode.files

    async def many(self: FakeNode, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        asked.append(prefixes)
        yield FoundFiles(10**9, 0)
        async for part in true(self, prefixes):
            yield part

    monkeypatch.setattr(FakeNode, "files", many)
    here = written(tmp_path / "m", {**FILES, "mine.bin": b"nobody has this"})
    assert titles(client.identify([here])) == {"m": "swiss-ai/tiny@v1"}
    questions = [each for each in asked if each.prefixes]
    assert len(questions) == len(running.nodes)
    assert {(each.bits, len(each.prefixes)) for each in questions} == {(20, len(FILES) + 1)}


def test_many_files_are_asked_about_some_at_a_time_and_a_node_that_fails_once_is_not_asked_again(
    client: Client, running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, true = list[tuple[FakeNode, int]](), FakeNode.files

    async def failing(self: FakeNode, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        asked.append((self, len(prefixes.prefixes)))
        if self is running.nodes[1] and len(asked) > len(running.nodes) * 2:
            raise Unavailable("the disk is gone")
        yield FoundFiles(10**9, 0)
        async for part in true(self, prefixes):
            yield part

    monkeypatch.setattr(FakeNode, "files", failing)
    monkeypatch.setattr(lookup, "TOGETHER", 2)
    others = {f"other-{number}": b"%d" % number for number in range(6)}
    found = client.identify([written(tmp_path / "m", FILES), written(tmp_path / "n", others)])
    assert titles(found) == {"m": "swiss-ai/tiny@v1"}
    assert {each.path.name for each in found.matched.unknown} == {*others}
    first, second = ([count for node, count in asked if node is each] for each in running.nodes[:2])
    assert sum(first) == len(FILES) + len(others) and max(first) == 2
    assert 0 < sum(second) < sum(first)
    assert [bool(node.problem) for node in found.nodes[:2]] == [False, True]


def test_a_changed_file_a_missing_one_and_one_elsewhere_are_told_apart(client: Client, tmp_path: Path) -> None:
    here = written(tmp_path / "m", {**FILES, "README.md": b"changed", "extra": b"extra"})
    (here / "sub" / "tokens.json").unlink()
    blob = written(tmp_path / "blobs", {"sha256-ab": FILES["README.md"]})
    found = client.identify([here, blob])
    (folder,) = found.matched.folders
    assert (folder.changed, folder.missing, folder.extra) == (("README.md",), ("sub/tokens.json",), ("extra",))
    assert [(each.file.path.name, each.path) for each in found.matched.files] == [("sha256-ab", "README.md")]
    assert {each.path.name for each in found.matched.unknown} == {"README.md", "extra"}


def test_an_artifact_that_the_policy_refuses_is_refused_in_the_words_of_a_pull(
    client: Client, running: FakeFederation, tmp_path: Path
) -> None:
    made = release(tmp_path / "odd", {"weights.bin": bytes(range(256))}, by=running.publisher, name="swiss-ai/odd@v1")
    running.publish(made)
    found = client.identify([tmp_path / "odd"])
    (known,) = found.artifacts.values()
    with pytest.raises(Exception, match="file safety") as refused:
        client.pull("swiss-ai/odd@v1", to=tmp_path / "pulled")
    assert known.problem.startswith(str(refused.value).split(";")[0])
    assert known.verdict is not None and known.exit_status == known.verdict.exit_status == 4


def test_without_an_answer_nothing_is_said(client: Client, running: FakeFederation, tmp_path: Path) -> None:
    async def refuses(self: FakeNode, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        raise Unavailable("the disk is full")
        yield FoundFiles(0, 0)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeNode, "files", refuses)
        with pytest.raises(Unavailable):
            client.identify([written(tmp_path / "m", FILES)])


def test_where_there_is_no_file_no_node_is_asked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = Client(Home(tmp_path / "home")).identify([tmp_path / "empty"])
    assert (found.files, found.nodes) == (0, ())
