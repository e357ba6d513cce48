"""Which add-ons are installed, and what they add. The core asks here, and imports no add-on by its name.

A package below `comity.addons` has a module `addon`. What an attribute of that module adds is said where it is asked
for: `COMMANDS` and `GUESSES` in `comity_cli.main`; `offer_commands`, `trust_commands` and `beside` in the commands
`offer`, `trust` and `verify`; `appraiser` in `comity_client.client`; `handoff_renderers` in
`comity_client.offers.handoff`; `gateway_routes` and `SHOWN_HEADERS` in `comity.gateway.app`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType
from typing import Any, Final

PACKAGE: Final = "comity.addons"


def from_addons(attribute: str) -> list[Any]:
    """What the installed add-ons have under this name, in the order of the add-ons' names."""
    return [getattr(addon, attribute) for addon in _addons() if hasattr(addon, attribute)]


@functools.cache
def _addons() -> tuple[ModuleType, ...]:
    try:
        package = importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        return ()
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    return tuple(importlib.import_module(f"{PACKAGE}.{name}.addon") for name in names)
