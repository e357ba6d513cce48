"""`comity catalogue`: which names are in it, what is left out and why, and what becomes of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.addons.mldcat.commands import catalogue
from comity.rules.signing import sign_content
from comity.trust.artifact import Manifest
from comity.trust.claims import read_claims
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.statement import Author
from comity.trust.statements import Advisory, Parent, Published
from comity_client.evidence.artifact_info import ArtifactInfo
from comity_client.evidence.known_since import KnownSince
from comity_client.evidence.search import FoundArtifacts
from support.case import case
from support.run_command import printed, run
from support.world import identity

GOOD = case()
MANIFEST = Manifest.parse(GOOD.manifest)
OWNER = identity("Swiss AI", "CH")
SAID = replace(Published.parse(GOOD.publication.statement), by=OWNER.id)
(PUBLICATION,) = read_claims((OWNER.entry.line, sign_content(SAID, OWNER.signer).line), GOOD.artifact).publications
YANK = Advisory(Author("node", OWNER.id), GOOD.artifact, "malware", "high", "calls home")
INFO = ArtifactInfo("swiss-ai/tiny@v1", GOOD.artifact, "", PUBLICATION, MANIFEST, (), ((PUBLICATION.entry, YANK),))
NAMES = ("swiss-ai/tiny@v1", "swiss-ai/tiny@v0", "swiss-ai/gone@v1", f"hf:org/name@{'6c12' * 10}")
GATEWAY = ("--gateway", "https://models.example/")


class Nodes:
    """What nodes have: several versions of one name, one that is withdrawn, and a mirrored commit of which nothing is
    proven. `asked` is what they were asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.info = INFO
        self.parents: dict[str, ArtifactInfo] = {}

    def search(self, text: str, limit: int, kind: str) -> list[FoundArtifacts]:
        self.asked.append((text, limit, kind))
        return [FoundArtifacts(name, GOOD.artifact, OWNER.id, "", "", proven=True) for name in NAMES]

    def show(self, name: str) -> ArtifactInfo:
        self.asked.append(name)
        if name.startswith("swiss-ai/tiny"):
            return self.info
        if name in self.parents:
            return self.parents[name]
        if name.startswith("hf:"):
            return replace(INFO, publication=None)
        raise NotFound("every version is withdrawn")


@pytest.fixture(autouse=True, name="nodes")
def _nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    nodes = Nodes()
    monkeypatch.setattr(catalogue, "client", lambda: nodes)
    return nodes


def artifacts(text: str) -> list[Mapping[str, Any]]:
    return [each for each in json.loads(text)["@graph"] if "dct:provenance" in each]


def test_of_each_name_the_newest_version_is_asked_for_once(nodes: Nodes) -> None:
    ran = run(catalogue.command, "tiny", *GATEWAY, "--limit", "7")
    (found,) = artifacts(ran.stdout)
    assert found["@id"] == f"https://models.example/swiss-ai/tiny/tree/sha256:{GOOD.artifact}"
    assert f"Signed by the identity {OWNER.id}" in found["dct:provenance"]["rdfs:label"]
    assert nodes.asked == [("tiny", 7, ""), "swiss-ai/tiny", "swiss-ai/gone", NAMES[-1]]
    assert "swiss-ai/gone is left out: every version is withdrawn" in ran.stderr


def test_a_warning_is_in_the_record_with_its_author_and_an_unknown_time_is_not_stated() -> None:
    written = json.loads(run(catalogue.command, *GATEWAY).stdout)["@graph"]
    (record,) = (each for each in written if each["@type"] == "dcat:CatalogRecord")
    assert record["rdfs:comment"] == [f"malware (high), claimed by the node {OWNER.id}: calls home"]
    assert record["dct:modified"] == "not stated"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (KnownSince(1_796_205_600, "cosigned", 3), "3 members that cosigned it, as was verified"),
        (KnownSince(1_796_205_600, "claimed", 1), "nodes of 1 member, by their own clocks"),
    ],
)
def test_a_time_is_said_by_somebody(nodes: Nodes, known: KnownSince, said: str) -> None:
    nodes.info = replace(INFO, known={PUBLICATION.entry.line: known})
    written = json.loads(run(catalogue.command, *GATEWAY).stdout)["@graph"]
    (record,) = (each for each in written if each["@type"] == "dcat:CatalogRecord")
    assert record["dct:modified"]["@value"] == "2026-12-02T10:00:00Z"
    assert record["dct:description"] == f"The time is by when the artifact was known, as said by {said}."


def test_the_file_and_what_is_left_out_are_in_the_document(tmp_path: Path) -> None:
    out = tmp_path / "catalogue.jsonld"
    document = printed(catalogue.command, *GATEWAY, "--out", out)
    assert (document["file"], document["artifacts"]) == (str(out), 1)
    assert [each["name"] for each in document["left_out"]] == ["swiss-ai/gone", NAMES[-1]]
    assert document["left_out"][1]["why"] == "nothing that is proven names it"
    assert len(artifacts(out.read_text("utf-8"))) == 1


def test_a_document_about_the_file_needs_a_file(nodes: Nodes) -> None:
    """On stdout it would be the catalogue, which is another document than --json promises."""
    assert run(catalogue.command, *GATEWAY, "--json").exit_code == 2
    assert nodes.asked == []


@pytest.mark.parametrize("gateway", ["", "models.example", "https://a.example/x?y=1", "https://u:p@a.example"])
def test_what_is_no_address_of_a_gateway_is_refused(gateway: str) -> None:
    ran = run(catalogue.command, "--gateway", gateway)
    assert ran.exit_code == 2 or isinstance(ran.exception, ComityError)


def test_one_kind_is_asked_for_and_a_word_of_another_form_is_refused(nodes: Nodes) -> None:
    run(catalogue.command, *GATEWAY, "--kind", "dataset")
    assert nodes.asked[0] == ("", 50, "dataset")
    ran = run(catalogue.command, *GATEWAY, "--kind", "Data Set")
    assert isinstance(ran.exception, ComityError) and ran.exception.code == "BAD-KIND"


def test_a_model_was_trained_on_what_its_name_means_and_its_publisher_states_to_be_a_dataset(nodes: Nodes) -> None:
    rows, other = sha256(b"rows"), sha256(b"other")
    parents = (
        Parent("finetune", "inst/rows@v1", rows),
        Parent("finetune", "inst/moved@v1", rows),
        Parent("finetune", "inst/base@v1", other),
        Parent("finetune", "inst/nobody@v1", sha256(b"gone")),
        Parent("finetune", "no name", sha256(b"text")),
    )
    said = replace(PUBLICATION, published=replace(PUBLICATION.published, lineage=parents))
    nodes.info = replace(INFO, publication=said)
    nodes.parents = {
        "inst/rows@v1": replace(INFO, artifact=rows, kind="dataset"),
        "inst/moved@v1": replace(INFO, artifact=other, kind="dataset"),
        "inst/base@v1": replace(INFO, artifact=other),
    }
    (found,) = (each for each in artifacts(run(catalogue.command, *GATEWAY).stdout) if "it6:trainedOn" in each)
    assert found["it6:trainedOn"] == [{"@id": f"https://models.example/inst/rows/tree/sha256:{rows}"}]
