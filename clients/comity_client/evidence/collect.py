"""Collects from the nodes of the pinned federations the statements on which a verdict about an artifact depends: the
first source of `rules.collector`, which says what is asked. `proofs` adds documents and proofs.

Only statements that `prove` verifies are used, in fair turns of nodes and authors. A node that does not answer is left
out; what nobody answers is missing, and nothing is raised for it, unless no node knows the artifact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from comity.rules.collected import CollectedEvidence
from comity.rules.collector import Collector, Question
from comity.trust.encoding import short
from comity.trust.statement import Entry
from comity.wire.found import Lookup

from comity_client.evidence.inquiry import Inquiry, ProvenAnswers, is_about, places_of

AT_ONCE: Final = 8
"""Questions that are asked at the same time."""


async def collect(inquiry: Inquiry, collector: Collector) -> CollectedEvidence:
    """Ask until nothing is left to ask. Raises NotFound if all nodes know nothing about the artifact, else
    Unavailable."""
    limit = asyncio.Semaphore(AT_ONCE)
    places: Mapping[bytes, frozenset[tuple[str, int]]] = {}
    notes: tuple[str, ...] = ()
    while questions := collector.questions():
        found = await asyncio.gather(*(_ask(inquiry, collector, question, limit) for question in questions))
        for question, (answers, kept, dropped) in zip(questions, found, strict=True):
            if question.kind == "artifact":
                if not answers.answers.found:
                    raise answers.answers.failure(f"no statement about sha256:{short(collector.artifact)}")
                places, notes = places_of(answers.located), dropped
            collector.answered(question, kept, more=answers.limited, cut=answers.cut_authors())
    return replace(CollectedEvidence.of(collector, inquiry.session.reader), places=places, notes=notes)


async def collect_more(inquiry: Inquiry, evidence: CollectedEvidence, lines: Sequence[bytes]) -> CollectedEvidence:
    """Add lines of an earlier copy, of which those count that are proven, and ask on about them."""
    if not lines:
        return evidence
    collector = evidence.collector
    kept, notes = inquiry.chosen(inquiry.prove("the existing pack", lines), collector.named)
    collector.carried(kept)
    more = await collect(inquiry, collector)
    return replace(more, places=evidence.places, notes=tuple(dict.fromkeys((*evidence.notes, *notes))))


async def _ask(
    inquiry: Inquiry, collector: Collector, question: Question, limit: asyncio.Semaphore
) -> tuple[ProvenAnswers, list[Entry], tuple[str, ...]]:
    """Return the answers, the statements that are kept of them, and notes on the others."""
    named = collector.named
    async with limit:
        if question.kind in ("name", "commit"):
            answers = await inquiry.ask_for(Lookup.of_name(question.subject, question.version, None, named))
        else:
            asked = question.digest
            answers = await inquiry.ask_for(Lookup.about(asked, named), lambda entry: is_about(entry, asked))
    return answers, *inquiry.chosen(answers.proven, collector.named)
