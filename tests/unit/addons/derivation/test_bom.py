"""The ML-BOM: one spelling for one artifact, claims with their authors, and nothing that was not available."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.addons.derivation.bom import BomContent, bom_content, parent_purl, write_bom
from comity.rules.model_pack import pack_image
from comity.rules.signing import sign_content
from comity.trust.artifact import Manifest
from comity.trust.claims import read_claims
from comity.trust.encoding import sha256
from comity.trust.statements import Licence, Parent, Published, Vouched
from comity.trust.upstream import HTTPS_LIST, Upstream
from comity_cli.main import main
from comity_client.client import Client
from comity_client.home import Home
from support.case import CARD, case
from support.world import identity

GOOD = case()
MANIFEST = Manifest.parse(GOOD.manifest)
OWNER = identity("Swiss AI", "CH")
COMMIT = "6c12" * 10
ONE, TWO = sha256(b"1"), sha256(b"2")
PLAIN = Published.parse(GOOD.publication.statement)


def made(api: Client, folder: Path) -> str:
    return write_bom(bom_content(api, folder))


def written(*, licence: str = "Apache-2.0", parents: tuple[Parent, ...] = (), config: bytes = b"", **more: Any) -> Any:
    said = replace(PLAIN, licence=Licence(licence, None), lineage=parents)
    readings = read_claims((OWNER.entry.line, sign_content(said, OWNER.signer).line), PLAIN.artifact)
    return json.loads(write_bom(BomContent(MANIFEST, readings.publications[0], (), config, **more)))


def test_the_same_artifact_and_claims_give_the_same_bytes(tmp_path: Path) -> None:
    folder = GOOD.write(tmp_path)
    api = Client(Home(tmp_path / "home"))
    assert made(api, folder) == made(api, folder)
    assert json.loads(made(api, folder))["serialNumber"] == written()["serialNumber"]


def test_files_hashes_and_documents_are_those_of_the_publication(tmp_path: Path) -> None:
    document = json.loads(made(Client(Home(tmp_path / "home")), GOOD.write(tmp_path)))
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
    card, signature = model["externalReferences"]
    assert (signature["type"], signature["hashes"][0]["content"]) == ("digital-signature", GOOD.publication.digest)
    assert (card["type"], card["hashes"][0]["content"]) == ("model-card", PLAIN.documents["card"].digest)
    assert card["url"].startswith("ni:///sha-256;") and PLAIN.documents["card"].size == len(CARD)
    assert model["modelCard"] == {"modelParameters": {"modelArchitecture": "Tiny"}}


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        ("Apache-2.0", {"expression": "Apache-2.0", "acknowledgement": "declared"}),
        ("MIT OR Apache-2.0", {"expression": "MIT OR Apache-2.0", "acknowledgement": "declared"}),
        ("gpl-3.0-made-up", {"license": {"name": "gpl-3.0-made-up", "acknowledgement": "declared"}}),
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


def test_the_image_is_named_by_its_digest_and_by_where_it_is_pulled() -> None:
    image = pack_image(MANIFEST)
    assert image is not None
    purl = f"pkg:oci/tiny@sha256:{image.manifest.digest}"
    assert written()["metadata"]["component"]["purl"] == purl
    there = written(registry="models.example:5000")["metadata"]["component"]["purl"]
    assert there == f"{purl}?repository_url=models.example:5000/swiss-ai/tiny"


def test_a_mirrored_commit_is_named_as_nodes_state_it() -> None:
    upstream = Upstream("https://huggingface.co", "swiss-ai/Tiny", COMMIT, "main")
    purl = f"pkg:huggingface/swiss-ai/Tiny@{COMMIT}"
    mirrored = json.loads(write_bom(BomContent(MANIFEST, None, upstream=upstream)))["metadata"]["component"]
    assert mirrored["purl"] == purl and "externalReferences" not in mirrored
    elsewhere = replace(upstream, endpoint="https://hub.example:8443/a")
    listed = replace(upstream, endpoint="https://host.example", repository="host.example/tiny", kind=HTTPS_LIST)
    assert "purl" not in json.loads(write_bom(BomContent(MANIFEST, None, upstream=listed)))["metadata"]["component"]
    published = written(upstream=elsewhere)["metadata"]["component"]
    assert published["purl"].startswith("pkg:oci/")
    assert published["externalReferences"][-1]["url"] == f"{purl}?repository_url=https://hub.example:8443/a"


@pytest.mark.parametrize(
    "name", ["a/base@v1", "hf:a/base", "hf:a/base@main", "hf:a/b/c@" + "1" * 40, "hf:a/..@" + "1" * 40]
)
def test_a_parent_that_is_no_commit_of_a_hub_has_no_package_url(name: str) -> None:
    assert parent_purl(Parent("finetune", name)) is None
    assert parent_purl(Parent("finetune", f"hf:a/base@{COMMIT}")) == f"pkg:huggingface/a/base@{COMMIT}"


def test_an_adapter_depends_on_its_base_and_a_finetune_on_no_parent() -> None:
    parents = (
        Parent("finetune", "a/one", ONE),
        Parent("adapter", "a/two", TWO),
        Parent("merge", "a", TWO),
    )
    document = written(parents=parents)
    (needs,) = document["dependencies"]
    refs = [each.get("bom-ref") for each in document["metadata"]["component"]["pedigree"]["ancestors"]]
    assert refs == [f"ancestor:sha256:{ONE}", f"ancestor:sha256:{TWO}", None]
    assert [ref for ref in needs["dependsOn"] if ref.startswith("ancestor:")] == [refs[1]]


def test_a_mirrored_list_of_a_web_server_has_no_package_url() -> None:
    listed = Upstream("https://models.example.org/pub", "models.example.org/tiny", COMMIT, COMMIT, HTTPS_LIST)
    assert "purl" not in json.loads(write_bom(BomContent(MANIFEST, None, upstream=listed)))["metadata"]["component"]


def test_a_dataset_is_data_without_a_model_card() -> None:
    model = written(kind="dataset", config=b'{"model_type":"x"}')["metadata"]["component"]
    assert model["type"] == "data" and "modelCard" not in model
    assert {"name": "comity:kind", "value": "dataset"} in model["properties"]


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
    properties = json.loads(made(Client(Home(tmp_path / "home")), said.write(tmp_path)))["metadata"]["component"]
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
