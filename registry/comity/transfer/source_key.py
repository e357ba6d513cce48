"""What a source is, apart from what people call it: the key of every table about sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import sha256

SHOWN: Final = 12
"""Hex digits that tell two sources of one name apart where they are shown."""


@dataclass(frozen=True, slots=True, order=True)
class SourceKey:
    """Two sources are one if their keys are equal, whatever their names.

    Attributes:
        kind: what sort of source it is, such as `node`.
        value: which of that sort: made of keys, identities and digests, never of a name that somebody chose.
    """

    kind: str
    value: str

    @property
    def short(self) -> str:
        return sha256(f"{self.kind}\n{self.value}".encode())[:SHOWN]


def shown_names(names: Mapping[SourceKey, str]) -> dict[SourceKey, str]:
    """A text for each source that no other one has: its name, with a short key behind it where that is not enough."""
    times = Counter(names.values())

    def alone(name: str) -> bool:
        return times[name] == 1 and not name.endswith(")")  # which could imitate another one's name and key

    return {key: name if alone(name) else f"{name} ({key.short})" for key, name in names.items()}
