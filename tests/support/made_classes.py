"""Makes what classes of the product make when they are first used. Only the server of `support.forked` imports this,
after the product.

A frozen class makes its methods then (`comity.trust.frozen`), a class that is written as JSON the rules of its members,
and the codec of a message the rules of its fields. Each of hundreds of forked processes would make again what it uses:
an eighth of the CPU seconds of a node that runs for some seconds.
"""

from __future__ import annotations

import gc
import os
from functools import cached_property
from typing import Final

from comity.trust.codec import JsonObject, shape_of
from comity.trust.frozen import Later
from comity.wire import codec

FEW: Final = "COMITY_TESTS_FEW_FORKS"
"""A variable of the fast tests: they fork fewer processes than would pay for the second that all classes take."""
ASKED_FOR: Final = ("__init__", "__eq__")
"""One name of each group of methods that are made together, but for `__repr__`, which few objects are asked for."""


def make_methods(kind: type) -> None:
    """Make those methods of a class, and the rules of its members."""
    for name in ASKED_FOR:
        if isinstance(vars(kind).get(name), Later):
            getattr(kind, name)
    if issubclass(kind, JsonObject) and "__dataclass_fields__" in vars(kind):
        shape_of(kind)


def make_rules(of: object) -> None:
    """Make the rules of a codec."""
    for name, value in vars(type(of)).items():
        if isinstance(value, cached_property):
            getattr(of, name)


def make_all() -> None:
    """For each class and each codec that is loaded."""
    for found in gc.get_objects():
        if isinstance(found, type):
            make_methods(found)
        elif type(found).__module__ == codec.__name__:
            make_rules(found)


if FEW not in os.environ:
    make_all()
