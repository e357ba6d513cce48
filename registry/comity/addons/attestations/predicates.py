"""Standard in-toto predicates of other tools: SLSA verification summary and provenance, and in-toto `test-result`.

Writers give RFC 8785 JSON with members of the published schemas only. Readers follow the parsing rules of in-toto: a
member that they do not know is ignored, so a statement of a later minor version is read. What they do read is bounded,
and a number with a fraction is kept as its text. A parsed predicate is its author's claim. No verdict depends on one;
`eval-result`, which evaluations have, is read by `comity.trust.eval_result`.

Sources: in-toto Attestation Framework v1 (statement, resource descriptor, test-result v0.1); SLSA v1.0 (verification
summary, provenance). Statements of version 0.1 are read too, since builders still write them; their predicates of
other types are shown as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, TypeAlias

from comity.trust.encoding import Digest, Fields, Json, canonical, parse_json
from comity.trust.errors import Malformed
from comity.trust.eval_result import MAX_LISTED, MAX_TEXT, SuiteResult, optional_text, read_time
from comity.trust.frozen import frozen
from comity.trust.statement import STATEMENT_TYPE

OLDER_STATEMENT_TYPES: Final = ("https://in-toto.io/Statement/v0.1",)
MAX_STATEMENT: Final = 4 * 1024 * 1024
MAX_ALGORITHMS: Final = 16
_DIGEST: Final = re.compile(r"[!-~]{1,512}\Z")
"""Hex for most algorithms; a `dirHash` of Go is base64."""
_ALGORITHM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


@frozen
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
        return cls(optional_text(fields, "name"), optional_text(fields, "uri"), _digests(fields))

    def to_json(self) -> dict[str, Json]:
        made: dict[str, Json] = {"digest": dict(self.digests)} if self.digests else {}
        return made | ({"name": self.name} if self.name else {}) | ({"uri": self.uri} if self.uri else {})


@frozen
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
            time=read_time(fields, "timeVerified"),
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


@frozen
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
            invocation=optional_text(metadata, "invocationId"),
            started=read_time(metadata, "startedOn") if metadata.has("startedOn") else "",
            finished=read_time(metadata, "finishedOn") if metadata.has("finishedOn") else "",
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


@frozen
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
            url=optional_text(fields, "url"),
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


StandardPredicate: TypeAlias = VerificationSummary | SlsaProvenance | TestResult | SuiteResult

READERS: Final[Mapping[str, type[VerificationSummary | SlsaProvenance | TestResult | SuiteResult]]] = {
    kind.TYPE: kind for kind in (VerificationSummary, SlsaProvenance, TestResult, SuiteResult)
}
"""The predicates that are read, by predicate type."""


@frozen
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
