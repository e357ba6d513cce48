"""The verification policy: what the owner of a verification demands, one rule for each table of the policy file.

`policy_file` reads the file. The rules are judged in `rows`, and those about approvals in `officers`. Here is what can
be said of a rule without evidence: which cosigners it can count, and which rows could never pass under it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final

from comity.trust.charter.document import Body, Member
from comity.trust.encoding import Digest
from comity.trust.evidence import DEFAULT_ALLOW, kind_of
from comity.trust.frozen import frozen
from comity.trust.home_logs import OriginOwners
from comity.trust.model_signing.judging import ModelSigningRule

PUBLISHER: Final = "publisher"


@frozen
class CosignerRule:
    """`[cosigners]`: at least `at_least` distinct members in `jurisdictions` distinct jurisdictions, none in `outside`.
    With `post_quantum`, only post-quantum cosignatures count; with `declared`, only cosigners that declare a place."""

    at_least: int = 2
    jurisdictions: int = 0
    outside: tuple[str, ...] = (PUBLISHER,)
    post_quantum: bool = False
    declared: bool = False


def most_cosigners(rule: CosignerRule, pins: Sequence[Body]) -> tuple[int, int] | None:
    """Return the most members and jurisdictions that could count, if they cannot satisfy `rule`; None if they can.

    Tried for the log of each member, with a publisher that is in no member's jurisdiction.
    """
    members = active_members(pins)
    found = [_counted_members(rule, writer, members) for writer in members] or [()]
    sizes = [(len(countable), len({member.jurisdiction for member in countable})) for countable in found]
    enough = any(count >= rule.at_least and codes >= rule.jurisdictions for count, codes in sizes)
    return None if enough else max(sizes)


def active_members(pins: Sequence[Body]) -> list[Member]:
    """The active members of all pinned bodies; a member and its successors count once."""
    return list({member.lineage: member for body in pins for member in body.active}.values())


def _counted_members(rule: CosignerRule, writer: Member, members: list[Member]) -> tuple[Member, ...]:
    excluded = {code for code in rule.outside if code != PUBLISHER}
    excluded |= {writer.jurisdiction} if PUBLISHER in rule.outside else set()
    return tuple(member for member in members if member is not writer and member.jurisdiction not in excluded)


@frozen
class Freshness:
    """`[time]`: the time to judge at (POSIX seconds), and the maximum age of the newest cosignature (seconds)."""

    as_of: int
    max_age: int


@frozen
class LineageRule:
    """`[lineage]`: whether each parent must be named by digest, and whether licence conflicts are refused."""

    by_digest: bool = False
    no_conflicts: bool = False


ROWS: Final = (
    "artifact",
    "bytes",
    "signatures",
    "key policy",
    "transparency",
    "cosigners",
    "replicas",
    "lineage",
    "licence",
    "file safety",
    "documents",
    "notes",
    "disputes and advisories",
    "time",
    "crypto health",
    "approvals",
    "policy",
)
"""Row names, in the order of a verdict."""
SIGNED_ROWS: Final = frozenset(
    {"signatures", "key policy", "transparency", "cosigners", "licence", "documents", "time", "approvals"}
)
"""Rows that pass only with a signature."""
DEFAULT_REQUIRED: Final = ("artifact", "bytes", "signatures", "transparency", "cosigners", "file safety")


@frozen
class SafetyRule:
    """`[safety]`: active content of these `kinds` is accepted, and any content of files whose path matches one of
    `paths` or whose digest is in `files`. With `formats`, files of other formats are refused. Malformed headers are
    refused."""

    kinds: frozenset[str] = frozenset(DEFAULT_ALLOW)
    paths: tuple[str, ...] = ()
    files: frozenset[Digest] = frozenset()
    formats: frozenset[str] = frozenset()

    def exempts(self, path: str, digest: Digest | None) -> bool:
        return digest in self.files or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.paths)

    def accepts(self, active: str) -> bool:
        """Whether active content that an inspection found is allowed."""
        return kind_of(active) in self.kinds

    def accepts_format(self, name: str) -> bool:
        return not self.formats or name in self.formats


@frozen
class UpstreamRule:
    """`[upstream]`: if `corroborated` is above 0, the artifact must be published by an accepted publisher, or nodes of
    `corroborated` members must have fetched the same bytes from its upstream under one commit."""

    corroborated: int = 0


@frozen
class ApprovalRule:
    """`[approvals]`: at least `at_least` of `places` must be filled by officers who approve for `scope` at `as_of`.

    Attributes:
        officers: the ids that the owner names, by the name that the owner gives.
        places: the people and roles of which the owner asks for some; each with the ids that may fill it.
        max_time: the longest time of an approval that counts, in seconds; 0 for no limit.
        as_of: the time at which approvals are judged, POSIX seconds.
    """

    scope: str = ""
    at_least: int = 0
    officers: Mapping[str, Digest] = field(default_factory=dict)
    places: Mapping[str, frozenset[Digest]] = field(default_factory=dict)
    four_eyes: bool = False
    max_time: int = 0
    logged: bool = False
    conditions: bool = False
    as_of: int = 0

    @property
    def names(self) -> Mapping[Digest, str]:
        """The officers' names by id."""
        return {identity: name for name, identity in self.officers.items()}


