"""What `verify` has found out when it turns to the rows. Every row is a function of this, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.evidence import Evidence
from comity.trust.judging.reading import Readings
from comity.trust.judging.standing import Standing
from comity.trust.judging.vouching import Vouch
from comity.trust.judging.witnessing import Bound
from comity.trust.lineage import Graph
from comity.trust.manifest import Manifest
from comity.trust.policy import Policy
from comity.trust.remark import Remark
from comity.trust.statement import Entry
from comity.trust.statements.claims import Advisory
from comity.trust.statements.verified import Verified


@dataclass(frozen=True, slots=True)
class Findings:
    """The evidence, the policy, and what steps (1) to (6) made of them.

    `chosen` is the publication that gets furthest, None where there is none. `bound` are the nodes that a pinned body
    proves, `strangers` the names of those whose member no pinned body lists. `checks` are what others say that they
    verified, `vouches` what else they say of it. `holds` are signed, not yet proven to be in the node's own log.
    `remarks` say what did not verify outside of the readings and standings.
    """

    evidence: Evidence
    policy: Policy
    manifest: Manifest
    readings: Readings
    bound: tuple[Bound, ...]
    standings: tuple[Standing, ...]
    chosen: Standing | None
    lineage: Graph
    advisories: tuple[tuple[Entry, Advisory], ...]
    checks: tuple[tuple[Entry, Verified], ...]
    disputes: tuple[tuple[Entry, Entry], ...]
    holds: tuple[tuple[Entry, Bound], ...]
    vouches: tuple[Vouch, ...]
    strangers: tuple[str, ...]
    remarks: tuple[Remark, ...]
