"""The predicate `eval-result`, proposed for in-toto: thresholds that a model met or not in an evaluation.

Members of the predicate that are not known are ignored, so a statement of a later minor version is read. What is read
is bounded, and a number with a fraction is kept as its text. A parsed predicate is its author's claim. Source: in-toto
Attestation Framework v1, eval-result v0.1 as it was proposed in 2026.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from comity.trust.encoding import Fields, Json
from comity.trust.frozen import frozen

MAX_LISTED: Final = 10_000
"""Maximum items of one list: subjects, dependencies, tests."""
MAX_TEXT: Final = 4096

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?\Z")
"""A decimal number as text, which no reader can round."""
COMPARATORS: Final = (">=", ">", "<=", "<")


@frozen
class ThresholdClaim:
    """`metric comparator threshold`, and whether its author says that it was met. `threshold` is a decimal text."""

    metric: str
    comparator: str
    threshold: str
    passed: bool

    @classmethod
    def read(cls, value: Json) -> ThresholdClaim:
        fields = Fields(value, "claim of an evaluation")
        metric = fields.text("metric", most=200)
        comparator = fields.choice("comparator", COMPARATORS)
        return cls(metric, comparator, read_decimal(fields, "threshold"), fields.boolean("passed"))

    def to_json(self) -> dict[str, Json]:
        return {
            "metric": self.metric,
            "comparator": self.comparator,
            "threshold": self.threshold,
            "passed": self.passed,
        }

    def __str__(self) -> str:
        return f"{self.metric} {self.comparator} {self.threshold}: {'passed' if self.passed else 'not passed'}"


@frozen
class Commitment:
    """A hash that stands for a model or a data set; with `salted` it is not the digest of the content."""

    algorithm: str
    value: str
    salted: bool = False

    @classmethod
    def read(cls, value: Json) -> Commitment:
        fields = Fields(value, "commitment")
        salted = fields.boolean("salted") if fields.has("salted") else False
        return cls(fields.text("alg", most=64), fields.text("value", most=512), salted)

    def to_json(self, *, with_salt: bool = True) -> dict[str, Json]:
        made: dict[str, Json] = {"alg": self.algorithm, "value": self.value}
        return made | ({"salted": self.salted} if with_salt else {})


@frozen
class SuiteResult:
    """`eval-result` v0.1, proposed for in-toto: thresholds that a model met or not in an evaluation.

    `registered` commits to the criteria before the run (`preRegistration`); the predicate itself proves no order.
    """

    TYPE: ClassVar[str] = "https://in-toto.io/attestation/eval-result/v0.1"

    verifier: str
    time: str
    suite: str
    suite_version: str
    claims: tuple[ThresholdClaim, ...]
    samples: int
    model: Commitment | None = None
    dataset: Commitment | None = None
    assurance: str = "self_attested"
    profile: str = "public-model"
    registered: Commitment | None = None
    harness: str = ""
    harness_version: str = ""

    @classmethod
    def read(cls, value: Json) -> SuiteResult:
        """Raises Malformed."""
        fields = Fields(value, "evaluation result")
        suite = fields.object("suite")
        harness = fields.object("harness") if fields.has("harness") else Fields({}, "harness")
        commitments = fields.object("commitments") if fields.has("commitments") else Fields({}, "commitments")
        return cls(
            verifier=fields.object("verifier").text("id", most=MAX_TEXT),
            time=read_time(fields, "evaluatedAt"),
            suite=suite.text("name", most=200),
            suite_version=optional_text(suite, "version"),
            claims=tuple(map(ThresholdClaim.read, fields.items("claims", least=1, most=MAX_LISTED))),
            samples=fields.integer("sampleSize"),
            model=_commitment(commitments, "model"),
            dataset=_commitment(commitments, "dataset"),
            assurance=fields.text("assuranceLevel", most=64),
            profile=fields.text("subjectProfile", most=64),
            registered=_commitment(fields, "preRegistration"),
            harness=optional_text(harness, "name"),
            harness_version=optional_text(harness, "version"),
        )

    def to_json(self) -> dict[str, Json]:
        known = {"model": self.model, "dataset": self.dataset}
        commitments: dict[str, Json] = {name: item.to_json() for name, item in known.items() if item is not None}
        made: dict[str, Json] = {
            "verifier": {"id": self.verifier},
            "evaluatedAt": self.time,
            "suite": {"name": self.suite, "version": self.suite_version},
            "claims": [claim.to_json() for claim in self.claims],
            "sampleSize": self.samples,
            "commitments": commitments,
            "assuranceLevel": self.assurance,
            "subjectProfile": self.profile,
        }
        if self.registered is not None:
            made["preRegistration"] = self.registered.to_json(with_salt=False)
        if self.harness:
            made["harness"] = {"name": self.harness, "version": self.harness_version}
        return made

    @property
    def author(self) -> str:
        return self.verifier

    def describe(self) -> tuple[str, ...]:
        suite = f"{self.suite} {self.suite_version}".strip()
        registered = f"criteria {self.registered.value[:16]}" if self.registered else "no criteria registered before"
        return (
            f"{suite}, {self.samples} samples, at {self.time}, by {self.verifier}, {self.assurance}; {registered}",
            *(str(claim) for claim in self.claims[:10]),
        )


def read_decimal(fields: Fields, name: str) -> str:
    """A decimal number as text. Raises Malformed."""
    value = fields.text(name)
    if not DECIMAL.match(value):
        raise fields.error(f"member {name!r} must be a decimal number, such as 0.98, not {value[:40]!r}")
    return value


def optional_text(fields: Fields, name: str) -> str:
    """A text that may be absent, null or empty."""
    if not fields.has(name):
        return ""
    value = fields.take(name)
    return "" if value is None else Fields({name: value}, "in-toto statement").text(name, least=0, most=MAX_TEXT)


def _commitment(fields: Fields, name: str) -> Commitment | None:
    value = fields.take(name) if fields.has(name) else None
    return None if value is None else Commitment.read(value)


def read_time(fields: Fields, name: str) -> str:
    value = fields.text(name)
    if not _TIME.match(value):
        raise fields.error(f"member {name!r} must be a time of RFC 3339, not {value[:40]!r}")
    return value
