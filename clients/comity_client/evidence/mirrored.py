"""References to commits of an upstream, `hf:org/name@commit`: what they stand for, by nodes that mirrored them.

Only nodes of pinned members count. Where they saw different bytes under one commit the reference stands for nothing
here, and both are shown; the owner may bind it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping, Sequence

from comity.trust.digest import Digest
from comity.trust.errors import NotFound, PolicyNotMet
from comity.trust.judging.reading import read_claims
from comity.trust.judging.witnessing import bind
from comity.trust.names import UPSTREAM, Reference
from comity.trust.policy import Policy
from comity.trust.rows.upstream import names
from comity.trust.upstream.naming import Upstream
from comity.trust.upstream.observed import OBSERVED
from comity.trust.upstream.weighing import Mirroring, weigh
from comity.wire.client import NodeClient
from comity.wire.values import Located

from comity_client.evidence.gather import readable
from comity_client.nodes.session import Session

MAX_NAMES = 8
"""Commits under which one artifact was observed that are asked about again, for those who saw other bytes there."""

_NOTHING = Digest("0" * 64)


async def decide_mirrored(session: Session, reference: Reference, policy: Policy) -> Mirroring:
    """What is proven about the one artifact that the reference stands for.

    Raises NotFound (NOT-MIRRORED), Unavailable; PolicyNotMet where nodes contradict one another (UPSTREAM-DISPUTED) or
    the reference means several commits (NO-ORDER).
    """
    answers = await session.ask(lambda node: node.resolve(reference.repository or "", None))
    if not answers.found:
        raise answers.failure(f"{reference} is not known")
    lines = [item.line for found in answers.found.values() for item in found]
    found = _weighed(session, lines, policy)
    artifacts = {name: digest for digest, mirroring in found.items() for name in mirroring.names}
    wanted = sorted({name for name, m in _named(found) if _means(reference, name, m)})
    if not wanted:
        raise NotFound(
            f"{reference} is not mirrored here",
            why="no node of a pinned member says that it fetched it",
            hint=f"comity import {reference}",
            code="NOT-MIRRORED",
        )
    if len(wanted) > 1:
        why = f"{len(wanted)} commits are mirrored: {', '.join(wanted[:5])}"
        raise PolicyNotMet(
            f"{reference} means several commits", why=why, hint=f"comity show {wanted[0]}", code="NO-ORDER"
        )
    rivals = [digest for digest, mirroring in found.items() if wanted[0] in mirroring.names]
    if len(rivals) > 1:
        raise _disputed(wanted[0], {digest: found[digest] for digest in rivals})
    return found[artifacts[wanted[0]]]


async def rivals_of(session: Session, lines: Iterable[bytes]) -> list[Located]:
    """What else is said under the commits that these lines say they observed."""
    entries = (entry for line in lines if (entry := readable(line)) is not None)
    said = {e.statement.subjects[0].name for e in entries if e.statement.predicate == OBSERVED}
    commits = [Reference.parse(name) for name in sorted(said)[:MAX_NAMES] if name.startswith(UPSTREAM)]
    asked = (session.ask(functools.partial(_said_under, commit)) for commit in commits)
    return [item for answers in await asyncio.gather(*asked) for found in answers.found.values() for item in found]


def basis(mirroring: Mirroring) -> str:
    """In words, who says what the reference stands for."""
    name = mirroring.names[0]
    members = mirroring.corroborating(name)
    if not members:
        return "the word of a node that had it in a folder; nobody fetched it"
    return f"nodes that mirrored it; corroborated {len(members)}: {names(members)}"


def upstream_of(mirroring: Mirroring) -> Upstream | None:
    """Where the artifact is from: by those who fetched it, if anybody did."""
    ordered = sorted(mirroring.seen, key=lambda seen: not seen.observed.fetched)
    return ordered[0].observed.upstream if ordered else None


async def _said_under(commit: Reference, node: NodeClient) -> tuple[Located, ...]:
    return await node.resolve(commit.repository or "", commit.version)


def _weighed(session: Session, lines: Sequence[bytes], policy: Policy) -> Mapping[Digest, Mirroring]:
    readings = read_claims((*session.records(), *lines), _NOTHING)
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    observed = [entry for entry in readings.entries if entry.statement.predicate == OBSERVED]
    found = {digest: weigh(observed, digest, bound) for digest in dict.fromkeys(e.statement.subject for e in observed)}
    return {digest: mirroring for digest, mirroring in found.items() if mirroring.seen}


def _named(found: Mapping[Digest, Mirroring]) -> Iterable[tuple[str, Mirroring]]:
    return ((name, mirroring) for mirroring in found.values() for name in mirroring.names)


def _means(reference: Reference, name: str, mirroring: Mirroring) -> bool:
    repository, _, commit = name.partition("@")
    if repository != reference.repository:
        return False
    if reference.version in (None, commit):
        return True
    asked = (seen.observed.upstream for seen in mirroring.seen)
    return any(upstream.name == name and upstream.requested == reference.version for upstream in asked)


def _disputed(name: str, rivals: Mapping[Digest, Mirroring]) -> PolicyNotMet:
    said = "; ".join(
        f"sha256:{digest} by {names([m for seen in mirroring.seen for m in seen.members])}"
        for digest, mirroring in sorted(rivals.items())
    )
    return PolicyNotMet(
        f"{name} stands for different bytes",
        why=f"one commit has one content, and nodes observed {said}; both are kept",
        hint=f"comity trust bind {name} sha256:DIGEST",
        code="UPSTREAM-DISPUTED",
    )
