"""Explanations of all error codes, from `explanations.toml`. A test compares the codes with the source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Explanation:
    """Texts for people: `means` says what the node or the client found, `do` what the user can do."""

    means: str
    do: str


@cache
def explanations() -> Mapping[str, Explanation]:
    """Every code, in alphabetical order."""
    table = tomllib.loads(files("comity_cli").joinpath("explanations.toml").read_text(encoding="utf-8"))
    return {code: Explanation(**entry) for code, entry in sorted(table.items())}
