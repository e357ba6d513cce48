"""Each row of many verdicts is the same as before, word for word."""

from __future__ import annotations

import json

import pytest
from support.verdict_rows import GOOD, PATH, VERDICTS, differing, read

TABLE = json.loads(PATH.read_text("utf-8"))
REWRITE = "if it is meant, run: PYTHONPATH=tests python -m support.verdict_rows"


def test_a_good_artifact_has_the_written_rows() -> None:
    assert read(GOOD.verdict()) == TABLE["good"], REWRITE


@pytest.mark.parametrize("name", [name for name in VERDICTS if name != "good"])
def test_each_fault_changes_exactly_the_written_rows(name: str) -> None:
    assert differing(read(VERDICTS[name]()), TABLE["good"]) == TABLE[name], REWRITE


def test_every_verdict_of_the_file_is_made_by_a_case() -> None:
    assert set(TABLE) == set(VERDICTS)
