"""Where it was mirrored from, as nodes of pinned members claim: facts that join the row *artifact*."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from comity.trust.charter import Member
from comity.trust.digest import short
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import here
from comity.trust.upstream.news import Changed
from comity.trust.upstream.observed import Observed
from comity.trust.upstream.weighing import Mirroring, News, Seen, weigh
from comity.trust.verdict import Fact, Row

HOW = {"fetched": "mirrored from", "cache": "taken from a cache of", "carried": "carried here as"}
LOST = {
    "repository": "the repository is gone",
    "commit": "the commit is gone",
    "revision": "the branch or tag is gone",
    "access": "it is no longer given out",
}


def artifact_as_mirrored(row: Row, found: Findings) -> Row:
    """The row *artifact*, with where it is from; short where the policy asks for more members than saw it there."""
    mirroring = weigh(found.readings.entries, found.manifest.digest, found.bound)
    joined = row.joined(tuple(_facts(mirroring)))
    needed = found.policy.upstream.corroborated
    named = any(standing.accepted is True for standing in found.standings)  # whichever gets furthest: I4
    if row.state != "pass" or named or mirroring.corroborated >= needed:
        return joined
    count = mirroring.corroborated
    text = f"{count} member{'s' * (count != 1)} mirrored it from its upstream, {needed} required"
    return Row(row.name, "unknown", text, row.step, "short", joined.facts, hint="comity pull REF")


def mirror_disputes(found: Findings) -> tuple[Fact, ...]:
    """Nodes that saw other bytes under the same commit, for the row about disputes."""
    return dispute_facts(weigh(found.readings.entries, found.manifest.digest, found.bound))


def dispute_facts(mirroring: Mirroring) -> tuple[Fact, ...]:
    return tuple(
        Fact(
            f"other bytes under {rival.observed.upstream.name}: sha256:{short(rival.observed.artifact)}, "
            f"{_how(rival.observed)}; both are kept, and one is wrong",
            "claimed",
            names(rival.members),
            rival.entry.digest,
        )
        for rival in mirroring.rivals
    )


def names(members: Sequence[Member]) -> str:
    """`Institute A (CH), Institute B (ES)`."""
    return ", ".join(f"{member.name} ({member.jurisdiction})" for member in members)


def _facts(mirroring: Mirroring) -> Iterator[Fact]:
    for name in mirroring.names:
        members = mirroring.corroborating(name)
        if members:
            who = names(members)
            yield here(f"{name}: corroborated {len(members)}: so many members signed that they fetched it there: {who}")
    for seen in mirroring.seen:
        yield Fact(observed_text(seen), "claimed", names(seen.members), seen.entry.digest)
    for entry, news, members in mirroring.news:
        yield Fact(news_text(news), "claimed", names(members), entry.digest)


def observed_text(seen: Seen) -> str:
    """`mirrored from hf:org/name@… at https://…: 9/9 files equal what the upstream lists; not checked: commit`."""
    said = seen.observed
    unchecked = f"; not checked: {', '.join(said.unchecked)}" if said.unchecked else ""
    return f"{_how(said)}: {said.likeness}{unchecked}"


def news_text(news: News) -> str:
    """What became of the upstream, and that it changes nothing here."""
    if isinstance(news, Changed):
        said = news.upstream
        return f"{said.requested} of {said.repository} stands at {news.successor} since; not these bytes"
    return f"{LOST[news.lost]} upstream, as asked for {news.upstream.name}; the bytes here are not"


def _how(said: Observed) -> str:
    at = f" at {said.upstream.endpoint}" if said.upstream.endpoint else ""
    return f"{HOW[said.obtained.how]} {said.upstream.name}{at}"
