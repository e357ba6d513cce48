"""The catalogue for data portals: what is said, what is not known, and no term from what others claim."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from comity.addons.mldcat.catalogue import (
    MAX_FILES,
    NOT_STATED,
    PATH,
    CatalogueEntry,
    CatalogueWriter,
    PortalPage,
    TrainingDataset,
)
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.statements import Parent
from hypothesis import given, settings
from hypothesis import strategies as st
from support.catalogue_entries import BASE, DATASET, MIRRORED, MODEL
from support.examples import examples

WRITER = CatalogueWriter(BASE, "node-one")
PAGE_OF_MODEL = f"{BASE}/swiss-ai/tiny/tree/sha256:{MODEL.artifact}"


def graph(*entries: CatalogueEntry, page: PortalPage | None = None) -> dict[str, Mapping[str, Any]]:
    """The elements by their identifiers."""
    return {each["@id"]: each for each in json.loads(WRITER.write(entries, page))["@graph"]}


def model(**changes: Any) -> Mapping[str, Any]:
    return graph(replace(MODEL, **changes))[PAGE_OF_MODEL]


def test_a_model_has_its_files_with_addresses_and_checksums() -> None:
    found = model()
    assert found["@type"] == ["it6:MachineLearningModel", "dcat:Resource"]
    assert found["dct:identifier"] == f"sha256:{MODEL.artifact}"
    files = [
        (each["dct:identifier"], each["spdx:checksum"]["spdx:checksumValue"]["@value"]) for each in found["it6:hasFile"]
    ]
    assert files == [(entry.path, entry.sha256) for entry in MODEL.manifest.files]
    addresses = [each["it6:url"]["@id"] for each in found["it6:hasFile"]]
    assert addresses[0] == f"{BASE}/swiss-ai/tiny/resolve/sha256:{MODEL.artifact}/a%20name%3F.json"
    formats = [each["dct:format"]["@id"].rpartition("/")[2] for each in found["it6:hasFile"]]
    assert formats == ["json", "octet-stream"]


def test_a_dataset_has_a_distribution_for_each_file_at_the_address_of_datasets() -> None:
    entries = graph(MODEL, DATASET)
    (found,) = (each for each in entries.values() if "dcat:distribution" in each)
    assert found["@type"] == ["dcat:Dataset", "dcat:Resource"]
    (file,) = found["dcat:distribution"]
    assert file["dcat:downloadURL"]["@id"].startswith(f"{BASE}/datasets/inst/questions/resolve/sha256:")
    assert entries[f"{BASE}{PATH}"]["dcat:dataset"] == [{"@id": found["@id"]}]
    assert entries[f"{BASE}{PATH}"]["dcat:resource"] == [{"@id": PAGE_OF_MODEL}]


def test_what_no_publication_says_is_not_stated() -> None:
    entries = graph(MODEL, DATASET)
    found = entries[PAGE_OF_MODEL]
    assert found["dct:created"] == NOT_STATED
    data = entries[found["it6:trainedOn"]["@id"]]
    assert (data["dct:title"], data["it6:collectionDate"]) == (f"Training data: {NOT_STATED}", NOT_STATED)
    assert entries[f"{BASE}{PATH}#quality-not-stated"]["dqv:value"] == NOT_STATED
    record = graph(replace(MODEL, known_since=0))[f"{PAGE_OF_MODEL}#record"]
    assert record["dct:modified"] == NOT_STATED
    assert entries[f"{PAGE_OF_MODEL}#record"]["dct:modified"]["@value"] == "2026-12-02T10:00:00Z"


def test_claims_have_their_author() -> None:
    found = model()
    assert MODEL.publisher is not None
    said = found["dct:provenance"]["rdfs:label"]
    assert f"Signed by the identity {MODEL.publisher.identity}; the signature was verified." in said
    assert "and not verified: name, version, kind and licence, and its origin: finetune of" in said
    agent = graph(MODEL)[found["it6:hasProvider"]["@id"]]
    assert (agent["foaf:name"], agent["dct:identifier"]) == ("Swiss AI", MODEL.publisher.identity)


def test_of_a_mirrored_artifact_no_publisher_is_named() -> None:
    entries = graph(MIRRORED)
    found = entries[f"{BASE}/org/name/tree/{MIRRORED.revision}"]
    assert "it6:hasProvider" not in found and not any("#publisher-" in each for each in entries)
    assert "no publisher signed it" in found["dct:provenance"]["rdfs:label"]
    assert MIRRORED.upstream in found["dct:provenance"]["rdfs:label"]


@pytest.mark.parametrize(
    ("licence", "written"),
    [
        ("Apache-2.0", {"@id": "https://spdx.org/licenses/Apache-2.0", "@type": "dct:LicenseDocument"}),
        ("MIT OR Apache-2.0", {"@type": "dct:LicenseDocument", "dct:title": "MIT OR Apache-2.0"}),
        ("LicenseRef-own", {"@type": "dct:LicenseDocument", "dct:title": "LicenseRef-own"}),
        ("other", {"@type": "dct:LicenseDocument", "dct:title": "other"}),
        ("../../x", {"@type": "dct:LicenseDocument", "dct:title": "../../x"}),
    ],
)
def test_only_a_licence_of_the_list_has_an_address(licence: str, written: Mapping[str, str]) -> None:
    assert model(licence=licence)["dct:license"] == written


def test_a_parent_is_pointed_to_and_nothing_is_said_about_it() -> None:
    base = sha256(b"base")
    parents = (
        Parent("finetune", "swiss-ai/base@v1", base),
        Parent("merge", f"hf:org/name@{'6c12' * 10}"),
        Parent("merge", "a model of ours", base),
        Parent("merge", "hf:../../x@main"),
    )
    assert model(lineage=parents)["prov:wasDerivedFrom"] == [
        {"@id": f"{BASE}/swiss-ai/base/tree/sha256:{base}"},
        {"@id": f"https://huggingface.co/org/name/tree/{'6c12' * 10}"},
        {"dct:title": "a model of ours", "dct:identifier": f"sha256:{base}"},
        {"dct:title": "hf:../../x@main"},
    ]


def test_of_many_files_the_first_are_listed_and_all_are_counted() -> None:
    many = Manifest.of(FileEntry(f"{number:05}.bin", 1, sha256(b"x")) for number in range(MAX_FILES + 1))
    found = model(manifest=many)
    assert len(found["it6:hasFile"]) == MAX_FILES
    assert f"1,001 files, of which the first {MAX_FILES:,} are listed" in found["dct:description"]


def test_the_pages_of_one_gateway_share_the_catalogue_and_point_to_the_next_page() -> None:
    first = graph(MODEL, page=PortalPage("https://a.example/1", "https://a.example/2", 3))
    last = graph(DATASET, page=PortalPage("https://a.example/2"))
    assert first["https://a.example/1"]["hydra:next"] == {"@id": "https://a.example/2"}
    assert first["https://a.example/1"]["rdfs:comment"] == "3 of the names of this page are not served now"
    assert set(last["https://a.example/2"]) == {"@id", "@type"}
    assert first[f"{BASE}{PATH}#publisher"] == last[f"{BASE}{PATH}#publisher"]
    titles = {key: first[f"{BASE}{PATH}"][key] for key in ("dct:title", "dct:description", "dct:publisher")}
    assert titles.items() <= last[f"{BASE}{PATH}"].items()


def test_notices_of_the_node_are_in_the_record() -> None:
    assert graph(replace(MODEL, notices=("name: others claim it",)))[f"{PAGE_OF_MODEL}#record"]["rdfs:comment"] == [
        "name: others claim it"
    ]


def keys(found: Any) -> set[str]:
    """All keys, types and datatypes of a document; of the context only that it is one."""
    if isinstance(found, Mapping):
        types = found.get("@type", ())
        own = {*found, *((types,) if isinstance(types, str) else types)}
        return own.union(*(keys(value) for key, value in found.items() if key != "@context"))
    if isinstance(found, Sequence) and not isinstance(found, str):
        return set().union(*map(keys, found))
    return set()


KNOWN = keys(json.loads(WRITER.write([MODEL, DATASET, MIRRORED]))) | {"dct:title", "rdfs:comment"}
TEXT = st.text(max_size=30) | st.sampled_from(["@id", "@type", "@context", "_:b0", "javascript:x", "dct:title"])


@given(TEXT, TEXT, TEXT, TEXT)
@settings(max_examples=examples(60))
def test_no_claim_becomes_a_term_or_leaves_the_gateway(licence: str, parent: str, author: str, notice: str) -> None:
    assert MODEL.publisher is not None
    hostile = replace(
        MODEL,
        licence=licence,
        lineage=(Parent("merge", parent or "x"),),
        publisher=replace(MODEL.publisher, name=author),
        notices=(notice,),
    )
    written = json.loads(WRITER.write([hostile]))
    assert keys(written) <= KNOWN
    places = ("https://spdx.org/licenses/", "https://huggingface.co/", "https://www.iana.org/", "spdx:", BASE)
    assert all(each.startswith(places) for each in identifiers(written["@graph"]))


def identifiers(found: Any) -> list[str]:
    if isinstance(found, Mapping):
        own = [found["@id"]] if "@id" in found else []
        return own + [each for value in found.values() for each in identifiers(value)]
    return [each for item in found for each in identifiers(item)] if isinstance(found, list) else []


def test_a_model_names_the_datasets_that_are_proven_and_a_dataset_in_the_page_is_described_once() -> None:
    rows = TrainingDataset("inst/questions", "v2", DATASET.artifact)
    other = TrainingDataset("inst/words", "v1", sha256(b"words"))
    trained = replace(MODEL, trained_on=(rows, other))
    pages = [f"{BASE}/{each.repository}/tree/sha256:{each.artifact}" for each in (rows, other)]
    alone, beside = graph(trained), graph(trained, DATASET)
    for found in (alone, beside):
        assert found[PAGE_OF_MODEL]["it6:trainedOn"] == [{"@id": page} for page in pages]
        assert f"{BASE}{PATH}#training-data-not-stated" not in found
        assert (found[pages[1]]["dct:title"], found[pages[1]]["it6:collectionDate"]) == ("inst/words@v1", NOT_STATED)
    assert "dcat:distribution" not in alone[pages[0]] and "dcat:distribution" in beside[pages[0]]
    texts = json.loads(WRITER.write((trained, DATASET)))["@graph"]
    assert len([each for each in texts if each["@id"] == pages[0]]) == 1
    assert f"{BASE}{PATH}#training-data-not-stated" in graph(trained, MIRRORED)
