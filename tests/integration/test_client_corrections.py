"""A publisher states something again about the same bytes: the spelling of licences, and the newest statement
counts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comity.addons.derivation.bom import bom_content, write_bom
from comity.addons.derivation.lineage import find_lineage
from comity.trust.errors import Malformed, NotFound
from comity.trust.statement import parse_entry
from comity.trust.statements import Parent
from comity.wire.messages import LocatedEntry
from comity_cli.main import main
from comity_client.client import Client
from comity_client.events import Event, Note
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.fakes import FakeFederation
from support.weights import as_tensor

FILES = {
    "LICENSE": b"Apache License\n",
    "README.md": b"# Tiny\n",
    "model.safetensors": as_tensor(bytes(range(256)) * 64),
}


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for path, data in FILES.items():
        (folder / path).write_bytes(data)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, client: Client, *words: str) -> object:
    monkeypatch.setenv("COMITY_HOME", str(client.home.root))
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_a_licence_is_published_in_its_spdx_spelling(client: Client, publisher: Publisher, source: Path) -> None:
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="apache-2.0 or mit")
    shown = client.show("lab/tiny@v1").publication
    assert shown is not None and shown.published.licence.spdx == "Apache-2.0 OR MIT"


def test_a_mistyped_licence_is_refused_before_anything_is_hashed(
    client: Client, publisher: Publisher, tmp_path: Path
) -> None:
    with pytest.raises(Malformed) as caught:
        client.publish(tmp_path / "no folder", "lab/tiny@v1", publisher=publisher, licence="Apache2")
    assert (caught.value.code, caught.value.hint.partition(",")[0]) == ("BAD-LICENCE", "--licence Apache-2.0")


@pytest.mark.parametrize("option", ["--licence", "--license"])
def test_a_licence_is_given_in_either_spelling_of_the_option(
    option: str,
    client: Client,
    publisher: Publisher,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("publish", str(source), "--as", "lab/tiny@v1", option)
    assert run(monkeypatch, client, *words, "Apache2", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "BAD-LICENCE"
    assert run(monkeypatch, client, *words, "llama3", option.replace("--", "--unlisted-")) == 0
    shown = client.show("lab/tiny@v1").publication
    assert shown is not None and shown.published.licence.spdx == "llama3"


def licence(client: Client, reference: str) -> str:
    shown = client.show(reference).current
    assert shown is not None
    return shown.published.licence.spdx


def verdict_facts(client: Client, folder: Path) -> list[str]:
    return [fact.text for fact in client.verify(folder).row("signatures").facts]


def test_a_corrected_publication_counts_and_the_older_one_stays_visible(
    client: Client,
    publisher: Publisher,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = client.publish(source, "lab/tiny@v1", publisher=publisher, licence="Apache2", unlisted_licence=True)
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="Apache-2.0")
    for reference in ("lab/tiny@v1", "lab/tiny", f"sha256:{first.artifact}"):
        assert licence(client, reference) == "Apache-2.0"
        assert [s.publication.published.licence.spdx for s in client.show(reference).statements] == [
            "Apache-2.0",
            "Apache2",
        ]
    client.pull("lab/tiny@v1", to=tmp_path / "model")
    assert any("replaced: lab/tiny@v1, licence Apache2" in text for text in verdict_facts(client, tmp_path / "model"))
    assert client.verify(tmp_path / "model").row("licence").summary.endswith("claimed: Apache-2.0")
    assert json.loads(write_bom(bom_content(client, tmp_path / "model")))["metadata"]["component"]["licenses"] == (
        [{"expression": "Apache-2.0", "acknowledgement": "declared"}]
    )
    assert run(monkeypatch, client, "show", "lab/tiny@v1") == 0
    assert "lab/tiny@v1: licence Apache2, no parent, entry" in capsys.readouterr().out
    assert run(monkeypatch, client, "show", "lab/tiny@v1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["licence"] == "Apache-2.0"
    assert [(each["licence"], each["counts"]) for each in document["statements"]] == [
        ("Apache-2.0", True),
        ("Apache2", False),
    ]


def test_a_lineage_that_is_stated_later_counts(
    client: Client, publisher: Publisher, source: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"other weights")
    parent = client.publish(base, "lab/base@v1", publisher=publisher, licence="MIT").artifact
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="MIT")
    assert find_lineage(client, "lab/tiny@v1").graph.edges == ()
    parents = [Parent("finetune", "lab/base@v1")]
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="MIT", parents=parents)
    (edge,) = find_lineage(client, "lab/tiny@v1").graph.edges
    assert edge.parent == f"sha256:{parent}"
    client.pull("lab/tiny@v1", to=tmp_path / "model")
    (edge,) = find_lineage(client, tmp_path / "model").graph.edges
    assert edge.parent == f"sha256:{parent}"


def test_a_node_that_gives_false_positions_does_not_bring_an_older_statement_back(
    client: Client, publisher: Publisher, source: Path, federation: FakeFederation
) -> None:
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="MIT")
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="ISC")
    log = federation.nodes[0].log
    lines = [(line, parse_entry(line)) for line in log.lines]
    own = [(line, entry) for line, entry in lines if entry.statement.predicate == "published"]
    federation.nodes[3].junk_claims = tuple(
        (LocatedEntry(log.origin, index, line), entry) for index, (line, entry) in zip((900, 0), own, strict=True)
    )
    for reference in ("lab/tiny@v1", "lab/tiny"):
        assert licence(client, reference) == "ISC"


def test_a_correction_without_a_proven_order_is_reported_as_such(
    client: Client, publisher: Publisher, source: Path
) -> None:
    homeless = client.new_publisher("No home", "CH", "")
    for signer, nodes, expected in (
        (homeless, ["node-sg.example"], "nothing orders"),
        (publisher, ["node-sg.example"], "counts only when it is in node-ch.example/log"),
    ):
        name = f"lab-{signer.id[:8]}/tiny@v1"
        heard: list[Event] = []
        client.publish(source, name, publisher=signer, licence="MIT", nodes=[signer.home or "node-sg.example"])
        client.publish(source, name, publisher=signer, licence="ISC", nodes=nodes, on_event=heard.append)
        assert any(expected in event.text for event in heard if isinstance(event, Note))


def test_what_holds_for_the_same_bytes_under_another_version_is_told_before_anything_is_signed(
    client: Client, publisher: Publisher, source: Path, federation: FakeFederation
) -> None:
    parent = Parent("finetune", "lab/base@v1")
    client.publish(source, "lab/tiny@v2", publisher=publisher, licence="MIT", parents=[parent])
    client.advise("lab/tiny@v2", "yank", "info", "wrong tokenizer", publisher=publisher)
    logged = len(federation.nodes[0].logs_held["node-ch.example/log"].lines)
    told: list[str] = []

    def stop_at_the_first_note(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.text)

    client.publish(source, "lab/tiny@v3", publisher=publisher, licence="MIT", on_event=stop_at_the_first_note)
    replaced, inherited = told[:2]
    assert replaced.startswith("these bytes are lab/tiny@v2 already") and "lineage" in replaced
    assert inherited == "yank (wrong tokenizer) is about these bytes, so lab/tiny@v3 has it too"
    assert len(federation.nodes[0].logs_held["node-ch.example/log"].lines) > logged
    (note, *_) = find_lineage(client, "lab/tiny@v2").notes
    assert note.startswith("lab/tiny@v3 is the newest statement of its publisher")
    assert not find_lineage(client, "lab/tiny@v3").notes


def test_a_version_that_nobody_published_is_told_with_the_others_also_while_a_node_is_down(
    client: Client, publisher: Publisher, source: Path, federation: FakeFederation
) -> None:
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="MIT")
    federation.kill("node-kr.example")
    with pytest.raises(NotFound) as absent:
        client.pull("lab/tiny@v9", to=source / "v9")
    assert absent.value.code == "NOT-PUBLISHED"
    assert "v1" in absent.value.why and "no answer of node-kr.example" in absent.value.why
