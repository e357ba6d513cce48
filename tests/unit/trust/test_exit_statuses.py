"""One table has the exit statuses: the help, the errors and the first lines of the program say the same."""

from __future__ import annotations

import re

from comity.trust.errors import ComityError
from comity.trust.exit_statuses import FAILED, INTERRUPTED, MEANINGS
from comity_cli import start
from comity_cli.main import main


def subclasses(of: type[ComityError]) -> set[type[ComityError]]:
    return {of}.union(*(subclasses(each) for each in of.__subclasses__()))


def test_each_error_ends_with_a_status_of_the_table() -> None:
    statuses = {each.exit_status for each in subclasses(ComityError)}
    assert len(statuses) > 4 and statuses <= MEANINGS.keys()


def test_the_help_of_the_program_names_each_status() -> None:
    listed = (main.__doc__ or "").partition("exit: ")[2]
    assert [int(number) for number in re.findall(r"\b\d+\b", listed)] == list(MEANINGS)


def test_what_ends_before_anything_is_imported_ends_with_the_same_statuses() -> None:
    assert (start.FAILED, start.INTERRUPTED) == (FAILED, INTERRUPTED)
