"""Abbreviated digests and ids, in the form in which commands print them, as arguments of commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.encoding import format_id, short
from comity.trust.errors import Malformed, NotFound
from comity_cli.main import main
from comity_client.client import Client
from comity_client.evidence import lookup
from comity_client.home import Home
from support.fakes import FakeFederation, Release, release
from support.weights import as_tensor
from support.world import identity

FILES = {"README.md": b"# Tiny\n", "model.safetensors": as_tensor(bytes(range(256)) * 64)}
OWNER = identity("Swiss AI", "CH")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    """Tests must not change it."""
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, federation: FakeFederation) -> Release:
    made = release(tmp_path_factory.mktemp("source"), FILES, by=OWNER)
    for line in (OWNER.entry.line, made.entry.line):
        federation.nodes[0].log.append(line)
    for fake in federation.nodes:
        fake.take(made)
    return made


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    made = Client(Home(tmp_path / "home"))
    made.pin(federation.file({}))
    return made


def ends(*words: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_a_statement_of_a_known_node_is_shown_with_the_nodes_name(client: Client, published: Release) -> None:
    said = client.show(published.published.artifact).said
    assert {each.by.partition(" [")[0] for each in said if each.predicate == "hold"} == {
        f"node-{code}.example" for code in ("ch", "es", "kr", "sg")
    }


def test_an_artifact_is_found_by_its_printed_digits(client: Client, published: Release, tmp_path: Path) -> None:
    digest = published.published.artifact
    for form in (digest, f"sha256:{digest[:8]}", short(digest), digest[:12], f"swiss-ai/tiny@sha256:{digest[:9]}"):
        assert client.show(form).artifact == digest
    assert len(client.whereis(short(digest))) == 4
    assert client.pull(f"sha256:{digest[:10]}", to=tmp_path / "model").artifact == digest
    assert client.pull(short(digest)).artifact == digest
    assert client.verify(short(digest)).artifact == digest, "without a network, from the cache"


def test_ambiguous_digits_are_refused_with_both_artifacts(
    client: Client, published: Release, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = published.published.artifact
    near = digest[:9] + ("1" if digest[9] != "1" else "2") * 55
    monkeypatch.setattr("comity_client.pull.destinations.cached_artifacts", lambda *_: {near: "in a folder"})
    assert ends("show", f"sha256:{digest[:9]}", "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "AMBIGUOUS-ID"
    assert digest in error["why"] and near in error["why"]
    assert client.show(f"sha256:{digest[:10]}").artifact == digest


def test_an_incomplete_list_is_no_answer(client: Client, published: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MAX_LISTED", 0)
    with pytest.raises(Malformed) as caught:
        client.show(f"sha256:{published.published.artifact[:10]}")
    assert caught.value.code == "AMBIGUOUS-ID"
    assert (
        client.show(f"swiss-ai/tiny@sha256:{published.published.artifact[:10]}").artifact
        == published.published.artifact
    )


@pytest.mark.parametrize("command", ["show", "pull", "whereis", "verify", "lineage"])
@pytest.mark.parametrize("reference", ["sha256:d1f021", "sha256:xyz", "apertus", "a/b@sha256:12"])
def test_an_invalid_reference_is_a_usage_error(client: Client, command: str, reference: str) -> None:
    assert ends(command, reference) == 2


def test_a_mistyped_id_is_a_usage_error(client: Client, tmp_path: Path) -> None:
    client.new_publisher("Lab One", "CH", "")
    for words in (
        ("publisher", "new", "X", "--jurisdiction", "UK"),
        ("publisher", "new", "!!!", "--jurisdiction", "CH"),
        ("publish", str(tmp_path), "--as", "tiny", "--licence", "MIT"),
        ("publish", str(tmp_path), "--as", "lab/tiny@v1", "--licence", "Apache2"),
        ("trust", "hold", "a" * 64, "51aa"),
        ("trust", "unpin", "51aa"),
        ("offer", "show", "51aa"),
    ):
        assert ends(*words) == 2, words


def test_unknown_digits_are_not_found(client: Client, published: Release) -> None:
    with pytest.raises(NotFound) as caught:
        client.show("sha256:" + "0" * 12)
    assert caught.value.code == "UNKNOWN-ID"


def test_a_namespace_is_bound_to_a_publisher_in_every_form(client: Client, published: Release) -> None:
    for form in (OWNER.id, format_id(OWNER.id), f"sha256:{OWNER.id}"):
        assert ends("trust", "bind", "swiss-ai", form) == 0
        assert client.bindings().publishers == {"swiss-ai": OWNER.id}
        client.unbind("swiss-ai")


def test_a_publisher_that_only_nodes_know_by_these_digits_is_asked_about(
    client: Client, published: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("trust", "bind", "swiss-ai", OWNER.id[:12], "--json") == 2, "no question is asked with --json"
    assert client.bindings().publishers == {}
    assert ends("trust", "bind", "swiss-ai", OWNER.id[:12], "--yes") == 0
    assert client.bindings().publishers == {"swiss-ai": OWNER.id}
    assert OWNER.id in capsys.readouterr().out
    client.unbind("swiss-ai")
    assert ends("trust", "bind", "swiss-ai", "0" * 12, "--yes") == 5
    assert ends("trust", "bind", "swiss-ai", "Swiss AI") == ends("trust", "bind", "swiss-ai", "51aa") == 2
    assert ends("trust", "bind", "swiss-ai/tiny@v1", short(published.published.artifact), "--yes") == 0
    assert client.bindings().artifacts == {"swiss-ai/tiny@v1": published.published.artifact}


def test_known_identities_and_pins_are_given_by_some_digits(client: Client, federation: FakeFederation) -> None:
    own = client.new_publisher("Lab One", "CH", "")
    for form in (own.id[:8], short(own.id), format_id(own.id), "Lab One"):
        assert client.publisher(form).id == own.id
    assert ends("trust", "bind", "lab", own.id[:8]) == 0, "an own identity needs no question"
    assert client.bindings().publishers == {"lab": own.id}
    client.pin_rotation(own.id[:9], "7" * 64)
    assert client.bindings().rotations == {own.id: "7" * 64}
    (pin,) = client.pins()
    assert ends("trust", "unpin", pin.id[:5]) == 2
    assert ends("trust", "unpin", pin.id[:8]) == 0
    assert client.pins() == []