@frozen
class Policy:
    """The parsed policy. `digest` is the SHA-256 of its text, for the report; `origins` is read from the pinned
    charters. `refuse_lost_keys`: what a publisher signed after its key was lost, as it says itself, is refused."""

    pins: tuple[Body, ...] = ()
    publishers: frozenset[Digest] = frozenset()
    bindings: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)
    cosigners: CosignerRule = field(default_factory=CosignerRule)
    licences: frozenset[str] = frozenset()
    refuse_from: frozenset[Digest] = frozenset()
    refuse_lost_keys: bool = True
    freshness: Freshness | None = None
    lineage: LineageRule = field(default_factory=LineageRule)
    model_signing: ModelSigningRule = field(default_factory=ModelSigningRule)
    safety: SafetyRule = field(default_factory=SafetyRule)
    upstream: UpstreamRule = field(default_factory=UpstreamRule)
    documents: tuple[str, ...] = ()
    approvals: ApprovalRule = field(default_factory=ApprovalRule)
    require: tuple[str, ...] = DEFAULT_REQUIRED
    digest: Digest | None = None
    origins: OriginOwners = field(default_factory=OriginOwners)

    @property
    def named(self) -> tuple[Digest, ...]:
        """The identities and nodes whose statements the policy asks for, the most decisive first."""
        pinned = [publisher for body in self.pins for publisher in body.namespaces.values()]
        officers = self.approvals.officers.values()
        chosen = (*self.publishers, *self.bindings.values(), *self.rotations, *pinned)
        return tuple(dict.fromkeys((*self.refuse_from, *officers, *chosen)))

    def bound_publisher(self, namespace: str) -> Digest | None:
        """Return the publisher to which `namespace` is bound: by the owner, else by the pinned bodies if they agree.

        Case is ignored, as on the Hub.
        """
        for bindings in (self.bindings.items(), [pair for body in self.pins for pair in body.namespaces.items()]):
            bound = {publisher for name, publisher in bindings if name.lower() == namespace.lower()}
            if bound:
                return bound.pop() if len(bound) == 1 else None
        return None


def impossible_rows(policy: Policy) -> Mapping[str, str]:
    """The rows that cannot pass with any evidence, and why."""
    reasons = {
        "disputes and advisories": "the absence of advisories cannot be proven; list issuers in advisories.refuse_from",
    }
    if not policy.documents:
        reasons["documents"] = "documents.require is empty"
    if not policy.licences:
        reasons["licence"] = "licences.accept is empty"
    no_publisher = not (policy.publishers or policy.bindings or any(body.namespaces for body in policy.pins))
    if policy.pins and no_publisher:
        reasons["key policy"] = "neither publishers.accept, publishers.names nor a pinned charter names a publisher"
    if policy.freshness is None:
        reasons["time"] = "time.as_of is not set"
    if not policy.approvals.at_least:
        reasons["approvals"] = "there is no table approvals, which names the officers"
    return reasons
