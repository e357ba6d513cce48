"""References to commits of an upstream, `hf:org/name@commit`: what they stand for, by nodes that mirrored them.

Only nodes of pinned members count, each member once. Where they saw different bytes under one commit, it stands for
those that most members fetched; of equally many, for those that most members' nodes saw first. The others are shown.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping

from comity.trust.digest import Digest
from comity.trust.errors import ComityError, NotFound, PolicyNotMet
from comity.trust.judging.claimants import most_first
from comity.trust.names import UPSTREAM, Reference
from comity.trust.policy import Policy
from comity.trust.rows.upstream import names
from comity.trust.statement import Entry
from comity.trust.upstream.choosing import stands_for
from comity.trust.upstream.naming import Upstream
from comity.trust.upstream.observed import OBSERVED, Observed
from comity.trust.upstream.weighing import Mirroring, weigh
from comity.wire.client import NodeClient
from comity.wire.values import Located

from comity_client.evidence.claiming import sightings
from comity_client.evidence.gather import bodies_of, kept, lines_of
from comity_client.evidence.proving import Proven, prove_lines, readable
from comity_client.nodes.session import Answers, RemoteNode, Session

MAX_NAMES = 8
"""Commits under which one artifact was observed that are asked about again, for those who saw other bytes there."""


async def decide_mirrored(session: Session, reference: Reference, policy: Policy) -> Mirroring:
    """What is proven about the one artifact that the reference stands for.

    Raises NotFound (NOT-MIRRORED), Unavailable; PolicyNotMet where nodes contradict one another and nothing prefers one
    of them (UPSTREAM-DISPUTED) or the reference means several commits (NO-ORDER).
    """
    answers = await session.ask(lambda node: node.resolve(reference.repository or "", None))
    if not answers.found:
        raise answers.failure(f"{reference} is not known")
    proven = prove_lines(lines_of(answers.found), bodies_of(session, policy), session.records())
    found = _weighed(proven)
    wanted = {name for name, mirroring in _named(found) if _means(reference, name, mirroring)}
    if not wanted:
        raise NotFound(
            f"{reference} is not mirrored here",
            why="no node of a pinned member says that it fetched it",
            hint=f"comity import {reference}",
            code="NOT-MIRRORED",
        )
    commit = _commit(reference, wanted, found, answers, proven, policy)
    seen = sightings(answers, proven, policy, lambda entry: _artifact(entry, commit))
    artifact = stands_for(found, commit, seen)
    if artifact is None:
        raise _disputed(commit, {digest: m for digest, m in found.items() if commit in m.names})
    return found[artifact]


def _commit(
    reference: Reference,
    wanted: set[str],
    found: Mapping[Digest, Mirroring],
    answers: Answers[tuple[Located, ...]],
    proven: Proven,
    policy: Policy,
) -> str:
    """The commit that the reference means: the only one, else the one that most members fetched, else the one that most
    members' nodes saw first. Raises PolicyNotMet (NO-ORDER)."""
    if len(wanted) == 1:
        return next(iter(wanted))
    voices = {
        name: len({m.lineage for mirroring in found.values() for m in mirroring.corroborating(name)}) for name in wanted
    }
    best = [name for name, count in voices.items() if count == max(voices.values())]
    if len(best) == 1:
        return best[0]
    first = most_first(sightings(answers, proven, policy, lambda entry: _name(entry) if _name(entry) in best else None))
    if first is not None:
        return first[0]
    listed = sorted(wanted)
    raise PolicyNotMet(
        f"{reference} means several commits",
        why=f"{len(listed)} commits are mirrored: {', '.join(listed[:5])}",
        hint=f"comity show {listed[0]}",
        code="NO-ORDER",
    )


async def rivals_of(
    session: Session, lines: Iterable[bytes], policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """What else is proven to be said under the commits that these lines say they observed, and notes on the rest."""
    entries = (entry for line in lines if (entry := readable(line)) is not None)
    said = {e.statement.subjects[0].name for e in entries if e.statement.predicate == OBSERVED}
    commits = [Reference.parse(name) for name in sorted(said)[:MAX_NAMES] if name.startswith(UPSTREAM)]
    asked = await asyncio.gather(*(session.ask(functools.partial(_said_under, commit)) for commit in commits))
    found: dict[RemoteNode, list[Located]] = {}
    for node, items in (item for answers in asked for item in answers.found.items()):
        found.setdefault(node, []).extend(items)
    return kept(session, lines_of(found), policy) if found else ((), ())


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


def _weighed(proven: Proven) -> Mapping[Digest, Mirroring]:
    observed = [entry for entry in proven.entries if entry.statement.predicate == OBSERVED]
    digests = dict.fromkeys(entry.statement.subject for entry in observed)
    found = {digest: weigh(observed, digest, proven.bound) for digest in digests}
    return {digest: mirroring for digest, mirroring in found.items() if mirroring.seen}


def _name(entry: Entry) -> str | None:
    """The commit, by name, that a proven entry says was observed."""
    if entry.statement.predicate != OBSERVED:
        return None
    try:
        return Observed.parse(entry.statement).upstream.name
    except ComityError:
        return None


def _artifact(entry: Entry, commit: str) -> Digest | None:
    return entry.statement.subject if _name(entry) == commit else None


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
