"""Each row of many verdicts is the same as before, word for word."""

from __future__ import annotations

import json

import pytest
from support.verdict_rows import GOOD, PATH, VERDICTS, differing, read

TABLE = json.loads(PATH.read_text("utf-8"))
REWRITE = "if it is meant, run: PYTHONPATH=tests python -m support.verdict_rows"


def test_a_good_artifact_has_every_row_as_it_is_written() -> None:
    assert read(GOOD.verdict()) == TABLE["good"], REWRITE


@pytest.mark.parametrize("name", [name for name in VERDICTS if name != "good"])
def test_each_fault_changes_exactly_the_written_rows(name: str) -> None:
    assert differing(read(VERDICTS[name]()), TABLE["good"]) == TABLE[name], REWRITE


def test_the_file_has_no_verdict_that_nothing_makes() -> None:
    assert set(TABLE) == set(VERDICTS)
