"""The properties that hold for every input of every parser."""

from __future__ import annotations

from comity.trust.errors import ComityError
from fuzz.parsers import Target


def check(target: Target, data: bytes) -> bool:
    """Whether `data` is accepted; fails where the parser raises anything but ComityError, or prints other bytes."""
    try:
        value = target.parse(data)
    except ComityError as error:
        assert str(error)
        assert error.code
        return False
    if target.printed is not None:
        assert target.printed(value) == data, "accepted, but printed as other bytes"
    return True
