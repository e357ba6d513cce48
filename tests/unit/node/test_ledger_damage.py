"""An error that damage of the ledger may have caused names the damaged pages."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.page_sums import check_pages
from comity.node.ledger_damage import explained, report_pages
from comity.trust.errors import ComityError, Conflict, Malformed
from structlog.testing import capture_logs

PAGE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for _ in range(2):
        with closing(opened(tmp_path)) as ledger:
            assert ledger.pages is not None and check_pages(ledger.pages) == ()
    return tmp_path


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder, lambda: 1_000)


def damage(folder: Path, *places: int) -> None:
    with (folder / DATABASE_FILE).open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(b"\xff")


@pytest.mark.parametrize("error", [ValueError("a line"), Malformed("a line")])
def test_an_error_of_a_damaged_ledger_names_the_pages(folder: Path, error: Exception) -> None:
    with closing(opened(folder)) as ledger:
        assert explained(ledger, error) is error
        damage(folder, 9 * PAGE + 9, 9 * PAGE + 90)
        known = explained(ledger, error)
        assert isinstance(known, ComityError) and known.code == "LEDGER-CORRUPT" and "10 (" in known.why


def test_an_error_that_damage_does_not_cause_stays_as_it_is(folder: Path) -> None:
    with closing(opened(folder)) as ledger:
        damage(folder, 9 * PAGE + 9)
        error = Conflict("in use")
        assert explained(ledger, error) is error


@pytest.mark.parametrize(("places", "level"), [((9,), "warning"), ((9, 90), "error")])
def test_a_start_tells_what_it_found(folder: Path, places: tuple[int, ...], level: str) -> None:
    damage(folder, *(9 * PAGE + place for place in places))
    with closing(opened(folder)) as ledger, capture_logs() as said:
        report_pages(ledger)
    (event,) = said
    assert (event["log_level"], event["code"]) == (level, "LEDGER-CORRUPT")
    assert "10 (" in event["named"]
