"""What copying artifacts to an own node would need, before it is done: bytes, time, and the share of quotas and disk.

The node of this machine is asked, over its operator socket: it has the publications and manifests of everything that it
could copy. A file that it has already needs nothing, whatever its name; one that several of the artifacts have is
counted once. Parts of copies that have begun are not subtracted.

    bytes    exact, by the manifests, as long as at most MAX_FILES files are told apart; then at most
    time     by the rate that the node measured since it started: bytes of files received by seconds in which it was
             copying, with its waits for others; or by a rate that the operator states
    quotas   a rule is charged the whole size of an artifact, also for files that are here
    disk     what is free now

Publications are read a page at a time; of them only what is selected is kept, as counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.rules.mirror_rules import MirrorClaim, MirrorContents, MirrorDecision, MirrorRules
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import OBSERVED, PUBLISHED
from comity.trust.statements import Published
from comity.trust.upstream import Observed
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry
from comity.wire.node_status import NodeStatus

MAX_FILES: Final = 1_000_000
"""Files that are told apart, so that none is counted twice."""
MAX_PUBLICATIONS: Final = 10_000_000
LEAST_COPYING: Final = 10
"""Seconds of copying from which a measured rate says something."""
LARGEST: Final = 10
"""Artifacts that are named, the largest first."""
OTHER_RULES: Final = ""
"""The name under which what no rule with a name selects is counted."""


@frozen
class CopyCandidate:
    """A publication or a mirrored commit that may be copied."""

    artifact: Digest
    name: str
    manifest: Digest
    claim: MirrorClaim


Select = Callable[[CopyCandidate, MirrorContents | None], MirrorDecision | None]
"""Decides whether a candidate would be copied; None: that depends on its contents, and these were not given."""
NOT_ASKED: Final = MirrorDecision(False)


@frozen
class NeededArtifact:
    """What one artifact needs: bytes of files that are not here yet, and its whole size."""

    name: str
    needed: int
    size: int


@dataclass(slots=True)
class RuleCost:
    """What one rule would copy: `charged` to its quota, whole sizes of artifacts."""

    artifacts: int = 0
    charged: int = 0


@dataclass(slots=True)
class CopyCosts:
    """What is needed.

    Attributes:
        artifacts: that would be copied; `held` besides, of which every file is here.
        size: their whole sizes together; `needed` bytes of files that are not here, each once.
        unknown: artifacts whose manifest could not be read.
        at_most: more than MAX_FILES files were not told apart.
        by_rule: by the name of the rule that selects, for artifacts that would be copied.
        largest: the artifacts that need most.
    """

    artifacts: int = 0
    held: int = 0
    size: int = 0
    needed: int = 0
    unknown: int = 0
    at_most: bool = False
    by_rule: dict[str, RuleCost] = field(default_factory=dict)
    largest: list[NeededArtifact] = field(default_factory=list)


class CopyEstimate:
    """Adds up what candidates need. Not thread-safe."""

    def __init__(self, node: NodeClient, select: Select) -> None:
        self._node = node
        self._select = select
        self._seen: set[Digest] = set()
        self._files: set[bytes] = set()
        self.costs = CopyCosts()

    async def add(self, candidates: Sequence[CopyCandidate]) -> None:
        """Each artifact is counted once, by its first candidate that is selected."""
        new = [each for each in candidates if each.artifact not in self._seen and self._may_be(each)]
        manifests = await self._manifests([each.manifest for each in new])
        for each in new:
            manifest = manifests.get(each.manifest)
            if manifest is not None:
                decision = self._select(each, MirrorContents.of(manifest))
                if decision is not None and (decision.copy or decision.wait):
                    await self.count(each.artifact, each.name, manifest, decision.rule)
            elif each.artifact not in self._seen:
                self._seen.add(each.artifact)
                self.costs.unknown += 1

    def _may_be(self, candidate: CopyCandidate) -> bool:
        """Whether a candidate may be selected, by its claim alone."""
        decision = self._select(candidate, None)
        return decision is None or decision.copy or decision.wait > 0

    async def _manifests(self, digests: Iterable[Digest]) -> dict[Digest, Manifest]:
        found = dict[Digest, Manifest]()
        wanted = list(dict.fromkeys(digests))
        if not wanted:
            return found
        async for digest, data in self._node.objects(wanted):
            found[digest] = Manifest.parse(data)
        for digest in wanted:
            if digest not in found:
                try:
                    found[digest] = Manifest.parse(await self._node.object(digest))
                except ComityError:
                    continue  # counted as unknown
        return found

    async def count(self, artifact: Digest, name: str, manifest: Manifest, rule_name: str = OTHER_RULES) -> None:
        """Count one artifact that would be copied by this rule, if it is not counted yet."""
        if artifact in self._seen:
            return
        self._seen.add(artifact)
        sizes = {file.sha256: file.size for file in manifest.files}
        missing = [file for file in sizes if bytes.fromhex(file) not in self._files]
        lacking = await self._lacking(list(sizes))
        costs = self.costs
        if not lacking:
            costs.held += 1
            return
        needed = sum(sizes[file] for file in missing if file in lacking)
        costs.artifacts += 1
        costs.size += manifest.size
        costs.needed += needed
        rule = costs.by_rule.setdefault(rule_name, RuleCost())
        rule.artifacts += 1
        rule.charged += manifest.size
        if len(self._files) + len(missing) <= MAX_FILES:
            self._files.update(bytes.fromhex(file) for file in missing)
        else:
            costs.at_most = True
        costs.largest = sorted(
            [*costs.largest, NeededArtifact(name, needed, manifest.size)], key=lambda each: -each.needed
        )[:LARGEST]

    async def _lacking(self, files: Sequence[Digest]) -> set[Digest]:
        """Those of these files that the node does not have."""
        found = set[Digest]()
        for start in range(0, len(files), limits.STAT_DIGESTS):
            stats = await self._node.stat(files[start : start + limits.STAT_DIGESTS])
            found |= {stat.digest for stat in stats if not stat.have}
        return found


async def candidates(node: NodeClient, words: str) -> AsyncIterator[list[CopyCandidate]]:
    """Everything that the node could copy and whose name has these words, a page at a time; all for no words."""
    cursor, read = "", 0
    while True:
        page = await node.search(words, cursor)
        yield [found for located in page.found if (found := candidate_of(located)) is not None]
        read += len(page.found)
        if not page.next_cursor or page.next_cursor == cursor or read > MAX_PUBLICATIONS:
            return
        cursor = page.next_cursor


def candidate_of(located: LocatedEntry) -> CopyCandidate | None:
    """The candidate that a line names; None for a line that names none."""
    try:
        statement = parse_entry(located.line).statement
        if statement.predicate not in (PUBLISHED, OBSERVED):
            return None
        said = Published.parse(statement) if statement.predicate == PUBLISHED else Observed.parse(statement)
    except ComityError:
        return None
    return CopyCandidate(said.artifact, str(said.name), said.manifest.digest, MirrorClaim.of(said))


def in_namespaces(namespaces: Iterable[str]) -> Select:
    """Selects what is in one of these namespaces, such as `swiss-ai` or `hf:google`, or is one of these repositories;
    case is ignored."""
    wanted = tuple(namespace.lower().rstrip("/") for namespace in namespaces)

    def select(candidate: CopyCandidate, contents: MirrorContents | None) -> MirrorDecision | None:
        repository = candidate.claim.repository.lower()
        fits = any(repository == each or repository.startswith(f"{each}/") for each in wanted)
        return MirrorDecision(True) if fits else NOT_ASKED

    return select


def newly_by(rules: MirrorRules, present: MirrorRules | None) -> Select:
    """Selects what `rules` would copy, at some age, and the present ones, if there are any, would not."""

    def select(candidate: CopyCandidate, contents: MirrorContents | None) -> MirrorDecision | None:
        if present is not None:
            now = present.decide(candidate.claim, contents)
            if now is None or now.copy or now.wait:
                return now if now is None else NOT_ASKED
        return rules.decide(candidate.claim, contents)

    return select


def measured_rate(status: NodeStatus) -> int | None:
    """Bytes a second, as the node measured since it started; None if it copied too little."""
    usage = status.usage
    if usage is None or usage.copying_seconds < LEAST_COPYING or not usage.received_bytes:
        return None
    return max(1, usage.received_bytes // usage.copying_seconds)
