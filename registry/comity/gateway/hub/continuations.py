"""Continuations at the gateway: what is answered for a name of a Hub that no name of this federation answers any more.

(1) a name that is published or mirrored here resolves as in the catalogue, whatever continuations there are
(2) where the owner lets readers import from the Hub, the Hub is asked; only if it has no such repository or revision
(3) the artifact that enough members name as the bytes of the commit is served under the asked name and commit

`main` is the one commit that is followed; of several, a client names one. A name of a publisher is only continued by
commit: its `main` is the publisher's. Which continuation is followed, `comity.rules.continuation` says; the policy of
the owner judges the artifact as it does under the artifact's own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from comity.gateway.hub.catalogue import Catalogue
from comity.gateway.hub.views import MAIN, ServedContinuation, Snapshot
from comity.ledger.proven import ProvenPublication
from comity.node.members import Membership
from comity.node.threads import AsyncLedger
from comity.rules.continuation import ContinuedCommit, FollowRule
from comity.trust.charter.document import Member
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM
from comity.trust.rows.findings import member_names
from comity.trust.statement_kinds import PUBLISHED
from comity.trust.upstream import is_commit

NO_REPOSITORY: Final = ("NO-SUCH-REPOSITORY", "UPSTREAM-NOT-ALLOWED")
CONTINUABLE: Final = (*NO_REPOSITORY, "NO-SUCH-REVISION")
"""Why a name is not answered, where it may be continued."""
MAX_NAMES: Final = 16
"""Names of an artifact that are tried until one is served."""


@frozen
class FollowedContinuation:
    """The artifact that is served for a commit of an upstream, and the members that name it."""

    origin: str
    artifact: Digest
    members: tuple[Member, ...]
    others: tuple[tuple[Digest, int], ...]
    """Other artifacts that members name for this commit, too few to be followed, and how many do."""

    @property
    def header(self) -> str:
        """`hf:org/name@6c12…; artifact=sha256:9f2c…; members=3`."""
        return f"{self.origin}; artifact=sha256:{self.artifact}; members={len(self.members)}"

    def notice(self, title: str) -> str:
        """Sentence for readers. `title`: the artifact's own name."""
        said = f"{len(self.members)} members say {self.origin} was: {member_names(self.members[:8])}"
        text = f"served is {title}, which {said}; no upstream says so"
        listed = "; ".join(f"sha256:{short(artifact)} by {count}" for artifact, count in self.others)
        return f"{text}; others name other bytes, by number of members: {listed}" if listed else text


class Continuations:
    """The continuations that this node follows. Not thread-safe: call from the event loop.

    Args:
        rule: of the owner; by default none is followed, and nothing is read.
    """

    def __init__(self, ledger: AsyncLedger, membership: Membership, catalogue: Catalogue, rule: FollowRule) -> None:
        self._ledger = ledger
        self._membership = membership
        self._catalogue = catalogue
        self._rule = rule

    async def snapshot(self, name: str, revision: str, missing: NotFound) -> Snapshot:
        """What continues a repository. Raises `missing` if nothing does, NotFound (CONTINUES-SEVERAL,
        CONTINUES-DISPUTED) if none is followed, and as `Catalogue.snapshot` does for the artifact.

        Args:
            missing: why the name itself has no such revision.
        """
        wanted = is_commit(revision) or (revision == MAIN and missing.code in NO_REPOSITORY)
        if not self._rule.members or not wanted or missing.code not in CONTINUABLE:
            raise missing
        commits = await self._catalogue.continued.of(f"{UPSTREAM}{name}")
        followed = self._followed(commits, revision, missing)
        if followed is None:
            raise missing
        snapshot = await self._under_own_name(followed.artifact, missing)
        repository, _, commit = followed.origin.removeprefix(UPSTREAM).partition("@")
        title = f"{snapshot.repository}@{snapshot.label}"
        notices = (("continues", followed.notice(title)), *snapshot.notices)
        continues = ServedContinuation(followed.header, snapshot.repository)
        return replace(snapshot, repository=repository, commit=commit, notices=notices, continues=continues)

    def _followed(
        self, commits: Mapping[str, ContinuedCommit], revision: str, missing: NotFound
    ) -> FollowedContinuation | None:
        """Raises NotFound (CONTINUES-SEVERAL, CONTINUES-DISPUTED) where several are corroborated."""
        asked = [each for each in commits.values() if revision in (MAIN, each.origin.rpartition("@")[2])]
        found = {each.origin: (each, chosen) for each in asked if (chosen := each.corroborated(self._rule))}
        if not found:
            return None
        if len(found) > 1:
            why = f"members continue several of its commits: {', '.join(sorted(found)[:8])}"
            hint = "ask for one of these commits"
            raise NotFound(missing.what, why=why, hint=hint, code="CONTINUES-SEVERAL") from missing
        ((origin, (commit, chosen)),) = found.items()
        counts = {artifact: len(members) for artifact, members in commit.members.items() if members}
        if len(chosen) > 1:
            rivals = "; ".join(f"sha256:{artifact} by {counts[artifact]}" for artifact in chosen[:8])
            why = f"members name different bytes for {origin}, so none is served under it: {rivals}"
            hint = "compare them, and ask for one by its own name: comity show sha256:…"
            raise NotFound(missing.what, why=why, hint=hint, code="CONTINUES-DISPUTED") from missing
        others = tuple((artifact, count) for artifact, count in counts.items() if artifact != chosen[0])
        return FollowedContinuation(origin, chosen[0], commit.members[chosen[0]], others[:MAX_NAMES])

    async def _under_own_name(self, artifact: Digest, missing: NotFound) -> Snapshot:
        """The artifact under its own name: the first one under which it is served. Raises the first refusal, and
        `missing` if it has no name here."""
        named = await self._ledger.run(
            self._ledger.tables.proven.publications_of, artifact, MAX_NAMES, self._membership.precedence
        )
        refusal: ComityError = missing
        for repository in _names(named.found):
            try:
                return await self._catalogue.snapshot(repository, f"sha256:{artifact}")
            except ComityError as error:
                refusal = error if refusal is missing else refusal
        raise refusal


def _names(found: Iterable[ProvenPublication]) -> list[str]:
    """The repositories as a gateway calls them, those of publishers first; names of other upstreams have none."""
    ordered = sorted(found, key=lambda each: each.predicate != PUBLISHED)
    names = (each.repository.removeprefix(UPSTREAM) for each in ordered)
    return [name for name in dict.fromkeys(names) if ":" not in name]
