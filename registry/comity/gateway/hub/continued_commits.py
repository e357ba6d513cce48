"""Who says which bytes the commits of an upstream repository had, as this node knows it: answers that are kept.

Of two hundred members the statements take seconds to judge. An answer is kept until somebody says something that may
change it: about the repository, or an author about its own keys.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from comity.gateway.hub.judge import AnswerCache, StatementChanges, changed_name
from comity.gateway.hub.mirrored import LocalArtifacts
from comity.rules.continuation import ContinuedCommit

MAX_STATEMENTS: Final = 65_536
"""Statements in the answers that are kept."""


class ContinuedCommits:
    """Not thread-safe: call from the event loop.

    Args:
        now: as `Generations.now`.
    """

    def __init__(self, local: LocalArtifacts, now: Callable[[], Awaitable[int]], changes: StatementChanges) -> None:
        self._local = local
        self._answers: AnswerCache[str, Mapping[str, ContinuedCommit]] = AnswerCache(
            now, MAX_STATEMENTS, _weight, changes, _subjects
        )

    async def of(self, repository: str) -> Mapping[str, ContinuedCommit]:
        """As `LocalArtifacts.continued_commits`."""
        work = functools.partial(self._local.continued_commits, repository)
        return await self._answers.get(repository.lower(), work)

    async def close(self) -> None:
        await self._answers.close()


def _weight(commits: Mapping[str, ContinuedCommit]) -> int:
    """Statements in an answer."""
    return 1 + sum(len(commit.said) for commit in commits.values())


def _subjects(commits: Mapping[str, ContinuedCommit]) -> frozenset[str] | None:
    """On what an answer depends: the repository, and who says something; None if nobody does."""
    names = {changed_name(commit.origin.partition("@")[0]) for commit in commits.values()}
    return frozenset(names | {said.by.id for commit in commits.values() for said in commit.said}) or None
