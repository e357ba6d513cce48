"""Errors that are kept, such as those in a cache: they have the same message, and hold no other object in memory."""

from __future__ import annotations

import pytest
from comity.trust.errors import ComityError, Conflict, Equivocation, Malformed, NotFound, Untrusted

ERRORS = (
    Malformed("what"),
    NotFound("what", why="why", hint="hint", code="NO-SUCH-FILE"),
    Equivocation("what", proof=(b"a", b"b"), why="why"),
    Conflict("", why=""),
)


def test_an_error_says_what_happened_and_why_if_it_is_known() -> None:
    assert str(Malformed("what")) == "what"
    assert str(NotFound("what", why="why", hint="hint")) == "what: why"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_without_its_traceback_says_the_same(error: ComityError) -> None:
    error.by_node = True
    with pytest.raises(ComityError) as raised:
        try:
            raise Untrusted("a cause")
        except Untrusted as cause:
            raise error from cause
    kept = raised.value.without_traceback()
    assert type(kept) is type(error)
    assert (kept.args, kept.__dict__, str(kept)) == (error.args, error.__dict__, str(error))
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    kept.hint = "another"
    assert error.hint != "another"
