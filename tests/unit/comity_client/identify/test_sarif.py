"""What was found as SARIF: rules and levels, URIs of any path, and the structure that the standard asks for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from comity_client.identify import sarif
from comity_client.identify.sarif import RULES, sarif_of, uri_of
from hypothesis import given
from hypothesis import strategies as st
from support.identified import BAD, HOSTILE, identified


def run_of(text: str) -> dict[str, Any]:
    document = json.loads(text)
    assert (document["version"], len(document["runs"])) == ("2.1.0", 1)
    (run,) = document["runs"]
    assert isinstance(run, dict)
    return run


def test_each_thing_to_look_at_is_a_result_of_its_rule_and_accepted_files_are_none() -> None:
    run = run_of(sarif_of(identified(), "1.2.3", 3))
    found = [
        (each["ruleId"], each["level"], each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
        for each in run["results"]
    ]
    hostile = uri_of(Path(HOSTILE))
    assert found == [
        ("changed-file", "error", "hub/x/config.json"),
        ("refused-artifact", "error", "hub/x"),
        ("refused-artifact", "error", "blobs/1"),
        ("missing-file", "warning", "hub/x"),
        ("unknown-file", "warning", hostile),
        ("same-tensors", "note", "tuned/one.safetensors"),
        ("undecided-file", "note", "undecided"),
        ("unread-path", "note", "a.zip!/../x"),
    ]
    texts = [each["message"]["text"] for each in run["results"]]
    assert texts[0] == "config.json has other bytes than in org/bad@v1, stored as org/x@main"
    assert texts[1] == "org/bad@v1: the policy needs a vouch"
    assert texts[3] == "a b.bin is missing of org/bad@v1, stored as org/x@main"


def test_rule_ids_are_stable_and_each_result_points_to_its_rule() -> None:
    run = run_of(sarif_of(identified(), "1", 3))
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [
        "changed-file",
        "refused-artifact",
        "warned-artifact",
        "missing-file",
        "unknown-file",
        "named-file",
        "same-tensors",
        "undecided-file",
        "unread-path",
    ]
    for each in run["results"]:
        rule = rules[each["ruleIndex"]]
        assert (rule["id"], rule["defaultConfiguration"]["level"]) == (each["ruleId"], each["level"])


def test_the_run_names_its_exit_status_and_the_nodes_that_did_not_answer() -> None:
    (invocation,) = run_of(sarif_of(identified(), "1", 4))["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (True, 4)
    assert [each["message"]["text"] for each in invocation["toolExecutionNotifications"]] == ["two.example: timed out"]


def test_a_name_makes_no_link_placeholder_or_control_character_in_a_message() -> None:
    text = sarif_of(identified(), "1", 9)
    assert text.isascii()
    (said,) = [each["message"]["text"] for each in run_of(text)["results"] if each["ruleId"] == "unknown-file"]
    assert said.isprintable() and "](" not in said and "{{0}}" in said


def test_a_finding_has_the_same_fingerprint_in_the_next_run_and_others_have_others() -> None:
    first, second = (
        [each["partialFingerprints"]["comityIdentify/v1"] for each in run_of(sarif_of(identified(), "1", 3))["results"]]
        for _ in range(2)
    )
    assert first == second and len(set(first)) == len(first)


def test_the_worst_results_come_first_and_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sarif, "MAX_RESULTS", 4)
    run = run_of(sarif_of(identified(*(f"{number}" for number in range(10))), "1", 3))
    assert [each["level"] for each in run["results"]] == ["error", "error", "error", "warning"]
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert notes[-1]["message"]["text"] == "13 further results are left out"


def test_a_rule_has_the_members_that_the_standard_asks_for() -> None:
    """Those that the schema requires; a rule's name is an identifier, and its texts are sentences."""
    for rule in run_of(sarif_of(identified(), "1", 0))["tool"]["driver"]["rules"]:
        assert rule["name"].isidentifier()
        for member in ("shortDescription", "fullDescription", "help"):
            assert rule[member].keys() == {"text"} and rule[member]["text"].endswith(".")
    assert {rule.level for rule in RULES} == {"error", "warning", "note"}


@given(name=st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name))
def test_a_uri_gives_back_the_bytes_of_any_path(name: bytes) -> None:
    for start in ("", "/srv/"):
        path = Path(start + os.fsdecode(name))
        parts = urlsplit(uri_of(path))
        assert (parts.scheme, parts.query, parts.fragment) == ("file" if start else "", "", "")
        assert unquote_to_bytes(parts.path) == os.fsencode(path)


def test_the_artifact_is_a_part_of_what_makes_a_finding_the_same() -> None:
    results = list(sarif._results(identified()))
    assert [each.about for each in results if each.rule is sarif.REFUSED] == [BAD, BAD]
