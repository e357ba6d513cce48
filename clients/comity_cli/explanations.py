"""What each error code means and what to do about it, from `explanations.toml`. A test holds it against the source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Explanation:
    """Sentences for people: `means` says what the node or the client found, `do` what helps."""

    means: str
    do: str


@cache
def explanations() -> Mapping[str, Explanation]:
    """Every code, in alphabetical order."""
    table = tomllib.loads(files("comity_cli").joinpath("explanations.toml").read_text(encoding="utf-8"))
    return {code: Explanation(**entry) for code, entry in sorted(table.items())}
