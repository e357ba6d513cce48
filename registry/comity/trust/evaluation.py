"""Evaluations whose criteria were announced first: criteria, results, and the order that a log proves.

The evaluator fixes its criteria in a document, and logs the document's SHA-256 before it has a result:

    {"schema":"comity/evaluation-criteria/v1","suite":{"name":"refusals","version":"1.2"},"dataset":"…","samples":500,
     "harness":{"name":"lm-eval","version":"0.9"},"nonce":"…",
     "claims":[{"metric":"refusal_rate","comparator":">=","threshold":"0.98"}]}

    evaluation-announced    subject: the artifact; {"by":{…},"criteria":"<SHA-256 of the document>"}

The criteria stay secret until the result, because the nonce is random. The result is the document of a `vouched`
statement *evaluated*, and holds the criteria with a value for each metric:

    {"schema":"comity/evaluation-results/v1","criteria":{…},"at":1795000000,"values":{"refusal_rate":"0.991"}}

Whether a threshold is met is computed here from the stated value. The values are the evaluator's claim. The order is
proven only if one log, bound to a member, is proven to hold the announcement at a lower index than the result. It does
not prove that the evaluator had not seen a result before it announced, or logged one elsewhere; how many evaluations of
the artifact the same author announced is therefore told too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, ClassVar, Final, TypeAlias

from comity.trust.bound_nodes import BoundNode
from comity.trust.claims import KnownAuthors, ParsedClaims, Vouch, unsigned_note
from comity.trust.codec import JsonItems, JsonObject, JsonPath, JsonText, JsonWord
from comity.trust.content import ByAuthor, Content, SubjectDigest
from comity.trust.encoding import (
    LAST_TIME,
    Digest,
    Fields,
    Json,
    canonical,
    format_time,
    parse_canonical,
    sha256,
)
from comity.trust.errors import Malformed
from comity.trust.eval_result import (
    COMPARATORS,
    Commitment,
    SuiteResult,
    ThresholdClaim,
    read_decimal,
)
from comity.trust.evidence import EvidenceReader, InclusionEvidence, Remark, RowFact
from comity.trust.frozen import frozen
from comity.trust.key_validity import prove_entry
from comity.trust.statement import Entry
from comity.trust.statement_kinds import EVALUATION_ANNOUNCED

EVALUATED: Final = "evaluated"
CRITERIA: Final = "comity/evaluation-criteria/v1"
RESULTS: Final = "comity/evaluation-results/v1"
MAX_DOCUMENT: Final = 256 * 1024
MAX_CLAIMS: Final = 256
MAX_EVALUATIONS: Final = 64
"""Evaluations of one artifact that are judged, the first ones; the others stay plain vouches."""
MAX_SHOWN: Final = 16
"""Thresholds of one evaluation that become facts."""
_NONCE: Final = re.compile(r"[0-9a-f]{32}\Z")


class _DecimalText(JsonText):
    def read(self, fields: Fields, name: str) -> str:
        return read_decimal(fields, name)


@frozen
class Threshold(JsonObject):
    """What a metric has to reach. `threshold` is a decimal text."""

    metric: Annotated[str, JsonText(200)]
    comparator: Annotated[str, JsonWord(COMPARATORS)]
    threshold: Annotated[str, _DecimalText()]

    def is_met_by(self, value: str) -> bool:
        given, wanted = Decimal(value), Decimal(self.threshold)
        return {
            ">=": given >= wanted,
            ">": given > wanted,
            "<=": given <= wanted,
            "<": given < wanted,
        }[self.comparator]

    def __str__(self) -> str:
        return f"{self.metric} {self.comparator} {self.threshold}"


@frozen
class EvaluationCriteria(JsonObject):
    """What is evaluated, and what a result has to reach. `dataset` is the SHA-256 of the data, None if it is secret;
    `nonce` is 32 random hex digits, so that nobody guesses the criteria from their digest."""

    constants: ClassVar = {"schema": CRITERIA}
    suite: Annotated[str, JsonText(200), JsonPath("suite.name")]
    suite_version: Annotated[str, JsonText(100, 0), JsonPath("suite.version")]
    thresholds: Annotated[tuple[Threshold, ...], JsonItems(MAX_CLAIMS, 1), JsonPath("claims")]
    samples: int
    nonce: str
    dataset: Digest | None = None
    harness: Annotated[str, JsonText(200, 0), JsonPath("harness.name")] = ""
    harness_version: Annotated[str, JsonText(100, 0), JsonPath("harness.version")] = ""

    def __post_init__(self) -> None:
        metrics = [each.metric for each in self.thresholds]
        if not 1 <= len(metrics) <= MAX_CLAIMS or len(set(metrics)) != len(metrics):
            raise Malformed("criteria are malformed", why=f"1 to {MAX_CLAIMS} thresholds, of different metrics")
        if not _NONCE.match(self.nonce):
            raise Malformed("criteria are malformed", why="the nonce must be 32 lower-case hex digits")

    @classmethod
    def parse(cls, data: bytes) -> EvaluationCriteria:
        """Inverse of `encode`. Raises Malformed."""
        return cls.from_json(parse_canonical(data, limit=MAX_DOCUMENT, what="criteria"))

    def encode(self) -> bytes:
        return canonical(self.to_json())

    @property
    def digest(self) -> Digest:
        """SHA-256 of the document; the announcement names it."""
        return sha256(self.encode())


@frozen
class EvaluationResults:
    """A value (decimal text) for the metric of each threshold, in their order; `at` is the evaluator's time in seconds
    since 1970."""

    criteria: EvaluationCriteria
    values: tuple[str, ...]
    at: int

    def __post_init__(self) -> None:
        if len(self.values) != len(self.criteria.thresholds):
            raise Malformed("evaluation results are malformed", why="one value for each threshold")

    @classmethod
    def parse(cls, data: bytes) -> EvaluationResults:
        """Inverse of `encode`. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_DOCUMENT, what="evaluation results"), "evaluation results")
        fields.constant("schema", RESULTS)
        criteria = EvaluationCriteria.from_json(fields.take("criteria"))
        values = fields.object("values")
        found = tuple(read_decimal(values, each.metric) for each in criteria.thresholds)
        made = cls(criteria, found, fields.integer("at", most=LAST_TIME))
        values.done()
        fields.done()
        return made

    def encode(self) -> bytes:
        values: Mapping[str, Json] = {
            threshold.metric: value for threshold, value in zip(self.criteria.thresholds, self.values, strict=True)
        }
        return canonical({"schema": RESULTS, "criteria": self.criteria.to_json(), "values": values, "at": self.at})

    def rows(self) -> Iterator[tuple[Threshold, str, bool]]:
        """Each threshold, its stated value, and whether the value meets it."""
        for threshold, value in zip(self.criteria.thresholds, self.values, strict=True):
            yield threshold, value, threshold.is_met_by(value)

    @property
    def met(self) -> tuple[bool, ...]:
        """For each threshold whether its stated value meets it."""
        return tuple(met for _, _, met in self.rows())

    def predicate(self, evaluator: Digest, artifact: Digest) -> SuiteResult:
        """The results as the predicate that is proposed for in-toto, by the identity `evaluator`."""
        criteria = self.criteria
        return SuiteResult(
            verifier=f"urn:comity:identity:{evaluator}",
            time=format_time(self.at),
            suite=criteria.suite,
            suite_version=criteria.suite_version,
            claims=tuple(
                ThresholdClaim(each.metric, each.comparator, each.threshold, met) for each, _, met in self.rows()
            ),
            samples=criteria.samples,
            model=Commitment("sha256", artifact),
            dataset=Commitment("sha256", criteria.dataset) if criteria.dataset else None,
            registered=Commitment("sha256", criteria.digest),
            harness=criteria.harness,
            harness_version=criteria.harness_version,
        )


