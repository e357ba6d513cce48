"""`comity inventory`: taken, compared and told, over nodes that answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest
from comity.trust.statements import Advisory
from comity.webhook_requests import signature
from comity_cli.commands.inventory import command
from comity_client import webhook_events
from comity_client.client import Client
from comity_client.home import Home
from comity_client.inventory.inventory import read_inventory
from support.fakes import FakeFederation, release
from support.run_command import printed, refused, run
from support.webhook_receiver import receiving

FILES = {"config.json": b'{"model_type": "tiny"}', "README.md": b"# Tiny\n"}
KEY = bytes(range(32))
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TAKE = ("take", "model", "--out", "site.json")


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    federation = FakeFederation(("CH", "SG", "ES"))
    with federation.running() as running:
        folder = tmp_path_factory.mktemp("inventory")
        running.publish(release(folder / "one", FILES, by=running.publisher))
        running.publish(release(folder / "warned", {"w.json": b"[1]"}, by=running.publisher, name="swiss-ai/warned@v1"))
        yield running


@pytest.fixture(name="model", autouse=True)
def _model(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, in the working folder of a user who pinned the federation."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(webhook_events, "PAUSES", (0.0, 0.0))
    monkeypatch.chdir(tmp_path)
    Client(Home(tmp_path / "home")).pin(running.file())
    (tmp_path / "model").mkdir()
    for name, data in FILES.items():
        (tmp_path / "model" / name).write_bytes(data)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    return tmp_path / "model"


def advise(running: FakeFederation, artifact: Digest) -> None:
    by = running.publisher
    said = Advisory(by.inception.author, artifact, "malware", "critical", "it calls home")
    running.nodes[0].log.append(sign_content(said, by.signer).line)


def kinds(document: dict[str, list[dict[str, str]]]) -> list[tuple[str, str]]:
    return [(each["kind"], Path(each["path"]).name) for each in document["differences"]]


def test_the_first_inventory_is_recorded_and_the_same_disk_gives_the_same_one(model: Path) -> None:
    ran = run(command, *TAKE)
    assert ran.exit_code == 0
    assert (
        "2 files: 1 artifact (1 accepted), 1 folder (1 complete), 0 unknown files; recorded in site.json" in ran.output
    )
    assert "comity bom site.json" in ran.output
    first = read_inventory(Path("site.json"))
    assert Path("site.json").stat().st_mode & 0o777 == 0o600
    (folder,) = first.folders
    assert (folder.path, folder.state, folder.present) == (str(model), "complete", 2)
    assert {(Path(each.path).name, each.known) for each in first.files} == {(name, "artifact") for name in FILES}
    document = printed(command, *TAKE)
    assert (document["differences"], document["exit_status"]) == ([], 0)
    again = read_inventory(Path("site.json"))
    assert (again.files, again.folders, again.artifacts) == (first.files, first.folders, first.artifacts)


def test_differences_come_first_and_the_file_is_replaced(model: Path) -> None:
    run(command, *TAKE)
    (model / "README.md").write_bytes(b"other")
    (model.parent / "elsewhere").mkdir()
    document = printed(command, *TAKE, status=10)
    assert kinds(document) == [("changed", "model")]
    assert "other bytes: README.md; swiss-ai/tiny@v1, changed" in document["differences"][0]["text"]
    (model / "README.md").unlink()
    (model / "config.json").rename(model.parent / "elsewhere" / "config.json")
    ran = run(command, "take", "model", "elsewhere", "--out", "site.json")
    assert ran.exit_code == 8
    assert ran.output.index("gone") < ran.output.index("recorded in")
    assert run(command, *TAKE).exit_code == 8, "elsewhere is not looked at"


def test_an_advisory_since_the_last_time_is_told_with_a_status_of_its_own(
    running: FakeFederation, tmp_path: Path
) -> None:
    (tmp_path / "model" / "w.json").write_bytes(b"[1]")
    words = (*TAKE, "--metrics", "comity.prom")
    printed(command, *words)
    before = Path("site.json").read_bytes()
    assert 'comity_inventory_differences{kind="warned"} 0\n' in Path("comity.prom").read_text()
    warned = next(each for each in read_inventory(Path("site.json")).artifacts if each.title == "swiss-ai/warned@v1")
    advise(running, warned.artifact)
    with receiving() as receiver:
        document = printed(command, *words, "--notify", receiver.url, "--secret", "secret", status=10)
    assert ("warned", "w.json") in kinds(document)
    told = document["differences"][0]
    assert "swiss-ai/warned@v1: malware (critical) by its publisher: it calls home" in told["text"]
    assert 'comity_inventory_differences{kind="warned"} 1\n' in Path("comity.prom").read_text()
    ((headers, body),) = receiver.got
    made = signature(KEY, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == made
    event = json.loads(body)
    assert event["type"] == "dev.comity.inventory.v1" and event["data"]["counts"]["warned"] == 1
    assert event["data"]["differences"][0] == told
    assert kinds(printed(command, *TAKE)) == []
    Path("before.json").write_bytes(before)
    assert kinds(printed(command, "diff", "before.json", "site.json", status=10)) == kinds(document)


def test_what_a_receiver_did_not_take_is_a_line_and_comes_again(model: Path) -> None:
    run(command, *TAKE)
    (model / "mine").write_bytes(b"mine")
    with receiving(500) as receiver:
        ran = run(command, *TAKE, "--notify", receiver.url, "--secret", "secret")
        assert ran.exit_code == 8 and "1 difference not delivered: the webhook refused" in ran.output
        assert len(receiver.got) == 2
        assert printed(command, *TAKE, "--notify", receiver.url, "--secret", "secret", status=1)["undelivered"] == 1
        receiver.answers = [204]
        assert printed(command, *TAKE, "--notify", receiver.url, "--secret", "secret")["undelivered"] == 0
        assert [each["path"] for each in json.loads(receiver.got[-1][1])["data"]["differences"]] == [str(model)]


def test_what_cannot_be_read_is_a_line_and_nothing_is_gone_for_it(model: Path) -> None:
    run(command, *TAKE)
    (model / "README.md").unlink()
    (model / "README.md").symlink_to("nothing")
    document = printed(command, *TAKE, status=8)
    assert kinds(document) == [("unread", "model")]
    ran = run(command, "take", "model", "nowhere", "--out", "other.json")
    assert "1 path not read: a link to nothing" in ran.output
    assert "1 path not read: No such file or directory" in ran.output


def test_a_file_that_is_no_inventory_is_not_replaced(model: Path) -> None:
    Path("site.json").write_text("{}")
    assert refused(command, *TAKE).code == "INVENTORY"
    assert Path("site.json").read_text() == "{}"


def test_where_no_node_answers_the_inventory_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    run(command, *TAKE)
    before = Path("site.json").read_bytes()
    monkeypatch.setenv("COMITY_HOME", "nothing-pinned")
    assert refused(command, *TAKE).exit_status == 5
    assert Path("site.json").read_bytes() == before


def test_nothing_at_the_paths_is_changed(model: Path) -> None:
    def state() -> dict[str, tuple[int, int, int]]:
        seen = ((path, path.stat()) for path in (model, *model.rglob("*")))
        return {str(path): (found.st_mtime_ns, found.st_ctime_ns, found.st_mode) for path, found in seen}

    before = state()
    run(command, *TAKE)
    assert state() == before


def test_its_own_files_are_left_out(model: Path) -> None:
    for _ in range(2):
        document = printed(command, "take", ".", "--out", "model/site.json", "--metrics", "model/x.prom", status=0)
    assert document["files"] == 3, "the model and the secret"


@pytest.mark.parametrize("words", [("--notify", "https://a.example/"), ("--secret", "secret")])
def test_a_url_without_a_secret_is_refused(words: tuple[str, str]) -> None:
    assert run(command, *TAKE, *words).exit_code == 2


def test_an_unsafe_url_is_refused_before_anything_is_read() -> None:
    assert refused(command, *TAKE, "--notify", "http://10.0.0.1/", "--secret", "secret").code == "WEBHOOKS"
    assert not Path("site.json").exists()


def test_a_path_alone_names_the_command_that_is_missing() -> None:
    ran = run(command, "model")
    assert ran.exit_code == 2 and "comity inventory take model" in str(ran.exception)
