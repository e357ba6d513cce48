"""What was verified or stated here, as standard predicates for other tools.

    a verdict                    SLSA verification summary, in-toto test-result
    a publisher's own lineage    SLSA provenance: the publisher is the builder, parents are dependencies by digest

A statement of another author is never projected: a reader takes the signer of such an envelope for the builder or the
tester. The projection is a copy for other tools. The statement in the log, with both halves of its signature, remains
the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from comity.trust.attestations.predicates import (
    ResourceDescriptor,
    SlsaProvenance,
    TestResult,
    VerificationSummary,
)
from comity.trust.encoding import Digest, Json, canonical, format_time
from comity.trust.errors import Malformed
from comity.trust.evidence import PARTIAL, Verdict
from comity.trust.report import vsa_level
from comity.trust.statement import Entry
from comity.trust.statements import Derived, Published

ARTIFACT: Final = "urn:comity:artifact:"
IDENTITY: Final = "urn:comity:identity:"
STATEMENT: Final = "urn:comity:statement:"
LINEAGE: Final = "urn:comity:lineage:v1"
"""The build type: the external parameters are the relations that the publisher declares or derived."""
MAX_INPUTS: Final = 256


def artifact_subject(artifact: Digest, name: str = "") -> ResourceDescriptor:
    """The artifact by the SHA-256 of its manifest, which is a file (`.comity/manifest.json`) that tools can hash."""
    return ResourceDescriptor.of_sha256(artifact, name or f"sha256:{artifact}")


def summary_of(verdict: Verdict, verifier: Digest, time: int) -> VerificationSummary:
    """The verdict as an SLSA verification summary by the identity `verifier` at `time` (POSIX seconds).

    The levels are the rows that pass; a refused artifact has the level FAILED, as SLSA defines. Raises Malformed
    (UNSIGNABLE-REPORT) without an artifact or a policy.
    """
    artifact, policy = _named(verdict)
    return VerificationSummary(
        verifier=f"{IDENTITY}{verifier}",
        time=format_time(time),
        resource=f"{ARTIFACT}{artifact}",
        policy=ResourceDescriptor.of_sha256(policy),
        passed=verdict.accepted,
        levels=tuple(vsa_level(row.name) for row in verdict.rows if row.state == "pass")
        if verdict.accepted
        else ("FAILED",),
        inputs=tuple(
            ResourceDescriptor.of_sha256(line, uri=f"{STATEMENT}{line}") for line in verdict.inputs[:MAX_INPUTS]
        ),
    )


def result_of(verdict: Verdict) -> TestResult:
    """The verdict as an in-toto test result: the tests are the rows.

    A required row that does not pass failed; another row that does not pass is a warning; a row that was not checked is
    no test. Raises Malformed (UNSIGNABLE-REPORT) without an artifact or a policy.
    """
    _, policy = _named(verdict)
    required = {"artifact", *verdict.required}
    tested = [row for row in verdict.rows if row.state != "not-checked" or row.name in required]
    result = "PASSED" if verdict.accepted else "WARNED" if verdict.exit_status == PARTIAL else "FAILED"
    return TestResult(
        result=result,
        configuration=(ResourceDescriptor.of_sha256(policy, "policy"),),
        passed=tuple(row.name for row in tested if row.state == "pass"),
        warned=tuple(row.name for row in tested if row.state != "pass" and row.name not in required),
        failed=tuple(row.name for row in tested if row.state != "pass" and row.name in required),
    )


def provenance_of(entry: Entry, published: Published, derived: Iterable[Derived]) -> SlsaProvenance:
    """The lineage of a publication as SLSA provenance, with its publisher as the builder.

    Args:
        entry: the `published` statement.
        derived: derivations by the same identity; a relation that it computed is marked so.

    Raises Malformed (NO-LINEAGE) if the publication names no parent.
    """
    if not published.lineage:
        why = f"{published.name} names no parent, so there is no provenance to write"
        raise Malformed(
            "no lineage to export",
            why=why,
            hint="comity lineage REF",
            code="NO-LINEAGE",
        )
    computed = {each.parent: each for each in derived}
    relations: list[Json] = []
    for parent in published.lineage:
        found = computed.get(parent.digest) if parent.digest else None
        relation: dict[str, Json] = {"relation": parent.relation, "parent": parent.name, "basis": "declared"}
        if found is not None:
            relation |= {"basis": f"derived: {found.result}", "steps": _steps(found.steps)}
        relations.append(relation)
    parameters: Mapping[str, Json] = {"name": str(published.name), "relations": relations}
    return SlsaProvenance(
        build_type=LINEAGE,
        parameters=canonical(parameters),
        dependencies=tuple(
            ResourceDescriptor.of_sha256(parent.digest, parent.name, f"{ARTIFACT}{parent.digest}")
            if parent.digest
            else ResourceDescriptor(name=parent.name)
            for parent in published.lineage
        ),
        builder=f"{IDENTITY}{published.by}",
        invocation=f"{STATEMENT}{entry.digest}",
    )


def _steps(steps: Mapping[str, int]) -> dict[str, Json]:
    return {name: steps[name] for name in sorted(steps)}


def subjects_of_files(
    artifact: Digest, name: str, files: Sequence[tuple[str, str]], most: int = 1000
) -> tuple[ResourceDescriptor, ...]:
    """The artifact, and its files (path, SHA-256) if they are at most `most`: a tool may check a single file."""
    listed = [ResourceDescriptor(path, "", (("sha256", digest),)) for path, digest in files]
    return (artifact_subject(artifact, name), *(listed if len(listed) <= most else ()))


def _named(verdict: Verdict) -> tuple[Digest, Digest]:
    if verdict.artifact is None or verdict.policy is None:
        missing = "a manifest" if verdict.artifact is None else "a policy file"
        why = f"an attestation needs an artifact and a policy; the verdict is without {missing}"
        raise Malformed("verdict cannot be exported", why=why, hint="comity policy new", code="UNSIGNABLE-REPORT")
    return verdict.artifact, verdict.policy
