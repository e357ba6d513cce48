"""`comity lineage`: claims of nodes, claims of a pack, and derivations that are checked here. Fake nodes behind the
real wire.
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from comity.addons.derivation.derive import derive, log_derivation
from comity.addons.derivation.lineage import find_lineage
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.statements import Parent
from comity_cli.main import command
from comity_client.client import Client
from comity_client.events import Note
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.derivations import Named, each, to_bf16, write_safetensors
from support.fakes import FakeFederation

WEIGHTS: list[Named] = [(f"layer.{n}.weight", "F32", (8, 8), bytes(range(n, 256)) + bytes(n)) for n in range(4)]


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.fixture
def lab(client: Client) -> Publisher:
    return client.new_publisher("Lab One", "CH", "node-ch.example/log")


@pytest.fixture
def chain(tmp_path: Path, client: Client, lab: Publisher) -> dict[str, Digest]:
    """base <- tiny <- tiny-bf16, each by the digest of its parent; the licence of the base forbids derivatives."""
    made: dict[str, Digest] = {}
    half = each(WEIGHTS, to_bf16)
    for name, tensors, licence, relation, above in (
        ("base", [*WEIGHTS[:2], ("old.weight", "F32", (1,), bytes(4))], "CC-BY-NC-4.0", "", ""),
        ("tiny", WEIGHTS, "CC-BY-NC-4.0", "finetune", "base"),
        ("tiny-bf16", half, "MIT", "quantized", "tiny"),
    ):
        folder = write_safetensors(tmp_path / name / "model.safetensors", tensors).parent
        parents = [Parent(relation, f"lab/{above}@v1", made[above])] if above else []
        receipt = client.publish(folder, f"lab/{name}@v1", publisher=lab, licence=licence, parents=parents)
        made[name] = receipt.artifact
    return made


def run(*words: str | Path) -> str:
    ran = CliRunner().invoke(command, ["lineage", *map(str, words)], standalone_mode=False, catch_exceptions=False)
    return ran.output


def test_nodes_give_the_whole_lineage(client: Client, chain: dict[str, Digest]) -> None:
    graph = find_lineage(client, "lab/tiny-bf16@v1").graph
    assert [node.digest for node in graph.nodes] == [chain[name] for name in ("tiny-bf16", "tiny", "base")]
    assert {edge.basis for edge in graph.edges} == {"claimed"}
    assert not graph.missing
    assert [(child.title, parent.title) for child, parent, _ in graph.conflicts] == [
        ("lab/tiny-bf16@v1", "lab/tiny@v1"),
        ("lab/tiny-bf16@v1", "lab/base@v1"),
    ]


def test_a_logged_derivation_is_on_its_edge_with_its_signer(
    tmp_path: Path, client: Client, chain: dict[str, Digest]
) -> None:
    checker = client.new_publisher("Checking lab", "ES", "node-es.example/log")
    found = derive(client.local_copy(tmp_path / "tiny-bf16"), client.local_copy(tmp_path / "tiny"))
    log_derivation(client, found, publisher=checker)
    upper, lower = sorted(find_lineage(client, "lab/tiny-bf16@v1").graph.edges, key=lambda edge: edge.basis)
    assert (lower.basis, upper.basis) == ("signed", "claimed")
    assert [word.by.partition(" [")[0] for word in lower.derivations] == ["Checking lab"]
    assert "Checking lab" in run("lab/tiny-bf16@v1")


def test_a_pull_stores_the_lineage_so_that_it_is_judged_without_a_network(
    tmp_path: Path, client: Client, chain: dict[str, Digest]
) -> None:
    pulled = client.pull("lab/tiny-bf16@v1", to=tmp_path / "mine")
    assert pulled.verdict.row("lineage").state == "pass"
    alone = client.verify(tmp_path / "mine").row("lineage")
    assert (alone.state, alone.summary) == ("pass", "quantized of lab/tiny@v1 (claimed)")
    graph = find_lineage(client, tmp_path / "mine").graph
    assert [node.title for node in graph.nodes] == ["lab/tiny-bf16@v1", "lab/tiny@v1", "lab/base@v1"]


def test_derivations_are_checked_where_both_artifacts_are_here(client: Client, chain: dict[str, Digest]) -> None:
    for name in ("tiny-bf16", "tiny"):
        client.pull(f"lab/{name}@v1")
    checked = find_lineage(client, "lab/tiny-bf16@v1", check=True)
    assert [edge.basis for edge in checked.graph.edges] == ["here", "claimed"]
    assert len(checked.unchecked) == 1
    client.pull("lab/base@v1")
    share = find_lineage(client, "lab/tiny-bf16@v1", check=True).graph.edges[1]
    assert share.comparison is not None
    assert (share.comparison.exact, share.comparison.tensors.equal, share.basis) == (False, 2, "claimed")


def test_a_lineage_is_shown_in_every_format(client: Client, chain: dict[str, Digest]) -> None:
    assert "└─ quantized of lab/tiny@v1" in run("lab/tiny-bf16@v1")
    assert 'label="quantized' in run("lab/tiny-bf16@v1", "--format", "dot")
    picture = ElementTree.fromstring(run("lab/tiny-bf16@v1", "--format", "svg"))
    assert "lab/base@v1" in [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    document = json.loads(run("lab/tiny-bf16@v1", "--json"))
    assert document["root"] == chain["tiny-bf16"]
    assert [edge["basis"] for edge in document["edges"]] == ["claimed", "claimed"]


def test_a_parent_that_no_node_knows_is_missing(
    tmp_path: Path, client: Client, lab: Publisher, chain: dict[str, Digest]
) -> None:
    folder = write_safetensors(tmp_path / "orphan" / "model.safetensors", WEIGHTS[:1]).parent
    nobody = Digest("0" * 64)
    parents = [Parent("merge", "lab/tiny@v1", chain["tiny"]), Parent("merge", "gone/base@v1", nobody)]
    client.publish(folder, "lab/orphan@v1", publisher=lab, licence="MIT", parents=parents)
    graph = find_lineage(client, "lab/orphan@v1").graph
    assert [(node.title, node.digest) for node in graph.missing] == [("gone/base@v1", nobody)]
    assert "no claims found" in run("lab/orphan@v1")


def test_a_parent_given_by_name_is_published_with_its_digest(
    tmp_path: Path, client: Client, lab: Publisher, chain: dict[str, Digest]
) -> None:
    folder = write_safetensors(tmp_path / "late" / "model.safetensors", WEIGHTS[1:]).parent
    parents = [Parent("finetune", "lab/tiny"), Parent("merge", "nowhere/base@v1")]
    told: list[str] = []
    client.publish(
        folder,
        "lab/late@v1",
        publisher=lab,
        licence="MIT",
        parents=parents,
        on_event=lambda event: told.append(event.text) if isinstance(event, Note) else None,
    )
    publication = client.resolve("lab/late@v1").publication
    assert publication is not None
    assert publication.published.lineage == (
        Parent("finetune", "lab/tiny@v1", chain["tiny"]),
        Parent("merge", "nowhere/base@v1"),
    )
    assert any("nowhere/base@v1 is named without a digest" in text for text in told)


def test_a_folder_without_a_pack_has_no_lineage(tmp_path: Path, client: Client) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(NotFound) as caught:
        find_lineage(client, tmp_path / "bare")
    assert caught.value.code == "NO-PACK"