@frozen
class EvaluationAnnounced(Content):
    """Somebody will evaluate an artifact by criteria that are fixed now."""

    predicate: ClassVar = EVALUATION_ANNOUNCED
    by: ByAuthor
    artifact: SubjectDigest
    criteria: Annotated[Digest, "SHA-256 of the criteria, a document that stays secret until the result."]


Places: TypeAlias = tuple[tuple[str, int, int, Digest], ...]
"""The log, the index of an announcement, the index of the result, the digest of the announcement's line."""


@frozen
class JudgedEvaluation:
    """An `evaluated` vouch whose document has results in the form above, with the announcements of its author.

    `announcements` are the lines about these criteria; `announced` counts all statements of the author about the
    artifact. `before` are the places that are proven in order, `after` those in the opposite order.
    """

    vouch: Vouch
    results: EvaluationResults
    announcements: tuple[Entry, ...]
    announced: int
    before: Places = ()
    after: Places = ()

    def facts(self) -> Iterator[RowFact]:
        """What was evaluated, as its author claims, and whether it was announced first, as proven here."""
        criteria, author = self.results.criteria, self.vouch.by.name
        suite = f"{criteria.suite} {criteria.suite_version}".strip()
        line = self.vouch.entry.digest
        rows = list(self.results.rows())
        for threshold, value, met in rows[:MAX_SHOWN]:
            text = f"evaluation {suite}: {threshold}: {value}, {'met' if met else 'not met'}"
            yield RowFact(text, "claimed", author, line)
        if len(rows) > MAX_SHOWN:
            yield RowFact(f"evaluation {suite}: {len(rows) - MAX_SHOWN} more thresholds", "claimed", author, line)
        yield self._order(suite)

    def _order(self, suite: str) -> RowFact:
        several = f"; its author announced {self.announced} evaluations of this artifact" if self.announced > 1 else ""
        reverse = f"; in {self.after[0][0]} the result comes first" if self.after else ""
        if self.before:
            log, first, second, line = self.before[0]
            text = (
                f"evaluation {suite}: announced first: entry {first} before entry {second} of {log}{reverse}{several}"
            )
            return RowFact(text, "verified here", evidence=line)
        if self.after:
            log, first, second, line = self.after[0]
            text = (
                f"evaluation {suite}: announced after its result: entry {first} after entry {second} of {log}{several}"
            )
            return RowFact(text, "verified here", evidence=line)
        if self.announcements:
            text = f"evaluation {suite}: announced, and no proof here that one log has both in this order{several}"
            return RowFact(text, "stale or absent", evidence=self.announcements[0].digest)
        return RowFact(f"evaluation {suite}: not announced{several}", "stale or absent")


