"""Bills validated by the schema of CycloneDX, as its library brings it, and by the shapes of SPDX and the model that is
generated from them, each in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from comity.addons.derivation.bom import BomContent, write_bom
from comity.addons.derivation.site_bom import write_site_bom
from comity.addons.derivation.spdx import write_spdx
from comity.rules.artifact_kind import DATASET, MODEL
from comity.rules.signing import sign_content
from comity.trust.artifact import Manifest
from comity.trust.claims import read_claims
from comity.trust.statement import SideObject
from comity.trust.statements import Licence, Parent, Published
from comity.trust.upstream import Upstream
from support.case import case
from support.environments import python_with
from support.inventories import an_inventory
from support.releases import make_release
from support.world import identity

LIBRARY = "cyclonedx-python-lib[json-validation]==11.12.0"
CHECK = """
import json
import sys
from packageurl import PackageURL
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
def purls(found):
    if isinstance(found, dict):
        yield from (value for key, value in found.items() if key == "purl")
        found = list(found.values())
    if isinstance(found, list):
        for each in found:
            yield from purls(each)
for path in sys.argv[1:]:
    error = JsonStrictValidator(SchemaVersion.V1_7).validate_str(open(path, encoding="utf-8").read())
    if error:
        print(path, error)
    for name in purls(json.load(open(path, encoding="utf-8"))):
        if PackageURL.from_string(name).to_string().replace("%3A", ":") != name.replace("%3A", ":"):
            print(path, name)
"""
SPDX_LIBRARY = "spdx-python-model==0.0.6"
SPDX_CHECK = """
import io
import json
import sys
import spdx_python_model
for path in sys.argv[1:]:
    try:
        model, found = spdx_python_model.load_data(json.load(open(path, encoding="utf-8")))
        model.JSONLDSerializer().write(found, io.BytesIO())
        if found.missing_ids:
            print(path, found.missing_ids)
    except Exception as error:
        print(path, type(error).__name__)
