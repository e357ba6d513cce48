"""Kinds of artifacts by the command line: stated, corrected, shown and searched; and the base of an adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.rules.artifact_kind import KindStated
from comity.rules.signing import sign_content
from comity.trust.errors import ComityError
from comity.trust.names import Name
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ARTIFACT_KIND
from comity.wire.artifact import SearchPage
from comity.wire.messages import LocatedEntry
from comity_cli.main import command
from comity_client import artifact_client
from comity_client.client import Client
from comity_client.publishers import Publisher
from support.fakes import FakeFederation, FakeNode
from support.weights import as_tensor
from support.world import signer


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


def run(*words: object, status: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(command, ["--json", *(str(word) for word in words)])
    assert result.exit_code == status, (result.output, result.exception)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def printed(*words: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert result.exception is None or result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*words: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert isinstance(result.exception, ComityError), result.output
    return result.exception.code


class Publishing:
    """Publishes folders with one file each, under the namespace of one publisher."""

    def __init__(self, folder: Path, publisher: Publisher) -> None:
        self.folder, self.namespace = folder, f"lab-{publisher.id[:8]}"

    def name(self, name: str) -> str:
        return f"{self.namespace}/{name}@v1"

    def __call__(self, name: str, *options: object) -> dict[str, Any]:
        source = self.folder / "sources" / name
        source.mkdir(parents=True, exist_ok=True)
        (source / "model.safetensors").write_bytes(as_tensor(name.encode() * 100))
        return run("publish", source, "--licence", "mit", "--as", self.name(name), *options)


@pytest.fixture
def publish(client: Client, tmp_path: Path, publisher: Publisher) -> Publishing:
    return Publishing(tmp_path, publisher)


def stated(federation: FakeFederation, publisher: Publisher) -> int:
    """How many statements of kinds a publisher logged."""
    said = [parse_entry(line).statement for line in {line for node in federation.nodes for line in node.log.lines}]
    return sum(each.predicate == ARTIFACT_KIND and each.by == publisher.inception.author for each in said)


def test_a_kind_is_stated_with_the_publication_and_shown(
    publish: Publishing, federation: FakeFederation, publisher: Publisher
) -> None:
    assert publish("questions", "--kind", "dataset")["kind"] == "dataset"
    assert publish("plain")["kind"] is None
    publish("sounds", "--kind", "sound-bank")
    kinds = {name: run("show", publish.name(name))["kind"] for name in ("questions", "plain", "sounds")}
    assert kinds == {"questions": "dataset", "plain": "model", "sounds": "sound-bank"}
    assert "dataset (stated by the publisher)" in printed("show", publish.name("questions"))
    assert "sound-bank (not a kind that this version knows)" in printed("show", publish.name("sounds"))
    assert stated(federation, publisher) == 2


def test_a_kind_that_counts_already_is_not_stated_again_and_another_one_corrects_it(
    publish: Publishing, federation: FakeFederation, publisher: Publisher
) -> None:
    publish("questions")
    publish("questions", "--kind", "dataset")
    publish("questions", "--kind", "dataset")
    assert stated(federation, publisher) == 1
    publish("questions", "--kind", "evaluation-set")
    assert run("show", publish.name("questions"))["kind"] == "evaluation-set"


def test_a_word_of_another_form_is_refused_before_anything_is_logged(
    publish: Publishing, federation: FakeFederation, tmp_path: Path
) -> None:
    before = [len(node.log.lines) for node in federation.nodes]
    (tmp_path / "a.txt").write_text("a")
    words = ("publish", tmp_path, "--as", publish.name("a"), "--licence", "mit", "--kind", "Data Set")
    assert refused(*words) == "BAD-KIND"
    assert [len(node.log.lines) for node in federation.nodes] == before


def test_a_search_shows_kinds_and_asks_for_one(publish: Publishing) -> None:
    publish("questions", "--kind", "dataset")
    publish("plain")
    found = run("search", publish.namespace)["found"]
    assert {hit["name"]: hit["kind"] for hit in found} == {
        publish.name("questions"): "dataset", publish.name("plain"): "model",
    }  # fmt: skip
    (only,) = run("search", publish.namespace, "--kind", "dataset")["found"]
    assert only["name"] == publish.name("questions")
    assert run("search", publish.namespace, "--kind", "tokenizer")["found"] == []
    assert refused("search", "--kind", "No Kind") == "BAD-KIND"


def test_a_node_is_not_believed_that_an_artifact_is_of_a_kind(
    publish: Publishing, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives a statement in the publisher's name, by another key."""
    made = publish("plain")
    stated = KindStated(publisher.id, Name.parse(publish.name("plain")), made["artifact"], "dataset", 0)
    forged = sign_content(stated, signer("thief"))
    honest = FakeNode.search

    async def lying(self: FakeNode, *asked: Any, **more: Any) -> SearchPage:
        page = await honest(self, *asked, **more)
        told = LocatedEntry(page.found[0].origin, 0, forged.line) if page.found else None
        return replace(page, advisories=(*page.advisories, told)) if told else page

    monkeypatch.setattr(FakeNode, "search", lying)
    assert [hit["kind"] for hit in run("search", publish.namespace)["found"]] == ["model"]
    found = run("search", publish.namespace, "--kind", "dataset")["found"]  # of other tests if their names are near it
    assert not any(hit["name"].startswith(publish.namespace) for hit in found)


