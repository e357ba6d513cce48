"""What a Hub client is shown of an artifact, whoever's word it stands by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from comity.node.importing.passage import Passage
from comity.trust.digest import Digest
from comity.trust.manifest import Manifest
from comity.trust.statements.published import Published
from comity.trust.upstream.observed import Observed

Claim: TypeAlias = Published | Observed | Passage


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An artifact under a name, judged fit to be served.

    `claim` is the statement that it is served by, or the import that will make one; `label` is what it calls this
    version, `author` who says so. `trees` are the git tree ids of its folders.
    """

    repository: str
    artifact: Digest
    claim: Claim
    label: str
    licence: str
    author: str
    manifest: Manifest
    commit: str
    trees: Mapping[str, str]
    notices: tuple[tuple[str, str], ...]
