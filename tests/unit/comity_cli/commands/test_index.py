"""`comity index` and `comity identify --index`: what is printed, and the exit status."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from comity.rules.file_records import MEMBERS, OTHERS
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.wire.files import FileIndexPart
from comity_cli.commands.identify import command as identify
from comity_cli.commands.index import command
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, release
from support.file_indexes import index_parts, record_of
from support.run_command import printed, run

FILES = {"config.json": b'{"model_type": "tiny"}', "README.md": b"# Tiny\n"}


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    federation = FakeFederation(("CH", "SG", "ES"))
    with federation.running() as running:
        running.publish(release(tmp_path_factory.mktemp("index") / "one", FILES, by=running.publisher))
        yield running


@pytest.fixture(name="model", autouse=True)
def _model(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, in the working folder of a user who pinned the federation."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    Client(Home(tmp_path / "home")).pin(running.file())
    for name, data in FILES.items():
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(data)
    return Path("model")


def test_an_index_is_fetched_shown_and_carried_to_another_machine(
    running: FakeFederation, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "No index of files is here" in run(command, "show").output
    fetched = printed(command, "fetch")["fetched"]
    assert [(each["problem"], each["index"]["records"]) for each in fetched] == [("", 1)] * 3
    assert "0 new records" in run(command, "fetch").output
    shown = run(command, "show").output
    assert "node-ch.example" in shown and "nothing" in shown
    assert "comity index import 'a stick.bin'" in run(command, "export", "a stick.bin").output
    assert "3 indexes" in run(command, "export", "stick.bin").output
    monkeypatch.setenv("COMITY_HOME", "other")
    Client(Home(Path("other"))).pin(running.file())
    taken = printed(command, "import", "stick.bin")["indexes"]
    assert taken == printed(command, "show")["indexes"] and len(taken) == 3
    assert printed(identify, model, "--index", status=5)["named"]


def test_a_damaged_index_is_told_by_each_command_and_the_others_are_used(model: Path, tmp_path: Path) -> None:
    run(command, "fetch")
    state, *_ = sorted((tmp_path / "home" / "indexes").glob("*.json"))
    state.write_bytes(b"{")
    for words in (("show",), ("export", "stick.bin")):
        result = run(command, *words)
        told = " ".join(result.output.split())
        assert result.exit_code == 3 and f"{state}: " in told and "to replace it: comity index fetch" in told
    document = printed(command, "show", status=3)
    assert len(document["indexes"]) == 2 and [each["id"] for each in document["refused"]] == [state.stem]
    assert [each["id"] for each in printed(command, "export", "stick.bin", status=3)["refused"]] == [state.stem]
    assert len(printed(command, "import", "stick.bin")["indexes"]) == 2
    assert f"{state}: " in " ".join(run(identify, model, "--index").output.split())
    assert run(command, "fetch").exit_code == 0
    assert len(printed(command, "show")["indexes"]) == 3


def test_where_every_index_is_damaged_none_is_exported(model: Path, tmp_path: Path) -> None:
    run(command, "fetch")
    for state in (tmp_path / "home" / "indexes").glob("*.json"):
        state.write_bytes(b"{")
    assert "No index" not in run(command, "show").output
    refused = run(command, "export", "stick.bin").exception
    assert isinstance(refused, Malformed) and refused.hint == "comity index fetch"
    assert not Path("stick.bin").exists()


def test_what_an_index_names_is_neither_proven_nor_unknown(model: Path) -> None:
    run(command, "fetch")
    document = printed(identify, model, "--index", status=5)
    assert {(each["claimed_name"], each["of_members"], len(each["nodes"])) for each in document["named"]} == {
        ("swiss-ai/tiny@v1", True, 3)
    }
    assert (document["unknown"], document["artifacts"], document["folders"]) == ([], [], [])
    assert all(each["as_of"] for each in document["nodes"])
    output = run(identify, model, "--index").output
    for said in ("NAMED, NOT PROVEN", "2 named by an index", "0 unknown", "signed 2026-", "the same without --index"):
        assert said in output
    run(identify, model, "--index", "--html", "page.html", "--sarif", "found.sarif")
    page = Path("page.html").read_text("utf-8")
    assert "Named by an index, not proven: 2" in page and "none was asked" in page and "signed 2026-" in page
    results = json.loads(Path("found.sarif").read_text("utf-8"))["runs"][0]["results"]
    assert [each["ruleId"] for each in results] == ["named-file"] * 2
    assert "accepted" not in output and "is of" not in output.casefold()
    assert printed(identify, model)["nodes"][0]["as_of"] is None


def test_a_file_is_in_no_index(model: Path) -> None:
    run(command, "fetch")
    Path("mine").write_bytes(b"nobody has this")
    assert [each["file"] for each in printed(identify, "mine", "--index", status=9)["unknown"]] == ["mine"]
    output = run(identify, "mine", "--index").output
    assert "IN NO INDEX" in output and "no node knows" not in output.casefold()


def test_without_an_index_the_next_step_is_named(model: Path) -> None:
    for arguments in ((identify, model, "--index"), (command, "export", "x")):
        refused = run(*arguments).exception
        assert isinstance(refused, NotFound) and refused.hint == "comity index fetch"


def test_an_index_that_its_node_computed_again_is_said_to_be_fetched_whole(
    running: FakeFederation, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a change of the charter. It was told as no new record, with all bytes of the index."""
    answering, one = running.nodes[0], ("fetch", "--node", running.nodes[0].node.record.name)
    assert printed(command, *one)["fetched"][0]["replaced"] is False
    artifact = printed(identify, model, "--index", status=5)["named"][0]["artifact"]

    async def computed_again(after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        record = record_of(answering.blobs[artifact], "swiss-ai/tiny@v1", whose)
        for part in index_parts([record], answering.node, after, head):
            yield part

    monkeypatch.setattr(answering, "file_index", computed_again, raising=False)
    whose = OTHERS
    said = run(command, *one).output
    assert "1 new record," in said and "fetched whole: the node computed its index again" in said
    whose = MEMBERS
    assert printed(command, *one)["fetched"][0]["replaced"] is True


def test_a_node_that_fails_is_told(running: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        raise Unavailable("its disk is full")
        yield FileIndexPart()

    monkeypatch.setattr(running.nodes[0], "file_index", fails, raising=False)
    document = printed(command, "fetch", status=5)
    assert sorted(bool(each["problem"]) for each in document["fetched"]) == [False, False, True]
    assert "its disk is full" in run(command, "fetch", "--node", running.nodes[0].node.record.name).output