"""
SHACL_LIBRARY = "pyshacl==0.40.1"
SHACL_CHECK = """
import json
import sys
import pyshacl
import rdflib
shapes = rdflib.Graph().parse(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as file:
    context = json.load(file)["@context"]
for path in sys.argv[3:]:
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    assert document.pop("@context") == "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
    found = rdflib.Graph().parse(data=json.dumps({"@context": context, **document}), format="json-ld")
    valid, results, _ = pyshacl.validate(found, shacl_graph=shapes, ont_graph=shapes)
    paths = results.objects(None, rdflib.SH.resultPath)
    print(path, valid, *sorted({each.rpartition("/")[2] for each in paths}))
"""
SHAPES = Path(__file__).with_name("spdx_3_0_1")
GOOD = case()
GOOD_MANIFEST = Manifest.parse(GOOD.manifest)
OWNER = identity("Swiss AI", "CH")
COMMIT = "6c12" * 10


def described(spdx: str) -> BomContent:
    """An artifact of which a publisher has said all that it can say."""
    plain = Published.parse(GOOD.publication.statement)
    said = replace(
        plain,
        licence=Licence(spdx, plain.licence.text),
        lineage=(Parent("finetune", "swiss-ai/base@v1", plain.artifact), Parent("merge", f"hf:other/model@{COMMIT}")),
        documents={kind: SideObject.of(kind.encode()) for kind in ("card", "training-summary", "evaluation")},
    )
    readings = read_claims((OWNER.entry.line, sign_content(said, OWNER.signer).line), plain.artifact)
    config = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    upstream = Upstream("https://hub.example", "swiss-ai/Tiny", COMMIT, "main")
    return BomContent(GOOD_MANIFEST, readings.publications[0], (), config, MODEL, upstream, "models.example:5000")


@pytest.mark.slow
def test_every_bill_is_valid_by_the_schema(tmp_path: Path) -> None:
    bills = {
        spdx: write_bom(described(spdx)) for spdx in ("Apache-2.0", "other", "MIT OR Apache-2.0", "llama3 (custom)")
    }
    bills["dataset"] = write_bom(replace(described("MIT"), kind=DATASET))
    bills["bare"] = write_bom(BomContent(GOOD_MANIFEST, None, (), b"{"))
    bills["site"] = write_site_bom([an_inventory(), replace(an_inventory(), machine="ward-4", policy=None)])
    bills["release"] = (make_release(tmp_path, "0.2.0") / "bom.cdx.json").read_text("utf-8")
    paths = []
    for number, text in enumerate(bills.values()):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(text, "utf-8")
    broken = json.loads(bills["bare"])
    broken["components"][0]["type"] = "spaceship"
    wrong = tmp_path / "broken.json"
    wrong.write_text(json.dumps(broken))
    ran = subprocess.run(
        [python_with(LIBRARY), "-c", CHECK, *map(str, (*paths, wrong))], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split(" ")[0] for line in ran.stdout.splitlines() if ".json " in line] == [str(wrong)]


def spdx_documents() -> list[str]:
    contents = [described(spdx) for spdx in ("Apache-2.0", "other", "MIT OR Apache-2.0", "llama3 (custom)")]
    contents += [replace(described("MIT"), kind=DATASET), BomContent(GOOD_MANIFEST, None)]
    return [write_spdx(each) for each in contents]


@pytest.mark.slow
def test_every_document_is_valid_by_the_model_of_spdx(tmp_path: Path) -> None:
    good = spdx_documents()
    bad = []
    for member, value in (
        ("software_packageVersion", ["v1"]),
        ("software_primaryPurpose", "spaceship"),
        ("made_up", 1),
    ):
        broken = json.loads(good[0])
        next(each for each in broken["@graph"] if each["type"] == "ai_AIPackage")[member] = value
        bad.append(json.dumps(broken))
    paths = [tmp_path / f"{number}.json" for number in range(len(good) + len(bad))]
    for path, text in zip(paths, (*good, *bad), strict=True):
        path.write_text(text, "utf-8")
    ran = subprocess.run(
        [python_with(SPDX_LIBRARY), "-c", SPDX_CHECK, *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split(" ")[0] for line in ran.stdout.splitlines()] == [str(path) for path in paths[len(good) :]]


@pytest.mark.slow
def test_every_document_is_valid_by_the_shapes_of_spdx(tmp_path: Path) -> None:
    good = spdx_documents()
    changes: dict[str, tuple[str, dict[str, object]]] = {
        "packageVersion": ("ai_AIPackage", {"software_packageVersion": ["v1", "v2"]}),
        "primaryPurpose": ("ai_AIPackage", {"software_primaryPurpose": "spaceship"}),
        "suppliedBy": ("ai_AIPackage", {"suppliedBy": "urn:nobody"}),
        "hashValue": ("ai_AIPackage", {"verifiedUsing": [{"type": "Hash", "algorithm": "sha256"}]}),
        "created": ("CreationInfo", {"created": "yesterday"}),
        "relationshipType": ("Relationship", {"relationshipType": "friendOf"}),
    }
    bad = dict[str, str]()
    for path, (kind, members) in changes.items():
        document = json.loads(good[0])
        next(each for each in document["@graph"] if each["type"] == kind).update(members)
        bad[path] = json.dumps(document)
    paths = [tmp_path / name for name in (*map(str, range(len(good))), *bad)]
    for file, text in zip(paths, (*good, *bad.values()), strict=True):
        file.write_text(text, "utf-8")
    command = [python_with(SHACL_LIBRARY), "-c", SHACL_CHECK]
    given = [SHAPES / "model.ttl", SHAPES / "context.jsonld", *paths]
    ran = subprocess.run([*command, *map(str, given)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    said = [line.removeprefix(f"{tmp_path}/") for line in ran.stdout.splitlines()]
    assert said == [*(f"{number} True" for number in range(len(good))), *(f"{path} False {path}" for path in bad)]
