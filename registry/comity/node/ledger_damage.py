"""What a node says about damaged pages of its ledger: at its start, and for an error that they may have caused."""

from __future__ import annotations

from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.ledger.page_sums import check_pages, damaged_pages
from comity.trust.errors import ComityError, Malformed, Untrusted

LEDGER_ERRORS: Final = frozenset({"LEDGER-FAILED", "SEQUENCER-ENDED"})
"""Codes of errors of the ledger that are neither Malformed nor Untrusted."""

CORRUPT: Final = "LEDGER-CORRUPT"

_log: Final = structlog.get_logger("comity.node")


def report_pages(ledger: Ledger) -> None:
    """Log what the check of the pages before the start found. Blocking."""
    examined, sums = ledger.examined, ledger.pages
    if sums is None:
        return
    if examined.mended:
        pages = len(examined.mended)
        _log.warning("changed bytes of the ledger written again", pages=pages, named=examined.named, code=CORRUPT)
    if examined.rewritten:
        tables = sorted(examined.refilled)
        _log.error("the ledger was damaged and written again", named=examined.named, filled=tables, code=CORRUPT)
    if examined.damaged:
        error = damaged_pages(sums, examined.damaged)
        _log.error("the ledger is damaged", what=error.what, why=error.why, hint=error.hint, code=error.code)
    if examined.unchecked:
        _log.info("pages of the ledger were not compared with their sums", why=examined.unchecked)


def explained(ledger: Ledger, error: Exception) -> Exception:
    """The error that names the damaged pages of the ledger, if there are any and `error` may come from them; else
    `error`. The next start compares every page, and repairs what it can. Blocking."""
    by_other = isinstance(error, ComityError) and not (
        isinstance(error, Malformed | Untrusted) or error.code in LEDGER_ERRORS
    )
    if ledger.pages is None or by_other:
        return error
    ledger.doubt()
    try:
        damaged = check_pages(ledger.pages)
    except ComityError as unreadable:
        return unreadable
    return damaged_pages(ledger.pages, damaged) if damaged else error