def test_the_base_of_an_adapter_is_pulled_beside_it_and_each_is_verified(publish: Publishing, tmp_path: Path) -> None:
    base = publish("base")
    publish("tuned", "--kind", "adapter", "--parent", f"adapter={publish.name('base')}")
    publish("stacked", "--kind", "adapter", "--parent", f"adapter={publish.name('tuned')}")
    assert "adapter" in (shown := printed("show", publish.name("tuned"))) and "its base" in shown
    assert "--with-base" in shown
    pulled = run("pull", publish.name("stacked"), "--with-base", "--out", tmp_path / "out")
    assert [each["title"] for each in pulled["bases"]] == [publish.name("tuned"), publish.name("base")]
    assert [each["folder"] for each in pulled["bases"]] == [str(tmp_path / "out-base"), str(tmp_path / "out-base-2")]
    assert pulled["bases"][1]["artifact"] == base["artifact"]
    for folder in ("out", "out-base", "out-base-2"):
        assert run("verify", tmp_path / folder)["exit_status"] == 0
    assert run("pull", publish.name("stacked"), "--out", tmp_path / "alone")["bases"] == []
    assert not (tmp_path / "alone-base").exists()


def test_a_base_without_a_digest_is_named_and_not_pulled(publish: Publishing, tmp_path: Path) -> None:
    publish("tuned", "--kind", "adapter", "--parent", "adapter=nobody/base@v1")
    pulled = run("pull", publish.name("tuned"), "--with-base", "--out", tmp_path / "out")
    assert (pulled["bases"], pulled["bases_without_digest"]) == ([], ["nobody/base@v1"])


def test_a_base_that_nobody_gives_ends_the_command_and_the_adapter_stays(publish: Publishing, tmp_path: Path) -> None:
    publish("tuned", "--parent", f"adapter=sha256:{'0' * 64}")
    assert refused("pull", publish.name("tuned"), "--with-base", "--out", tmp_path / "out")
    assert run("verify", tmp_path / "out")["exit_status"] == 0
    assert not (tmp_path / "out-base").exists()


def test_bases_of_bases_end_somewhere(publish: Publishing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_client, "MAX_BASES", 1)
    publish("base")
    publish("tuned", "--parent", f"adapter={publish.name('base')}")
    publish("stacked", "--parent", f"adapter={publish.name('tuned')}")
    words = ("pull", publish.name("stacked"), "--with-base", "--out", tmp_path / "out")
    assert refused(*words) == "TOO-MANY-BASES"
    assert (tmp_path / "out-base").is_dir() and not (tmp_path / "out-base-2").exists()
