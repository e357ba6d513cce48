"""The ML-BOM of a site: each machine with what lies there, what is warned about once, and the same bytes each time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.addons.derivation.commands.bom import command
from comity.addons.derivation.site_bom import write_site_bom
from comity.trust.errors import Malformed
from comity_client.inventory.inventory import Inventory
from hypothesis import given, settings
from support.examples import examples
from support.inventories import TINY, an_inventory, inventories
from support.run_command import printed, refused, run

HERE = an_inventory()
OTHER = replace(HERE, machine="ward-4")


def component(machine: Any, kind: str) -> Any:
    (found,) = [each for each in machine["components"] if each["type"] == kind]
    return found


def properties(found: Any) -> dict[str, str]:
    return {each["name"].removeprefix("comity:"): each["value"] for each in found["properties"]}


def test_each_machine_has_its_models_with_places_and_verdicts_and_its_unknown_files() -> None:
    document = json.loads(write_site_bom([OTHER, HERE]))
    assert [each["name"] for each in document["components"]] == ["ward-3", "ward-4"]
    assert document["metadata"]["component"]["name"] == "ward-3, ward-4"
    model = component(document["components"][0], "machine-learning-model")
    assert (model["group"], model["version"], model["hashes"][0]["content"]) == ("swiss-ai", "v1", TINY)
    assert [each["location"] for each in model["evidence"]["occurrences"]] == ["/srv/tiny", "/srv/x"]
    assert properties(model)["verdict"] == "refused"
    file = component(document["components"][0], "file")
    assert (file["name"], properties(file)["known"]) == ("/srv/y", "unknown")
    assert properties(document["components"][0])["not-read"] == "/srv/z: Permission denied"


def test_an_advisory_is_one_vulnerability_that_affects_the_models_of_all_machines() -> None:
    (found,) = json.loads(write_site_bom([HERE, OTHER]))["vulnerabilities"]
    assert (found["ratings"], found["description"]) == ([{"severity": "high"}], "yank: wrong tokenizer")
    refs = {f"machine:{name}/sha256:{TINY}" for name in ("ward-3", "ward-4")}
    assert {each["ref"] for each in found["affects"]} == refs


@given(inventories())
@settings(max_examples=examples(40))
def test_no_reference_is_there_twice_and_each_one_leads_to_a_component(made: Inventory) -> None:
    text = write_site_bom([made])
    assert text == write_site_bom([made])
    document = json.loads(text)
    (machine,) = document["components"]
    refs = ["site", machine["bom-ref"], *(each["bom-ref"] for each in machine["components"])]
    assert len(refs) == len(set(refs))
    assert {each["ref"] for found in document["vulnerabilities"] for each in found["affects"]} <= set(refs)


def test_two_inventories_of_one_machine_are_refused() -> None:
    with pytest.raises(Malformed, match="not of different machines"):
        write_site_bom([HERE, HERE])


def test_the_command_takes_inventories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for each in (HERE, OTHER):
        Path(f"{each.machine}.json").write_bytes(each.encode())
    assert run(command, "ward-3.json", "ward-4.json").output == write_site_bom([HERE, OTHER])
    assert printed(command, "ward-3.json", "--out", "site.cdx.json")["components"] == 3
    assert Path("site.cdx.json").read_text() == write_site_bom([HERE])
    Path("other.json").write_text("{}")
    assert refused(command, "other.json").code == "INVENTORY"
    assert run(command, "ward-3.json", "swiss-ai/tiny@v1").exit_code == 2
