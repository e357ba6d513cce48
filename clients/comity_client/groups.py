"""Errors of tasks that ran side by side."""

from __future__ import annotations

from comity.trust.errors import ComityError


def first_error(failures: BaseExceptionGroup[ComityError]) -> ComityError:
    """The first of the failures that ended a task group: the others were cancelled for it."""
    found = failures.exceptions[0]
    return first_error(found) if isinstance(found, BaseExceptionGroup) else found