def judge_evaluations(
    claims: ParsedClaims,
    artifact: Digest,
    vouches: Sequence[Vouch],
    authors: KnownAuthors,
    objects: Mapping[Digest, bytes],
    proofs: Iterable[InclusionEvidence],
    bound: tuple[BoundNode, ...],
    reader: EvidenceReader,
) -> tuple[tuple[JudgedEvaluation, ...], tuple[Remark, ...]]:
    """The evaluations among `vouches` whose results are at hand, and notes on announcements that are not proven.

    Args:
        vouches: in an order in which nobody takes another's place (`claims.in_turn`).
        objects: side objects by digest.
        bound: nodes of members of pinned charters; a log of another node proves no order.
    """
    announced, notes = _proven_announcements(claims, artifact, authors)
    places = _ProvenPlaces(proofs, bound, reader)
    judged = []
    for vouch, results in itertools.islice(evaluations_of(vouches, objects), MAX_EVALUATIONS):
        own = [each for each in announced if each[1].by.id == vouch.by.id]
        same = tuple(entry for entry, said in own if said.criteria == results.criteria.digest)
        before, after = places.order_of(same, vouch.entry)
        statements = {entry.statement_digest for entry, _ in own}
        judged.append(JudgedEvaluation(vouch, results, same, len(statements), before, after))
    return tuple(judged), notes


