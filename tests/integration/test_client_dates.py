"""Since when an artifact is known, as `show`, `search` and `whereis` say it: proven, a node's word, or unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.rules.signing import sign_content
from comity.trust.statement import Author
from comity.trust.statements import Advisory
from comity_cli.main import main
from comity_client.client import Client
from comity_client.evidence.known_since import KnownSince
from comity_client.home import Home
from support.fakes import FakeFederation, release
from support.weights import as_tensor
from support.world import NOW, identity

OWNER = identity("Swiss AI", "CH")
SAID, NAME = NOW + 7 * 86_400, "swiss-ai/tiny@v1"


@pytest.fixture
def federation(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    """Four nodes that know one version, which its publisher withdrew."""
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        made = release(tmp_path / "source", {"model.safetensors": as_tensor(bytes(range(256)))}, by=OWNER)
        yank = Advisory(Author("identity", OWNER.id), made.published.artifact, "yank", "high", "wrong weights")
        for line in (OWNER.entry.line, made.entry.line, sign_content(yank, OWNER.signer).line):
            running.nodes[0].log.append(line)
        for fake in running.nodes:
            fake.take(made)
        yield running


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


def since(client: Client) -> KnownSince | None:
    info = client.show(NAME)
    assert info.publication is not None and info.withdrawn
    return info.known_since(info.publication.entry)


def test_a_date_is_unknown_then_what_nodes_say_and_after_a_pull_what_cosigners_prove(
    client: Client, federation: FakeFederation
) -> None:
    assert since(client) is None
    (found,) = client.search("tiny")
    assert (found.known_since, found.withdrawn) == (None, False), "these nodes send no advisories with a search"
    for fake in federation.nodes:
        fake.known_since = SAID
    said = since(client)
    assert said is not None and (said.at, said.basis) == (SAID, "claimed") and said.members >= 2
    (found,) = client.search("tiny")
    assert found.known_since == KnownSince(SAID, "claimed", 4)
    federation.nodes[0].known_since = 86_400
    (found,) = client.search("tiny")
    assert found.known_since == KnownSince(SAID, "claimed", 4), "one node dates nothing back"
    client.pull(NAME)
    assert since(client) == KnownSince(NOW, "cosigned", 2)
    for fake in federation.nodes:
        federation.kill(fake.node.record.name)
    assert since(client) == KnownSince(NOW, "cosigned", 2)


def test_commands_say_whose_word_a_date_is(
    client: Client, federation: FakeFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    for fake in federation.nodes:
        fake.known_since = SAID

    def printed(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        assert ended.value.code == 0
        return capsys.readouterr().out

    text = printed("show", NAME)
    assert "2026-11-25, claimed by" in text and "withdrawn" in text
    document = json.loads(printed("show", NAME, "--json"))
    assert document["withdrawn"] is True and document["known_since"]["basis"] == "claimed"
    assert [each["known_since"]["at"] for each in document["advisories"]] == [SAID]
    (warning,) = json.loads(printed("advisory", "ls", NAME, "--json"))["advisories"]
    assert warning["known_since"]["at"] == SAID
    replicas = json.loads(printed("whereis", NAME, "--json"))["replicas"]
    assert {each["known_since"]["at"] for each in replicas if each["claimed"]} <= {SAID}
    assert "2026-11-25" in printed("search", "tiny")
