"""Standard in-toto predicates, written and read: SLSA verification summary and provenance, in-toto `test-result`, and
`eval-result`, which is a proposal.

Writers give RFC 8785 JSON with members of the published schemas only. Readers follow the parsing rules of in-toto: a
member that they do not know is ignored, so a statement of a later minor version is read. What they do read is bounded,
and a number with a fraction is kept as its text. A parsed predicate is its author's claim.

Sources: in-toto Attestation Framework v1 (statement, resource descriptor, test-result v0.1, eval-result v0.1 as it was
proposed in 2026); SLSA v1.0 (verification summary, provenance). Statements of version 0.1 are read too, since builders
still write them; their predicates of other types are shown as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

from comity.trust.encoding import Digest, Fields, Json, canonical, parse_json
from comity.trust.errors import Malformed
from comity.trust.statement import STATEMENT_TYPE

OLDER_STATEMENT_TYPES: Final = ("https://in-toto.io/Statement/v0.1",)
MAX_STATEMENT: Final = 4 * 1024 * 1024
MAX_LISTED: Final = 10_000
"""Maximum items of one list: subjects, dependencies, tests."""
MAX_ALGORITHMS: Final = 16
MAX_TEXT: Final = 4096

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
_DIGEST: Final = re.compile(r"[!-~]{1,512}\Z")
"""Hex for most algorithms; a `dirHash` of Go is base64."""
_ALGORITHM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?\Z")
"""A decimal number as text, which no reader can round."""


@dataclass(frozen=True, slots=True)
class ResourceDescriptor:
    """What a statement is about or refers to: at least one of name, URI and digests (algorithm, hex)."""

    name: str = ""
    uri: str = ""
    digests: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not (self.name or self.uri or self.digests):
            raise Malformed("resource descriptor is malformed", why="it has no name, URI or digest")
        names = [algorithm for algorithm, _ in self.digests]
        if names != sorted(set(names)) or len(names) > MAX_ALGORITHMS:
            why = f"expected at most {MAX_ALGORITHMS} digests, sorted by algorithm, each algorithm once"
            raise Malformed("resource descriptor is malformed", why=why)

    @classmethod
    def of_sha256(cls, digest: Digest, name: str = "", uri: str = "") -> ResourceDescriptor:
        return cls(name, uri, (("sha256", digest),))

    @property
    def sha256(self) -> str:
        return dict(self.digests).get("sha256", "")

    @classmethod
    def read(cls, value: Json) -> ResourceDescriptor:
        """Raises Malformed. Members such as `content` and `annotations` are not read."""
        fields = Fields(value, "resource descriptor")
        return cls(_text(fields, "name"), _text(fields, "uri"), _digests(fields))

    def to_json(self) -> dict[str, Json]:
        made: dict[str, Json] = {"digest": dict(self.digests)} if self.digests else {}
        return made | ({"name": self.name} if self.name else {}) | ({"uri": self.uri} if self.uri else {})


@dataclass(frozen=True, slots=True)
class VerificationSummary:
    """SLSA verification summary (VSA v1): `verifier` checked `resource` under `policy` at `time`.

    `levels` are levels of SLSA (`SLSA_BUILD_LEVEL_2`) or others; a verifier that failed writes `FAILED`.
    """

    TYPE: ClassVar[str] = "https://slsa.dev/verification_summary/v1"

    verifier: str
    time: str
    resource: str
    policy: ResourceDescriptor
    passed: bool
    levels: tuple[str, ...]
    inputs: tuple[ResourceDescriptor, ...] = ()

    @classmethod
    def read(cls, value: Json) -> VerificationSummary:
        """Raises Malformed."""
        fields = Fields(value, "verification summary")
        return cls(
            verifier=fields.object("verifier").text("id", most=MAX_TEXT),
            time=_time(fields, "timeVerified"),
            resource=fields.text("resourceUri", most=MAX_TEXT),
            policy=ResourceDescriptor.read(fields.take("policy")),
            passed=fields.choice("verificationResult", ("PASSED", "FAILED")) == "PASSED",
            levels=_texts(fields, "verifiedLevels"),
            inputs=_resources(fields, "inputAttestations"),
        )

    def to_json(self) -> dict[str, Json]:
        made: dict[str, Json] = {
            "verifier": {"id": self.verifier},
            "timeVerified": self.time,
            "resourceUri": self.resource,
            "policy": self.policy.to_json(),
            "verificationResult": "PASSED" if self.passed else "FAILED",
            "verifiedLevels": list(self.levels),
        }
        return made | ({"inputAttestations": [item.to_json() for item in self.inputs]} if self.inputs else {})

    @property
    def author(self) -> str:
        return self.verifier

    def describe(self) -> tuple[str, ...]:
        result = "PASSED" if self.passed else "FAILED"
        policy = self.policy.sha256 or self.policy.uri or self.policy.name
        return (
            f"{result} under policy {policy}, at {self.time}, by {self.verifier}",
            f"levels: {', '.join(self.levels) or 'none'}; {len(self.inputs)} input attestations",
        )


@dataclass(frozen=True, slots=True)
class SlsaProvenance:
    """SLSA provenance v1: `builder` made the subjects from `dependencies` as `build_type` defines.

    `parameters` are the external parameters in RFC 8785 JSON; a fraction is written as its text.
    """

    TYPE: ClassVar[str] = "https://slsa.dev/provenance/v1"

    build_type: str
    parameters: bytes
    dependencies: tuple[ResourceDescriptor, ...]
    builder: str
    invocation: str = ""
    started: str = ""
    finished: str = ""

    @classmethod
    def read(cls, value: Json) -> SlsaProvenance:
        """Raises Malformed."""
        fields = Fields(value, "provenance")
        build, run = fields.object("buildDefinition"), fields.object("runDetails")
        parameters = build.take("externalParameters")
        if not isinstance(parameters, Mapping):
            raise build.error("member 'externalParameters' must be an object")
        metadata = run.object("metadata") if run.has("metadata") else Fields({}, "provenance.metadata")
        return cls(
            build_type=build.text("buildType", most=MAX_TEXT),
            parameters=canonical(parameters),
            dependencies=_resources(build, "resolvedDependencies"),
            builder=run.object("builder").text("id", most=MAX_TEXT),
            invocation=_text(metadata, "invocationId"),
            started=_time(metadata, "startedOn") if metadata.has("startedOn") else "",
            finished=_time(metadata, "finishedOn") if metadata.has("finishedOn") else "",
        )

    def to_json(self) -> dict[str, Json]:
        build: dict[str, Json] = {
            "buildType": self.build_type,
            "externalParameters": parse_json(self.parameters, limit=MAX_STATEMENT, what="external parameters"),
        }
        if self.dependencies:
            build["resolvedDependencies"] = [item.to_json() for item in self.dependencies]
        times = {"invocationId": self.invocation, "startedOn": self.started, "finishedOn": self.finished}
        metadata: dict[str, Json] = {name: value for name, value in times.items() if value}
        run: dict[str, Json] = {"builder": {"id": self.builder}}
        return {"buildDefinition": build, "runDetails": run | ({"metadata": metadata} if metadata else {})}

    @property
    def author(self) -> str:
        return self.builder

    def describe(self) -> tuple[str, ...]:
        first = ", ".join(item.name or item.uri or item.sha256 for item in self.dependencies[:3])
        more = f" and {len(self.dependencies) - 3} more" if len(self.dependencies) > 3 else ""
        return (
            f"built by {self.builder} as {self.build_type}",
            f"from {first}{more}" if self.dependencies else "it names no dependency",
        )


RESULTS: Final = ("PASSED", "WARNED", "FAILED")


@dataclass(frozen=True, slots=True)
class TestResult:
    """in-toto `test-result` v0.1: the names of tests that passed, passed with a warning, or failed."""

    TYPE: ClassVar[str] = "https://in-toto.io/attestation/test-result/v0.1"
    __test__: ClassVar[bool] = False

    result: str
    configuration: tuple[ResourceDescriptor, ...]
    passed: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    url: str = ""

    @classmethod
    def read(cls, value: Json) -> TestResult:
        """Raises Malformed."""
        fields = Fields(value, "test result")
        return cls(
            result=fields.choice("result", RESULTS),
            configuration=tuple(map(ResourceDescriptor.read, fields.items("configuration", most=MAX_LISTED))),
            passed=_texts(fields, "passedTests"),
            warned=_texts(fields, "warnedTests"),
            failed=_texts(fields, "failedTests"),
            url=_text(fields, "url"),
        )

    def to_json(self) -> dict[str, Json]:
        made: dict[str, Json] = {
            "result": self.result,
            "configuration": [item.to_json() for item in self.configuration],
            "passedTests": list(self.passed),
            "warnedTests": list(self.warned),
            "failedTests": list(self.failed),
        }
        return made | ({"url": self.url} if self.url else {})

    @property
    def author(self) -> str:
        """Nobody: the predicate does not name who tested."""
        return ""

    def describe(self) -> tuple[str, ...]:
        counts = f"{len(self.passed)} passed, {len(self.warned)} warned, {len(self.failed)} failed"
        failed = f": {', '.join(self.failed[:3])}" if self.failed else ""
        return (f"{self.result}: {counts}{failed}",)


COMPARATORS: Final = (">=", ">", "<=", "<")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
            time=_time(fields, "evaluatedAt"),
            suite=suite.text("name", most=200),
            suite_version=_text(suite, "version"),
            claims=tuple(map(ThresholdClaim.read, fields.items("claims", least=1, most=MAX_LISTED))),
            samples=fields.integer("sampleSize"),
            model=_commitment(commitments, "model"),
            dataset=_commitment(commitments, "dataset"),
            assurance=fields.text("assuranceLevel", most=64),
            profile=fields.text("subjectProfile", most=64),
            registered=_commitment(fields, "preRegistration"),
            harness=_text(harness, "name"),
            harness_version=_text(harness, "version"),
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


StandardPredicate: TypeAlias = VerificationSummary | SlsaProvenance | TestResult | SuiteResult

READERS: Final[Mapping[str, type[VerificationSummary | SlsaProvenance | TestResult | SuiteResult]]] = {
    kind.TYPE: kind for kind in (VerificationSummary, SlsaProvenance, TestResult, SuiteResult)
}
"""The predicates that are read, by predicate type."""


@dataclass(frozen=True, slots=True)
class ForeignStatement:
    """An in-toto statement of another program. `predicate` is None for a type that is not read here."""

    predicate_type: str
    subjects: tuple[ResourceDescriptor, ...]
    predicate: StandardPredicate | None

    @classmethod
    def parse(cls, payload: bytes) -> ForeignStatement:
        """Parse the payload of an envelope. Raises Malformed."""
        document = parse_json(payload, limit=MAX_STATEMENT, what="in-toto statement", text_fractions=True)
        fields = Fields(document, "in-toto statement")
        fields.choice("_type", (STATEMENT_TYPE, *OLDER_STATEMENT_TYPES))
        subjects = tuple(map(ResourceDescriptor.read, fields.items("subject", least=1, most=MAX_LISTED)))
        predicate_type = fields.text("predicateType", most=512)
        kind = READERS.get(predicate_type)
        return cls(predicate_type, subjects, kind.read(fields.take("predicate")) if kind else None)


def encode_statement(predicate: StandardPredicate, subjects: Sequence[ResourceDescriptor]) -> bytes:
    """The payload to sign: RFC 8785 JSON. Raises Malformed without a subject, or if a subject has no digest."""
    if not subjects or any(not subject.digests for subject in subjects):
        raise Malformed("cannot write a statement", why="each subject needs a digest, and there is at least one")
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [subject.to_json() for subject in subjects],
            "predicateType": predicate.TYPE,
            "predicate": predicate.to_json(),
        }
    )


def read_decimal(fields: Fields, name: str) -> str:
    """A decimal number as text. Raises Malformed."""
    value = fields.text(name)
    if not DECIMAL.match(value):
        raise fields.error(f"member {name!r} must be a decimal number, such as 0.98, not {value[:40]!r}")
    return value


def _text(fields: Fields, name: str) -> str:
    """A text that may be absent, null or empty."""
    if not fields.has(name):
        return ""
    value = fields.take(name)
    return "" if value is None else Fields({name: value}, "in-toto statement").text(name, least=0, most=MAX_TEXT)


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    if not fields.has(name):
        return ()
    items = fields.items(name, most=MAX_LISTED)
    each = Fields({str(at): item for at, item in enumerate(items)}, name)
    return tuple(each.text(str(at), most=MAX_TEXT) for at in range(len(items)))


def _resources(fields: Fields, name: str) -> tuple[ResourceDescriptor, ...]:
    return tuple(map(ResourceDescriptor.read, fields.items(name, most=MAX_LISTED))) if fields.has(name) else ()


def _digests(fields: Fields) -> tuple[tuple[str, str], ...]:
    value = fields.take("digest") if fields.has("digest") else {}
    if not isinstance(value, Mapping):
        raise fields.error("member 'digest' must be an object")
    for algorithm, digest in value.items():
        if not _ALGORITHM.match(algorithm) or not isinstance(digest, str) or not _DIGEST.match(digest):
            raise fields.error("member 'digest' must hold digests by algorithm")
    return tuple(sorted((algorithm, str(digest)) for algorithm, digest in value.items()))


def _commitment(fields: Fields, name: str) -> Commitment | None:
    value = fields.take(name) if fields.has(name) else None
    return None if value is None else Commitment.read(value)


def _time(fields: Fields, name: str) -> str:
    value = fields.text(name)
    if not _TIME.match(value):
        raise fields.error(f"member {name!r} must be a time of RFC 3339, not {value[:40]!r}")
    return value
