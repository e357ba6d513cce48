"""The ML-BOM: one spelling for one artifact, claims with their authors, and nothing that was not available."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.addons.derivation.bom import BomContent, make_bom, write_bom
from comity.rules.signing import sign_content
from comity.trust.artifact import Manifest
from comity.trust.claims import read_claims
from comity.trust.statements import Licence, Parent, Published, Vouched
from comity_cli.main import main
from comity_client.client import Client
from comity_client.home import Home
from support.case import CARD, case
from support.world import identity

GOOD = case()
MANIFEST = Manifest.parse(GOOD.manifest)
OWNER = identity("Swiss AI", "CH")
PLAIN = Published.parse(GOOD.publication.statement)


def written(*, licence: str = "Apache-2.0", parents: tuple[Parent, ...] = (), config: bytes = b"") -> Any:
    said = replace(PLAIN, licence=Licence(licence, None), lineage=parents)
    readings = read_claims((OWNER.entry.line, sign_content(said, OWNER.signer).line), PLAIN.artifact)
    return json.loads(write_bom(BomContent(MANIFEST, readings.publications[0], (), config)))


def test_the_same_artifact_and_claims_give_the_same_bytes(tmp_path: Path) -> None:
    folder = GOOD.write(tmp_path)
    api = Client(Home(tmp_path / "home"))
    assert make_bom(api, folder) == make_bom(api, folder)
    assert json.loads(make_bom(api, folder))["serialNumber"] == written()["serialNumber"]


def test_files_hashes_and_documents_are_those_of_the_publication(tmp_path: Path) -> None:
    document = json.loads(make_bom(Client(Home(tmp_path / "home")), GOOD.write(tmp_path)))
    model = document["metadata"]["component"]
    assert (model["type"], model["group"], model["name"], model["version"]) == (
        "machine-learning-model",
        "swiss-ai",
        "tiny",
        "v1",
    )
    assert model["hashes"] == [{"alg": "SHA-256", "content": GOOD.artifact}]
    assert {c["name"]: c["hashes"][0]["content"] for c in document["components"]} == {
        entry.path: entry.sha256 for entry in MANIFEST.files
    }
    (card,) = model["externalReferences"]
    assert (card["type"], card["hashes"][0]["content"]) == ("model-card", PLAIN.documents["card"].digest)
    assert card["url"].startswith("ni:///sha-256;") and PLAIN.documents["card"].size == len(CARD)
    assert model["modelCard"] == {"modelParameters": {"modelArchitecture": "Tiny"}}


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        ("Apache-2.0", {"expression": "Apache-2.0", "acknowledgement": "declared"}),
        ("MIT OR Apache-2.0", {"expression": "MIT OR Apache-2.0", "acknowledgement": "declared"}),
        ("other", {"license": {"name": "other", "acknowledgement": "declared"}}),
        ("our own terms!", {"license": {"name": "our own terms!", "acknowledgement": "declared"}}),
    ],
)
def test_a_licence_is_declared_as_the_publisher_wrote_it(claimed: str, expected: dict[str, Any]) -> None:
    assert written(licence=claimed)["metadata"]["component"]["licenses"] == [expected]


def test_ancestors_are_named_by_digest_where_there_is_one() -> None:
    pedigree = written(parents=(Parent("finetune", "a/base@v1", PLAIN.artifact), Parent("merge", "b/other")))
    found = pedigree["metadata"]["component"]["pedigree"]
    assert [ancestor.get("hashes") for ancestor in found["ancestors"]] == [
        [{"alg": "SHA-256", "content": PLAIN.artifact}],
        None,
    ]
    assert found["notes"] == "claimed by the publisher: finetune of a/base@v1; merge of b/other, by name only"


@pytest.mark.parametrize("config", [b"", b"{", b"[1]", b'{"model_type": 3, "architectures": [4]}'])
def test_a_configuration_without_useful_fields_is_left_out(config: bytes) -> None:
    assert written(config=config)["metadata"]["component"]["modelCard"] == {}


def test_without_a_publication_the_bom_claims_nothing() -> None:
    model = json.loads(write_bom(BomContent(MANIFEST, None)))["metadata"]["component"]
    assert model["name"] == f"sha256:{GOOD.artifact}"
    assert not {"licenses", "publisher", "pedigree", "externalReferences"} & set(model)


def test_claims_of_others_are_under_their_names(tmp_path: Path) -> None:
    lab = identity("Evaluation lab", "ES")
    said = GOOD.saying(
        lab.entry.line, sign_content(Vouched(lab.inception.author, GOOD.artifact, "evaluated"), lab.signer).line
    )
    properties = json.loads(make_bom(Client(Home(tmp_path / "home")), said.write(tmp_path)))["metadata"]["component"]
    named = {each["name"]: each["value"] for each in properties["properties"]}
    assert named["comity:vouched:evaluated"].startswith("claimed by Evaluation lab [")
    assert named["comity:claimed-by"] == OWNER.id


def test_the_command_writes_a_file_or_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    folder = str(GOOD.write(tmp_path))
    for arguments in (["bom", folder], ["bom", folder, "--out", str(tmp_path / "bom.json")]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
    printed = capsys.readouterr().out
    assert printed.startswith((tmp_path / "bom.json").read_text("utf-8"))
