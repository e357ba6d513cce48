"""The SPDX document: one spelling for one artifact, claims with their authors, and no term from what others claim."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.addons.derivation.bom import BomContent
from comity.addons.derivation.spdx import write_spdx
from comity.rules.signing import sign_content
from comity.trust.artifact import Manifest
from comity.trust.claims import read_claims
from comity.trust.encoding import sha256
from comity.trust.statements import Licence, Parent, Published
from comity_cli.main import main
from support.case import case
from support.world import identity

GOOD = case()
MANIFEST = Manifest.parse(GOOD.manifest)
OWNER = identity("Swiss AI", "CH")
PLAIN = Published.parse(GOOD.publication.statement)
COMMIT = "6c12" * 10


def content(*, licence: str = "Apache-2.0", parents: tuple[Parent, ...] = (), kind: str = "model") -> BomContent:
    said = replace(PLAIN, licence=Licence(licence, None), lineage=parents)
    readings = read_claims((OWNER.entry.line, sign_content(said, OWNER.signer).line), PLAIN.artifact)
    return BomContent(MANIFEST, readings.publications[0], kind=kind)


def graph(described: BomContent) -> dict[str, Mapping[str, Any]]:
    """The elements by the last part of their identifiers."""
    elements = json.loads(write_spdx(described))["@graph"]
    return {each["spdxId"].partition("#")[2]: each for each in elements if "spdxId" in each}


def test_the_same_claims_give_the_same_bytes_and_others_other_identifiers() -> None:
    described = content()
    assert write_spdx(described) == write_spdx(replace(described))
    first, second = (graph(content(licence=spdx))["artifact"]["spdxId"] for spdx in ("MIT", "Apache-2.0"))
    assert first != second


def test_files_and_the_artifact_have_their_hashes() -> None:
    found = graph(content())
    files = {
        each["name"]: each["verifiedUsing"][0]["hashValue"] for each in found.values() if "file-" in each["spdxId"]
    }
    assert files == {entry.path: entry.sha256 for entry in MANIFEST.files}
    assert len(found["files"]["to"]) == len(files)
    package = found["artifact"]
    assert (package["type"], package["name"]) == ("ai_AIPackage", "swiss-ai/tiny")
    assert package["software_packageVersion"] == "v1"
    assert package["verifiedUsing"][0]["hashValue"] == GOOD.artifact
    assert package["software_packageUrl"].startswith("pkg:oci/tiny@sha256:")
    assert found["publisher"]["externalIdentifier"][0]["identifier"] == OWNER.id


def test_a_parent_is_an_ancestor_and_the_base_of_an_adapter_is_needed() -> None:
    base = sha256(b"base")
    found = graph(content(parents=(Parent("finetune", f"hf:a/base@{COMMIT}"), Parent("adapter", "a/two", base))))
    assert found["parent-0"]["software_packageUrl"] == f"pkg:huggingface/a/base@{COMMIT}"
    assert found["parent-1"]["verifiedUsing"][0]["hashValue"] == base
    relations = {
        (name, each["relationshipType"], tuple(to.partition("#")[2] for to in each["to"]))
        for name, each in found.items()
        if name.startswith(("descent-", "need-"))
    }
    assert relations == {
        ("descent-0", "descendantOf", ("parent-0",)),
        ("descent-1", "descendantOf", ("parent-1",)),
        ("need-1", "dependsOn", ("parent-1",)),
    }
    assert found["descent-0"]["comment"] == "finetune; claimed by the publisher"


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT OR Apache-2.0", "simplelicensing_LicenseExpression"),
        ("our own terms!", "simplelicensing_SimpleLicensingText"),
    ],
)
def test_a_licence_is_declared_and_none_is_concluded(licence: str, kind: str) -> None:
    found = graph(content(licence=licence))
    assert found["licence"]["type"] == kind
    assert found["declared"]["to"] == [found["licence"]["spdxId"]]
    assert found["concluded"]["to"] == ["expandedlicensing_NoAssertionLicense"]


def test_without_a_publication_nothing_is_claimed() -> None:
    found = graph(BomContent(MANIFEST, None))
    assert not {"publisher", "licence"} & set(found)
    assert found["artifact"]["name"] == f"sha256:{GOOD.artifact}" and "suppliedBy" not in found["artifact"]
    assert found["declared"]["to"] == found["concluded"]["to"]
    assert "comment" not in found["declared"]


def test_a_dataset_is_a_dataset() -> None:
    assert graph(content(kind="dataset"))["artifact"]["type"] == "dataset_DatasetPackage"


@pytest.mark.parametrize(
    "text", ["@context", "@id", "@graph", "https://evil.example/#x", '","@type":"x', "_:creation", "#artifact"]
)
def test_what_a_publisher_claims_is_never_a_key_an_identifier_or_a_reference(text: str) -> None:
    described = content(licence=text, parents=(Parent("merge", text),))
    document = json.loads(write_spdx(described))
    assert set(document) == {"@context", "@graph"}
    assert document["@context"] == "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
    found = graph(described)
    plain = graph(content(licence="our own terms!", parents=(Parent("merge", "a/b"),)))
    assert [sorted(each) for each in found.values()] == [sorted(each) for each in plain.values()]
    assert all(each["spdxId"].startswith("urn:uuid:") for each in found.values())
    ends = {end for each in found.values() for end in (*each.get("to", ()), *each.get("element", ()))}
    assert ends <= {each["spdxId"] for each in found.values()} | {"expandedlicensing_NoAssertionLicense"}


def test_the_command_writes_spdx_and_refuses_it_of_inventories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    folder, out = str(GOOD.write(tmp_path)), tmp_path / "a.spdx.json"
    with pytest.raises(SystemExit) as ended:
        main(["bom", folder, "--format", "spdx", "--out", str(out), "--json"])
    assert not ended.value.code
    assert json.loads(out.read_text("utf-8"))["@graph"]
    assert f'"components":{len(MANIFEST.files) + 1}' in capsys.readouterr().out.replace(" ", "")
    with pytest.raises(SystemExit) as ended:
        main(["bom", str(out), "--format", "spdx"])
    assert ended.value.code == 2
    assert "in CycloneDX only" in capsys.readouterr().err
