"""`comity pin ls`: what it prints about pins that are met and pins that are not."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from comity.rules.artifact_pins import Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import sha256
from comity.wire.pin import ListedPin, ListedPinnedCopy
from comity_cli.main import command
from comity_cli.output import Output

FIRST, SECOND = sha256(b"first"), sha256(b"second")
ASKED = CopyPolicy(3, 2, 1)
PINS = [
    ListedPin(Pin(FIRST, "lab/x@v1", ASKED), ASKED, ASKED, met=True, asked=False),
    ListedPin(
        Pin(SECOND, "", ASKED),
        CopyPolicy(1, 1, 1),
        CopyPolicy(2, 2, 1),
        met=False,
        asked=True,
        copies=(
            ListedPinnedCopy("node-ch.example", "CH", "here"),
            ListedPinnedCopy("node-kr.example", "KR", "claimed"),
        ),
    ),
]


def test_pins_are_listed_and_one_that_is_not_met_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity_client.own_node.list_pins", lambda socket, artifact=None: PINS)
    shown = CliRunner().invoke(command, ["pin", "ls", "--socket", "x.sock"], obj=Output())
    assert shown.exit_code == 8
    assert ["16367aacb67a", "1 of 3", "1 of 2", "1 of 1", "1 more claimed, others are asked"] in [
        re.split(r"\s{2,}", line) for line in shown.output.splitlines()
    ]
    assert max(len(line) for line in shown.output.splitlines()) <= 80
    assert "2 pins, 1 not met" in shown.output
    ran = CliRunner().invoke(command, ["pin", "ls", "--socket", "x.sock", "--json"], obj=Output())
    document = json.loads(ran.output)
    assert document["unmet"] == 1
    assert [pin["met"] for pin in document["pins"]] == [True, False]
    assert [copy["state"] for copy in document["pins"][1]["copies"]] == ["here", "claimed"]
