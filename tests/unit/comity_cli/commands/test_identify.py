"""`comity identify`: what is printed, and the exit status, over nodes that answer."""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from comity.wire.files import FilePrefixes, FoundFiles
from comity_cli.commands.identify import command
from comity_client.client import Client
from comity_client.home import Home
from support.derivations import derived_line
from support.fakes import FakeFederation, FakeNode, release
from support.run_command import printed, run
from support.stores import hub_cache
from support.weights import safetensors

FILES = {"config.json": b'{"model_type": "tiny"}', "README.md": b"# Tiny\n"}


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    federation = FakeFederation(("CH", "SG", "ES"))
    with federation.running() as running:
        folder = tmp_path_factory.mktemp("identify")
        running.publish(release(folder / "one", FILES, by=running.publisher))
        odd = {"weights.bin": bytes(range(256))}
        running.publish(release(folder / "odd", odd, by=running.publisher, name="swiss-ai/odd@v1"))
        yield running


@pytest.fixture(name="model")
def _model(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, in the working folder of a user who pinned the federation."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Client(Home(tmp_path / "home")).pin(running.file())
    for name, data in FILES.items():
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(data)
    return Path("model")


def test_a_complete_folder_is_named_judged_and_given_a_next_step(model: Path) -> None:
    ran = run(command, model)
    assert ran.exit_code == 0
    for said in (
        "swiss-ai/tiny@v1",
        "complete",
        "accepted by the policy",
        "2 files",
        "0 unknown",
        "comity adopt model",
    ):
        assert said in ran.output
    document = printed(command, model)
    (folder,) = document["folders"]
    assert (folder["folder"], folder["state"], folder["present"], folder["missing"]) == ("model", "complete", 2, [])
    (artifact,) = document["artifacts"]
    assert (artifact["title"], artifact["accepted"], document["exit_status"]) == ("swiss-ai/tiny@v1", True, 0)


def test_a_file_is_missing(model: Path) -> None:
    (model / "README.md").unlink()
    assert printed(command, model, status=8)["folders"][0]["missing"] == ["README.md"]
    assert "as far as its files are here" in run(command, model).output


def test_a_file_lies_elsewhere(model: Path) -> None:
    (model / "README.md").rename("blob")
    (found,) = printed(command, "blob", status=8)["files"]
    assert (found["file"], found["path"]) == ("blob", "README.md")


def test_a_file_has_other_bytes(model: Path) -> None:
    (model / "README.md").write_bytes(b"other")
    document = printed(command, model, status=3)
    assert document["folders"][0]["changed"] == ["README.md"]
    assert [each["file"] for each in document["unknown"]] == ["model/README.md"]


def test_nobody_knows_a_file(model: Path) -> None:
    for number in range(22):
        Path(f"mine-{number:02}").write_bytes(b"%d" % number)
    names = [f"mine-{number:02}" for number in range(22)]
    document = printed(command, *names, status=9)
    assert [each["file"] for each in document["unknown"]] == names
    ran = run(command, *names)
    assert "mine-19" in ran.output and "mine-20" not in ran.output and "and 2 files more" in ran.output
    assert "mine-21" in run(command, *names, "--all").output


def test_the_policy_refuses_an_artifact(model: Path) -> None:
    Path("weights.bin").write_bytes(bytes(range(256)))
    document = printed(command, "weights.bin", status=4)
    assert not document["artifacts"][0]["accepted"] and "file safety" in document["artifacts"][0]["problem"]


def test_nodes_said_not_all(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reading(self: FakeNode, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        yield FoundFiles(5, 7)

    monkeypatch.setattr(FakeNode, "files", reading)
    document = printed(command, model, status=5)
    assert len(document["unsure"]) == 2 and not document["unknown"]
    assert {each["unread"] for each in document["nodes"]} == {7}
    assert "has not read 7 statements yet" in run(command, model).output


def test_there_is_no_file_or_one_that_cannot_be_read(model: Path) -> None:
    Path("empty").mkdir()
    assert printed(command, "empty", status=5)["read_files"] == 0
    (model / "gone").symlink_to("nothing")
    assert printed(command, model, status=5)["unread"][0]["path"] == "model/gone"
    assert "1 path not read: a link to nothing: model/gone" in run(command, model).output


def test_an_unknown_archive_in_an_archive_is_said_to_be_not_looked_into(model: Path) -> None:
    """Of one that an artifact has as a file, nothing is left to say."""
    with zipfile.ZipFile("inner.zip", "w") as inner:
        inner.writestr("config.json", FILES["config.json"])
    with zipfile.ZipFile("outer.zip", "w") as outer:
        outer.write("inner.zip")
        outer.writestr("renamed.tar", FILES["README.md"])
    document = printed(command, "outer.zip", status=9)
    assert [each["file"] for each in document["unknown"]] == ["outer.zip!/inner.zip"]
    assert document["unread"] == [
        {"path": "outer.zip!/inner.zip!", "problem": "an archive in an archive: not looked into"}
    ]
    said = " ".join(run(command, "outer.zip").output.split())
    assert "1 path not read: an archive in an archive: not looked into: outer.zip!/inner.zip!" in said


def test_hostile_names_are_printed_on_one_line_without_control_characters(model: Path) -> None:
    names = (b"new\nline", b"\x1b[2J", "\u202etxt.exe".encode(), b"\xff\xfe")
    for name in names:
        (model / os.fsdecode(name)).write_bytes(name)
    ran = run(command, model)
    assert ran.exit_code == 9
    assert not any(sign in ran.output for sign in ("\x1b", "\u202e", "new\nline"))
    assert len(printed(command, model, status=9)["unknown"]) == len(names)


def test_a_snapshot_of_a_hub_cache_is_named_as_the_cache_names_it(model: Path) -> None:
    hub_cache(Path("hub"), "org/tiny", "1f" * 20, FILES, "main")
    (folder,) = printed(command, "hub")["folders"]
    assert (folder["stored_as"], folder["state"]) == ("org/tiny@main", "complete")
    assert "stored as org/tiny@main" in run(command, "hub").output


def test_a_complete_artifact_in_an_archive_is_not_inspected_and_no_success(model: Path) -> None:
    with zipfile.ZipFile("tiny.zip", "w") as archive:
        for name in FILES:
            archive.write(model / name, f"tiny/{name}")
    ran = run(command, "tiny.zip")
    assert ran.exit_code == 8 and "as far as its files are here" in ran.output and "unpack tiny.zip" in ran.output
    document = printed(command, "tiny.zip", status=8)
    (folder,) = document["folders"]
    assert (folder["folder"], folder["state"], folder["within"]) == ("tiny.zip!/tiny", "complete", "tiny.zip")
    assert (document["unknown"], document["read_files"]) == ([], 1)


def test_a_page_and_results_for_dashboards_are_written_beside_what_is_printed(model: Path) -> None:
    (model / "README.md").write_bytes(b"other")
    document = printed(command, model, "--html", "found.html", "--sarif", "found.sarif", status=3)
    assert "swiss-ai/tiny@v1" in Path("found.html").read_text()
    (found,) = json.loads(Path("found.sarif").read_text())["runs"]
    assert {each["ruleId"] for each in found["results"]} == {"changed-file", "unknown-file"}
    assert found["invocations"][0]["exitCode"] == document["exit_status"] == 3


def test_a_weight_file_of_nobody_has_the_tensors_of_an_artifact(running: FakeFederation, model: Path) -> None:
    tensors = {name: random.Random(name).randbytes(300 * 1024) for name in "abc"}
    made = release(
        model.absolute().parent / "published",
        {"model.safetensors": safetensors(tensors)},
        by=running.publisher,
        name="swiss-ai/weights@v1",
    )
    running.publish(made)
    Path("mine").write_bytes(safetensors({"x": tensors["a"], "b": bytes(300 * 1024), "c": tensors["c"]}))
    document = printed(command, "mine", status=9)
    (item,) = document["tensors"]
    assert (item["title"], item["files"], item["same"], item["tensors"]) == ("swiss-ai/weights@v1", ["mine"], 2, 3)
    assert (item["renamed"], item["changed"]) == ({"count": 1, "names": ["x = a"]}, {"count": 1, "names": ["b"]})
    assert (item["all_same"], [each["file"] for each in document["unknown"]]) == (False, ["mine"])
    assert document["tensors_of"][0]["artifact"] == item["artifact"] and document["artifacts"] == []
    ran = run(command, "mine").output
    for said in ("2 of 3 tensors", "1 renamed", "other bytes: b", "swiss-ai/weights@v1"):
        assert said in " ".join(ran.split())


def test_of_what_an_artifact_was_quantised_is_said_as_the_word_of_who_computed_it(
    running: FakeFederation, model: Path
) -> None:
    made = release(model.absolute().parent / "child", {"q.txt": b"q"}, by=running.publisher, name="swiss-ai/child@v1")
    running.publish(made)
    checker = running.publisher
    for exact in (True, False):
        running.nodes[0].log.append(derived_line(made.published.artifact, by=checker, exact=exact))
    Path("q.txt").write_bytes(b"q")
    (artifact,) = printed(command, "q.txt", status=0)["artifacts"]
    said = [(each["relation"], each["exact"], each["equal"], each["tensors"]) for each in artifact["derived"]]
    assert sorted(said) == [("overlap", False, 50, 101), ("quantized", True, 101, 101)]
    output = " ".join(run(command, "q.txt").output.split())
    assert "quantised from" in output and "50 of 101 tensors follow from" in output and "computed and signed" in output
