"""`comity kit new`, `build` and `show`, on folders and over nodes that answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.rules.kits.description import KIT_FILE, Kit
from comity.trust.errors import Malformed, NotFound
from comity_cli.commands.kit import command
from comity_cli.commands.kit_build import SHOWN
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, release
from support.kit_recipes import make_wheel
from support.kits import WHEEL_FILE, a_kit
from support.run_command import printed, refused, run, said

FILES = {part.path: part.path.encode() for part in a_kit().parts} | {KIT_FILE: a_kit().encode()}


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation(("CH", "SG")).running() as running:
        folder = tmp_path_factory.mktemp("kits")
        running.publish(release(folder / "kit", FILES, by=running.publisher, name="swiss-ai/chat@v1"))
        without = {path: data for path, data in FILES.items() if path != WHEEL_FILE}
        running.publish(release(folder / "partial", without, by=running.publisher, name="swiss-ai/partial@v1"))
        running.publish(release(folder / "none", {"a.txt": b"a"}, by=running.publisher, name="swiss-ai/none@v1"))
        broken = {**FILES, KIT_FILE: b"{}"}
        running.publish(release(folder / "broken", broken, by=running.publisher, name="swiss-ai/broken@v1"))
        yield running


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pinned(running: FakeFederation, tmp_path: Path) -> None:
    Client(Home(tmp_path / "home")).pin(running.file())


@pytest.mark.parametrize("shape", ["chat", "embeddings"])
def test_a_new_recipe_builds_twice_into_equal_kits(tmp_path: Path, shape: str) -> None:
    document = printed(command, "new", "our-kit", "--shape", shape)
    assert (document["shape"], document["wheels"]) == (shape, 0)
    first, again = (printed(command, "build", "our-kit", name) for name in ("one", "two"))
    assert first["artifact"] == again["artifact"] and first["service"] == shape and first["problems"] == []
    assert Kit.parse((tmp_path / "one" / KIT_FILE).read_bytes()).engine.command[0] == "{python}"
    compile((tmp_path / "one" / "engine" / "serve.py").read_text(), "serve.py", "exec")
    assert printed(command, "show", "two")["artifact"] == first["artifact"]


def test_a_new_recipe_locks_the_wheels_of_a_folder(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "a", tag="cp311-cp311-manylinux_2_17_x86_64")
    make_wheel(tmp_path / "wheels", "a", tag="cp312-cp312-manylinux_2_17_x86_64")
    make_wheel(tmp_path / "wheels", "b")
    document = printed(command, "new", "x", "--wheels", "wheels", "--out", "recipes/x")
    assert (document["recipe"], document["distributions"], document["wheels"]) == ("recipes/x", 2, 3)
    make_wheel(tmp_path / "wheels", "b", "2.0")
    assert "two versions" in str(refused(command, "new", "y", "--wheels", "wheels"))
    (tmp_path / "wheels" / "c-1.tar.gz").write_bytes(b"")
    assert refused(command, "new", "y", "--wheels", "wheels").code == "KIT-WHEEL"
    assert not (tmp_path / "y").exists()


def test_a_name_that_no_kit_has_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    assert isinstance(refused(command, "new", "Our Kit"), Malformed)
    said(command, "new", "our-kit")
    assert refused(command, "new", "our-kit").code == "CONFLICT"


def test_what_was_built_is_told_with_the_next_step(tmp_path: Path) -> None:
    said(command, "new", "our-kit")
    result = run(command, "build", "our-kit", "kit")
    assert "our-kit, chat" in result.output
    assert "comity publish kit --as ORG/our-kit@v1" in result.output


def test_a_folder_that_was_changed_is_shown_with_what_is_wrong(tmp_path: Path) -> None:
    said(command, "new", "our-kit")
    said(command, "build", "our-kit", "kit")
    (tmp_path / "kit" / "engine" / "serve.py").write_text("other")
    (tmp_path / "kit" / "engine" / "start.sh").write_text("other")
    assert printed(command, "show", "kit", status=3)["problems"] == [
        "engine/serve.py has 5 bytes, not 1983",
        "engine/start.sh is no part of the kit",
    ]
    for number in range(SHOWN):
        (tmp_path / "kit" / "engine" / f"{number}.py").write_text("other")
    assert "and 2 more files not as the kit says" in run(command, "show", "kit").output
    (tmp_path / "kit" / KIT_FILE).write_text("{}")
    assert refused(command, "show", "kit").code == "KIT"
    (tmp_path / "kit" / KIT_FILE).unlink()
    assert isinstance(refused(command, "show", "kit"), NotFound)


@pytest.mark.usefixtures("pinned")
def test_a_kit_at_nodes_is_shown_by_its_description() -> None:
    document = printed(command, "show", "swiss-ai/chat@v1")
    assert (document["name"], document["engine"], document["problems"]) == ("tiny-chat", "engine", [])
    assert document["weights"][0]["files"] == ["weights/tiny.gguf"]
    assert "swiss-ai/tiny@v1" in said(command, "show", "swiss-ai/chat@v1")


@pytest.mark.usefixtures("pinned")
def test_an_artifact_that_is_no_whole_kit_is_said_to_be_none() -> None:
    partial = printed(command, "show", "swiss-ai/partial@v1", status=3)
    assert partial["problems"] == [f"{WHEEL_FILE} is missing"]
    assert refused(command, "show", "swiss-ai/none@v1").code == "NO-KIT"
    assert refused(command, "show", "swiss-ai/broken@v1").code == "KIT"
