"""May what is made from something under one licence stand under another? A small, conservative table; no legal advice.

SPDX expressions of one licence are sorted into families by what they ask of derived works. Everything else (other
licences, `other`, expressions with AND, OR or WITH) is unknown, and unknown is never said to be fine.

    permissive      asks for attribution at most
    share-alike     derived works stand under the same licence
    non-commercial  what is derived may not be used commercially either
    no-derivatives  nothing derived may be given on
    terms           an agreement with use restrictions that has to be passed on

Sources: the licences' own texts; identifiers of the SPDX list, and those that the Hub uses where SPDX has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Answer = Literal["fits", "conflict", "unknown"]

_FAMILIES: Final[Mapping[str, str]] = {
    "permissive": "0BSD AFL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 CC-BY-2.0 "
    "CC-BY-3.0 CC-BY-4.0 CC0-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0 ECL-2.0 ISC MIT MIT-0 MS-PL NCSA OpenMDW "
    "OpenMDW-1.0 PDDL-1.0 PostgreSQL Unlicense WTFPL Zlib",
    "share-alike": "AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later CC-BY-SA-3.0 CC-BY-SA-4.0 EPL-2.0 EUPL-1.1 EUPL-1.2 "
    "GPL-2.0 GPL-2.0-only GPL-2.0-or-later GPL-3.0 GPL-3.0-only GPL-3.0-or-later LGPL-2.1 LGPL-2.1-only "
    "LGPL-2.1-or-later LGPL-3.0 LGPL-3.0-only LGPL-3.0-or-later MPL-2.0 ODbL-1.0 OSL-3.0",
    "non-commercial": "CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0",
    "no-derivatives": "CC-BY-ND-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0",
    "terms": "bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m creativeml-openrail-m gemma llama2 "
    "llama3 llama3.1 llama3.2 llama3.3 llama4 openrail openrail++ apple-amlr deepfloyd-if-license intel-research",
}
FAMILY: Final[Mapping[str, str]] = {name.lower(): kind for kind, names in _FAMILIES.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a licence fits the one above it, and why in one clause."""

    answer: Answer
    why: str


def fit(child: str, parent: str) -> Fit:
    """Whether something under `child` may be made from something under `parent`, as their SPDX expressions say."""
    below, above = FAMILY.get(child.lower()), FAMILY.get(parent.lower())
    if above is None:
        return Fit("unknown", f"{parent} is not in the table")
    if above == "no-derivatives":
        return Fit("conflict", f"{parent} allows nothing derived to be given on")
    if child.lower() == parent.lower():
        return Fit("fits", "the same licence")
    if above == "permissive":
        return Fit("fits", f"{parent} asks for attribution at most") if below else _not_listed(child)
    if below is None:
        return _not_listed(child)
    return _of_stricter(child, below, parent, above)


def _of_stricter(child: str, below: str, parent: str, above: str) -> Fit:
    """Where the parent's licence asks something of what is derived, and the child's is another one."""
    asks = {
        "share-alike": f"{parent} asks for itself",
        "non-commercial": f"{parent} forbids commercial use",
        "terms": f"the terms of {parent} have to be passed on",
    }[above]
    if below == "permissive":
        return Fit("conflict", f"{asks}, {child} does not")
    if above == "non-commercial":
        if below == "non-commercial":
            return Fit("unknown", f"{asks}, and so does {child}; whether it is enough is not in the table")
        if below == "share-alike":
            return Fit("conflict", f"{asks}, {child} does not")
    return Fit("unknown", f"{asks}; whether {child} does it is not in the table")


def _not_listed(child: str) -> Fit:
    return Fit("unknown", f"{child} is not in the table")
