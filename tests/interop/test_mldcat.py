"""The catalogue for data portals, read as RDF and validated by the SHACL shapes of MLDCAT-AP 3.1.0.

The shapes are all constraints of the published ones, without their descriptions (`mldcat_ap_shapes.ttl`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.addons.mldcat.catalogue import PATH, CatalogueWriter, PortalPage
from comity.trust.statements import Parent
from support.catalogue_entries import BASE, DATASET, MIRRORED, MODEL
from support.environments import python_with
from support.gateway import gateway_node
from support.publisher import model
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow
VALIDATOR = "pyshacl==0.40.1"
SHAPES = Path(__file__).with_name("mldcat_ap_shapes.ttl")
CHECK = """
import sys
import pyshacl
import rdflib
shapes = rdflib.Graph().parse(sys.argv[1])
dcat = rdflib.Namespace("http://www.w3.org/ns/dcat#")
together = rdflib.Graph()
for path in sys.argv[2:]:
    found = rdflib.Graph().parse(path, format="json-ld")
    together += found
    valid, results, _ = pyshacl.validate(found, shacl_graph=shapes)
    paths = results.objects(None, rdflib.SH.resultPath)
    print(path, valid, *sorted({each.rpartition("/")[2].rpartition("#")[2] for each in paths}))
valid, _, text = pyshacl.validate(together, shacl_graph=shapes)
records = len(set(together.subjects(rdflib.RDF.type, dcat.CatalogRecord)))
print("together", valid, len(set(together.subjects(rdflib.RDF.type, dcat.Catalog))), records)
"""


def checked(*files: Path) -> list[str]:
    """What the validator says of each file, and of all as one graph: with the numbers of catalogues and records."""
    command = [python_with(VALIDATOR), "-c", CHECK, str(SHAPES), *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_catalogue_is_valid_by_the_shapes_and_what_lacks_a_property_is_not(tmp_path: Path) -> None:
    writer = CatalogueWriter(BASE, "node-one")
    texts = [
        writer.write([MODEL, DATASET, MIRRORED]),
        writer.write([DATASET], PortalPage(f"{BASE}/2")),
        writer.write([]),
    ]
    good = [tmp_path / f"good-{number}" for number in range(len(texts))]
    for path, text in zip(good, texts, strict=True):
        path.write_text(text)
    assert checked(*good) == [*(f"{path} True" for path in good), "together True 1 3"]
    bad: dict[str, Callable[[dict[str, Any]], object]] = {
        "hasFile": lambda model: model.pop("it6:hasFile"),
        "trainedOn": lambda model: model.pop("it6:trainedOn"),
        "version": lambda model: model.update({"dcat:version": ["v1", "v2"]}),
        "checksumValue": lambda model: model["it6:hasFile"][0]["spdx:checksum"].pop("spdx:checksumValue"),
        "license": lambda model: model.update({"dct:license": "Apache-2.0"}),
    }
    for lacking, change in bad.items():
        document = json.loads(texts[0])
        change(next(each for each in document["@graph"] if "it6:hasFile" in each))
        (tmp_path / lacking).write_text(json.dumps(document))
    said = checked(*(tmp_path / lacking for lacking in bad))
    assert said[:-1] == [f"{tmp_path / lacking} False {lacking}" for lacking in bad]


async def test_the_pages_of_a_running_node_are_one_valid_catalogue(tmp_path: Path) -> None:
    async with gateway_node(tmp_path / "node") as node:
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows" / "rows.jsonl").write_text('{"a": 1}\n')
        rows = await node.publish(tmp_path / "rows", "tests/rows@v2", kind="dataset")
        trained = (Parent("finetune", "tests/rows@v2", rows.artifact),)
        await node.publish(model(tmp_path / "tiny", weights=1_000), "tests/tiny@v1", lineage=trained)
        pages, following = list[Path](), f"{PATH}?limit=1"
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as http:
            while following:
                page = await http.get(following)
                pages.append(tmp_path / f"page-{len(pages)}")
                pages[-1].write_bytes(page.content)
                following = page.links.get("next", {}).get("url", "")
    data = {"@id": f"{node.url}/tests/rows/tree/sha256:{rows.artifact}"}
    assert [
        each["it6:trainedOn"]
        for page in pages
        for each in json.loads(page.read_bytes())["@graph"]
        if "it6:trainedOn" in each
    ] == [[data]]
    said = checked(*pages)
    assert said[-1] == "together True 1 2"
    assert [line.endswith(" True") for line in said[:-1]] == [True] * len(pages)