def evaluations_of(
    vouches: Iterable[Vouch], objects: Mapping[Digest, bytes]
) -> Iterator[tuple[Vouch, EvaluationResults]]:
    """The *evaluated* vouches whose document is at hand and has results in the form of this module. Each document is
    parsed once, however many vouches name it."""
    parsed: dict[Digest, EvaluationResults | None] = {}
    for vouch in vouches:
        document = vouch.vouched.document
        if document is None or vouch.vouched.kind != EVALUATED or document.digest not in objects:
            continue
        if document.digest not in parsed:
            parsed[document.digest] = _results_in(objects[document.digest])
        if (results := parsed[document.digest]) is not None:
            yield vouch, results


def _results_in(document: bytes) -> EvaluationResults | None:
    """The results; None for a document in another form, which the fact of the vouch names."""
    try:
        return EvaluationResults.parse(document)
    except Malformed:
        return None


def announcements_of(vouch: Vouch, results: EvaluationResults, claims: ParsedClaims, artifact: Digest) -> list[Entry]:
    """Claimed announcements of an evaluation, whose signatures are not verified here, the smallest digest first."""
    found = []
    for entry in claims.entries:
        said = _announcement(entry, artifact)
        if said is not None and said.by.id == vouch.by.id and said.criteria == results.criteria.digest:
            found.append(entry)
    return sorted(found, key=lambda entry: entry.digest)


def _announcement(entry: Entry, artifact: Digest) -> EvaluationAnnounced | None:
    if entry.statement.predicate != EVALUATION_ANNOUNCED:
        return None
    try:
        said = EvaluationAnnounced.parse(entry.statement)
    except Malformed:
        return None
    return said if said.artifact == artifact else None


def _proven_announcements(
    claims: ParsedClaims, artifact: Digest, authors: KnownAuthors
) -> tuple[list[tuple[Entry, EvaluationAnnounced]], tuple[Remark, ...]]:
    """Announcements about `artifact` with a proven author: every line, because a log has one of several envelopes of a
    statement, and anybody may leave a signature out that is not needed."""
    found, notes = list[tuple[Entry, EvaluationAnnounced]](), list[Remark]()
    for entry in claims.entries:
        if (said := _announcement(entry, artifact)) is None:
            continue
        if authors.author_of(entry) is None:
            notes.append(unsigned_note(entry, said.by.id))
        else:
            found.append((entry, said))
    return found, tuple(notes)


class _ProvenPlaces:
    """Where lines are proven to be logged. Proofs are found by line, so that other lines cost nothing."""

    def __init__(
        self, proofs: Iterable[InclusionEvidence], bound: tuple[BoundNode, ...], reader: EvidenceReader
    ) -> None:
        self._proofs: dict[Digest, list[InclusionEvidence]] = {}
        for proof in proofs:
            self._proofs.setdefault(proof.line, []).append(proof)
        self._bound, self._reader = bound, reader

    def order_of(self, announcements: Sequence[Entry], result: Entry) -> tuple[Places, Places]:
        """The places that prove the order, and those that prove the opposite."""
        results: dict[tuple[str, str], int] = {}
        for log, index in self._of(result):
            results[log] = min(index, results.get(log, index))
        before, after = set[tuple[str, int, int, Digest]](), set[tuple[str, int, int, Digest]]()
        for entry in announcements:
            for log, index in self._of(entry):
                if log in results:
                    (before if index < results[log] else after).add((log[0], index, results[log], entry.digest))
        return tuple(sorted(before)), tuple(sorted(after))

    def _of(self, entry: Entry) -> Iterator[tuple[tuple[str, str], int]]:
        """Each log (origin, verifier key) that has the line, and the index there. One member may have several logs of
        one origin, and positions in two of them are in no order."""
        for seen in prove_entry(entry, self._proofs.get(entry.digest, ()), self._bound, self._reader)[0]:
            yield (seen.origin, seen.log), seen.index
