"""Attestations of other tools beside an artifact, the keys that the owner pinned for them, and exports for others.

    MODEL/.comity/attestations/<sha256>.json    added here: a DSSE envelope or a Sigstore bundle
    MODEL/claims.jsonl                          as OpenSSF proposes: a Sigstore bundle on each line
    MODEL/.comity/claims.jsonl                  the same
    MODEL/.comity/objects/<sha256>              a document that somebody vouched with, if it is an attestation

    attestations/<name>.pem                     in the state folder: a pinned key

What is read is side evidence with a verdict of its own. It never changes a row, an exit status or a report. An export
is signed by one key, because most tools take one signature: by the Ed25519 half of the publisher's key, which its
inception names, or by its P-256 key, which `model.sig` files have. Comity itself counts neither for a statement.

    a verdict                    SLSA verification summary, in-toto test-result
    a publisher's own lineage    SLSA provenance: the publisher is the builder, parents are dependencies by digest

A statement of another author is never exported: a reader takes the signer of such an envelope for the builder or the
tester. An export is a copy for other tools. The statement in the log, with both halves of its signature, remains the
evidence.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from comity_client.publishers import Publisher
from comity_client.pull.destinations import folder_of
from comity_client.pull.model_sig import own_key, verify_keyless_payload
from comity_client.trust_client import TrustClient
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from comity.addons.attestations.envelopes import (
    MAX_ATTESTATION,
    MAX_KEY,
    ArtifactDigests,
    AttestationKey,
    AttestationVerdict,
    KeylessSigner,
    judge_attestation,
    write_envelope,
)
from comity.addons.attestations.predicates import (
    ResourceDescriptor,
    SlsaProvenance,
    StandardPredicate,
    TestResult,
    VerificationSummary,
    encode_statement,
)
from comity.bounded_file import read_bounded
from comity.content import durable
from comity.evidence_pack import BUNDLE_MARK, read_pack
from comity.trust.artifact import MAX_MANIFEST, Manifest
from comity.trust.claims import KnownAuthors, ParsedClaims, read_claims, verify_vouches
from comity.trust.encoding import Digest, Json, canonical, format_time, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Unavailable
from comity.trust.evaluation import evaluations_of
from comity.trust.evidence import OLD_STATEMENTS, PACK, EvidenceReader, Verdict
from comity.trust.exit_statuses import PARTIAL
from comity.trust.frozen import frozen
from comity.trust.keys import ecdsa_der
from comity.trust.model_signing.bundle import ModelKey
from comity.trust.model_signing.judging import KeylessIdentity
from comity.trust.report import vsa_level
from comity.trust.statement import PAYLOAD_TYPE, Entry, pae
from comity.trust.statement_kinds import DERIVED
from comity.trust.statements import Derived, Published

FOLDER: Final = "attestations"
MAX_ATTESTATIONS: Final = 256
"""Maximum number that is judged beside one artifact, in the order of the sources."""
MAX_READ: Final = 64 * 1024 * 1024
"""Maximum bytes that are judged beside one artifact."""
MAX_KEYS: Final = 256
MAX_SIGSTORE_ROOT: Final = 1024 * 1024
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")


class AttestationKeyStore:
    """The pinned keys in `folder`, which must exist, by name. Any method may raise OutOfSpace, Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keys(self) -> tuple[AttestationKey, ...]:
        """Raises Malformed (ATTESTATION-KEY) if a file is not a key."""
        with durable.disk_errors("the pinned keys were not read"):
            files = sorted(self._folder.glob("*.pem"))[:MAX_KEYS]
        return tuple(AttestationKey.parse(read_bounded(file, MAX_KEY), file.stem) for file in files)

    def pin(self, file: Path, name: str) -> AttestationKey:
        """Pin the public key in a PEM file. Raises Malformed (ATTESTATION-KEY), and Conflict (ATTESTATION-NAME) if
        another key has this name or this key is pinned by another name."""
        if not _NAME.match(name):
            why = "a name has 1 to 40 lower-case letters, digits and hyphens"
            raise Malformed(f"{name[:60]!r} cannot name a key", why=why, code="ATTESTATION-NAME")
        key = AttestationKey.parse(read_bounded(file, MAX_KEY), name)
        known = self.keys()
        other = next((each for each in known if (each.label == name) != (each.id == key.id)), None)
        if other is not None or len(known) >= MAX_KEYS:
            why = f"{other} is pinned" if other else f"{MAX_KEYS} keys are pinned"
            hint = "comity attestation keys"
            raise Conflict(f"{name} was not pinned", why=why, hint=hint, code="ATTESTATION-NAME")
        durable.write_file(self._folder / f"{name}.pem", key.pem, mode=0o600, point="trust")
        return key

    def unpin(self, name: str) -> AttestationKey:
        """Raises NotFound."""
        key = next((each for each in self.keys() if each.label == name), None)
        if key is None:
            raise NotFound(f"no pinned key {name[:60]!r}", hint="comity attestation keys", code="ATTESTATION-NAME")
        with durable.disk_errors(f"{name} was not removed"):
            (self._folder / f"{name}.pem").unlink()
        return key


def pinned_keys(client: TrustClient) -> AttestationKeyStore:
    """The keys that the owner pinned for attestations of other tools."""
    return AttestationKeyStore(client.home.ensure(client.home.attestations))


@frozen
class FolderAttestations:
    """The attestations beside an artifact, each with its verdict; `left_out` were not judged, beyond the bounds."""

    artifact: Digest
    verdicts: tuple[AttestationVerdict, ...]
    left_out: int


def judge_folder(
    what: Path | str, keys: tuple[AttestationKey, ...], keyless: KeylessSigner | None = None
) -> FolderAttestations:
    """Judge the attestations beside an artifact: in a folder, or the pulled copy of a reference. Its files are not
    hashed. Raises NotFound (NO-PACK) without a manifest, Malformed."""
    folder = folder_of(what)
    manifest = _manifest(folder)
    digests = ArtifactDigests.of(manifest)
    found: dict[Digest, AttestationVerdict] = {}
    size = left_out = 0
    for data in _attestations_in(folder):
        digest = sha256(data)
        if digest in found:
            continue
        size += len(data)
        if len(found) >= MAX_ATTESTATIONS or size > MAX_READ:
            left_out += 1
            continue
        found[digest] = judge_attestation(data, digests, keys, keyless)
    return FolderAttestations(manifest.digest, tuple(found.values()), left_out)


def count_attestations(folder: Path) -> int:
    """How many attestations of other tools are in `folder`, at most `MAX_ATTESTATIONS`; none if it cannot be read."""
    try:
        return len({sha256(data) for data in itertools.islice(_attestations_in(folder), MAX_ATTESTATIONS)})
    except ComityError:
        return 0


def add_attestation(what: Path | str, file: Path, keys: tuple[AttestationKey, ...]) -> AttestationVerdict:
    """Copy an attestation to the evidence pack of the artifact that it is about, and return its verdict.

    Raises Malformed (ATTESTATION) if it cannot be read or is about something else, NotFound (NO-PACK), Conflict
    (ATTESTATION) if too many are there.
    """
    folder = folder_of(what)
    data = read_bounded(file, MAX_ATTESTATION)
    verdict = judge_attestation(data, ArtifactDigests.of(_manifest(folder)), keys)
    if verdict.state == "unreadable":
        raise Malformed(f"{file} is not an attestation", why=verdict.signer, code="ATTESTATION")
    if not verdict.about:
        why = f"no subject of it is the artifact in {folder} or one of its files"
        raise Malformed(f"{file} is about something else", why=why, code="ATTESTATION")
    target = folder / PACK / FOLDER
    with durable.disk_errors(f"{target} was not written"):
        durable.make_folders(target)
        count = sum(1 for _ in target.glob("*.json"))
    if count >= MAX_ATTESTATIONS and not (target / f"{verdict.digest}.json").exists():
        raise Conflict(f"{file} was not added", why=f"{count} attestations are in {target}", code="ATTESTATION")
    durable.write_file(target / f"{verdict.digest}.json", data, mode=0o644, point="pack")
    return verdict


def keyless_signer(identity: str, issuer: str, sigstore_root: bytes) -> KeylessSigner:
    """The check of keyless bundles by one identity, offline. Raises Unavailable (NO-SIGSTORE) without the extra."""
    if importlib.util.find_spec("sigstore") is None:
        why, hint = "the extra [sigstore] is not installed", "pip install 'comity[sigstore]'"
        raise Unavailable("keyless signatures cannot be checked", why=why, hint=hint, code="NO-SIGSTORE")
    named = (KeylessIdentity(identity, issuer),)

    def check(bundle: bytes, payload: bytes) -> str:
        return str(verify_keyless_payload(bundle, payload, named, sigstore_root))

    return check


def _manifest(folder: Path) -> Manifest:
    path = folder / PACK / "manifest.json"
    if not path.is_file():
        why = "the folder has no evidence pack"
        raise NotFound(f"no manifest in {folder}", why=why, hint="comity pull REF --out DIR", code="NO-PACK")
    return Manifest.parse(read_bounded(path, MAX_MANIFEST))


def _attestations_in(folder: Path) -> Iterator[bytes]:
    """The bytes of each attestation, those added here first. What is no file or over the bound is passed over."""
    pack = folder / PACK
    with durable.disk_errors(f"{pack} was not read"):
        for path in sorted((pack / FOLDER).glob("*.json"))[: 2 * MAX_ATTESTATIONS]:
            if path.is_file() and path.stat().st_size <= MAX_ATTESTATION:
                yield read_bounded(path, MAX_ATTESTATION)
        for path in (folder / OLD_STATEMENTS, pack / OLD_STATEMENTS):
            yield from _bundle_lines(path)
    for _, data in sorted(read_pack(folder).objects.items()):
        if len(data) <= MAX_ATTESTATION and data.lstrip()[:1] == b"{" and _is_envelope(data):
            yield data


def _is_envelope(data: bytes) -> bool:
    return BUNDLE_MARK in data or b'"payloadType"' in data


def _bundle_lines(path: Path) -> Iterator[bytes]:
    """Lines with a bundle, at most `MAX_READ` bytes of the file."""
    if not path.is_file() or path.is_symlink():
        return
    with path.open("rb") as file:
        while file.tell() <= MAX_READ and (line := file.readline(MAX_ATTESTATION + 1)):
            if BUNDLE_MARK in line:
                yield line.strip()


ARTIFACT_URN: Final = "urn:comity:artifact:"
IDENTITY_URN: Final = "urn:comity:identity:"
STATEMENT_URN: Final = "urn:comity:statement:"
LINEAGE_BUILD: Final = "urn:comity:lineage:v1"
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
        verifier=f"{IDENTITY_URN}{verifier}",
        time=format_time(time),
        resource=f"{ARTIFACT_URN}{artifact}",
        policy=ResourceDescriptor.of_sha256(policy),
        passed=verdict.accepted,
        levels=tuple(vsa_level(row.name) for row in verdict.rows if row.state == "pass")
        if verdict.accepted
        else ("FAILED",),
        inputs=tuple(
            ResourceDescriptor.of_sha256(line, uri=f"{STATEMENT_URN}{line}") for line in verdict.inputs[:MAX_INPUTS]
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
            relation |= {"basis": f"derived: {found.result}", "steps": dict(found.steps)}
        relations.append(relation)
    parameters: Mapping[str, Json] = {"name": str(published.name), "relations": relations}
    return SlsaProvenance(
        build_type=LINEAGE_BUILD,
        parameters=canonical(parameters),
        dependencies=tuple(
            ResourceDescriptor.of_sha256(parent.digest, parent.name, f"{ARTIFACT_URN}{parent.digest}")
            if parent.digest
            else ResourceDescriptor(name=parent.name)
            for parent in published.lineage
        ),
        builder=f"{IDENTITY_URN}{published.by}",
        invocation=f"{STATEMENT_URN}{entry.digest}",
    )


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


@frozen
class Exported:
    """An attestation for other tools: the envelope, and the key with which they check it, in PEM."""

    envelope: bytes
    key: bytes
    predicate: StandardPredicate


def export_verdict(verdict: Verdict, kind: str, publisher: Publisher, time: int, algorithm: str) -> Exported:
    """A verdict as `vsa` or `test-result`, signed by `publisher`. Raises Malformed (UNSIGNABLE-REPORT)."""
    predicate = summary_of(verdict, publisher.id, time) if kind == "vsa" else result_of(verdict)
    assert verdict.artifact is not None  # both refuse a verdict without
    return _sign(predicate, (artifact_subject(verdict.artifact, verdict.name),), publisher, algorithm)


def export_lineage(what: Path | str, publisher: Publisher, algorithm: str) -> Exported:
    """The lineage of the publisher's own publication in a pack as SLSA provenance.

    Raises NotFound (NOT-ITS-PUBLISHER) if the pack has no proven publication by this publisher, Malformed (NO-LINEAGE).
    """
    folder = folder_of(what)
    manifest, reader = _manifest(folder), EvidenceReader()
    claims = read_claims(read_pack(folder, reader).claims, manifest.digest, reader)
    own = [each for each in claims.publications if each.publisher.id == publisher.id]
    if not own:
        why = f"the evidence has no proven publication of it by {publisher.label}"
        hint = "comity attestation export DIR --as vsa --policy FILE --sign-as LABEL"
        raise NotFound("only a publisher can export provenance", why=why, hint=hint, code="NOT-ITS-PUBLISHER")
    with_parents = [each for each in own if each.published.lineage]
    chosen = (with_parents or own)[-1]
    derived = _own_derivations(claims, publisher, manifest.digest)
    predicate = provenance_of(chosen.entry, chosen.published, derived)
    files = [(entry.path, str(entry.sha256)) for entry in manifest.files]
    subjects = subjects_of_files(manifest.digest, str(chosen.published.name), files)
    return _sign(predicate, subjects, publisher, algorithm)


def export_evaluation(what: Path | str, publisher: Publisher, algorithm: str) -> Exported:
    """The newest results that the publisher itself vouched for in a pack, as the proposed `eval-result`.

    Raises NotFound (NO-EVALUATION) if there are none in the form of `comity evaluation`.
    """
    folder = folder_of(what)
    manifest, reader = _manifest(folder), EvidenceReader()
    evidence = read_pack(folder, reader)
    claims = read_claims(evidence.claims, manifest.digest, reader)
    vouches, _ = verify_vouches(claims, manifest.digest, KnownAuthors(claims, (), ()))
    own = [results for vouch, results in evaluations_of(vouches, evidence.objects) if vouch.by.id == publisher.id]
    if not own:
        why = f"the evidence has no results that {publisher.label} logged"
        hint = "comity evaluation report REF --criteria FILE --value METRIC=VALUE"
        raise NotFound("no evaluation to export", why=why, hint=hint, code="NO-EVALUATION")
    newest = max(own, key=lambda results: (results.at, results.criteria.digest))
    predicate = newest.predicate(publisher.id, manifest.digest)
    return _sign(predicate, (artifact_subject(manifest.digest),), publisher, algorithm)


def _own_derivations(claims: ParsedClaims, publisher: Publisher, artifact: Digest) -> Iterator[Derived]:
    chain = claims.chain(publisher.id)
    for entry in claims.entries:
        by = entry.statement.by
        if entry.statement.predicate != DERIVED or by is None or by.id != publisher.id or chain is None:
            continue
        try:
            derived = Derived.parse(entry.statement)
        except ComityError:
            continue
        if derived.child == artifact and chain.signed(entry.envelope):
            yield derived


def _sign(
    predicate: StandardPredicate, subjects: tuple[ResourceDescriptor, ...], publisher: Publisher, algorithm: str
) -> Exported:
    payload = encode_statement(predicate, subjects)
    message = pae(PAYLOAD_TYPE, payload)
    if algorithm == "p256":
        key = own_key(publisher)
        public = ModelKey.of_raw(key.public)
        signature = ecdsa_der(key.public.alg, key.sign(message))
        return Exported(write_envelope(payload, public.hint, signature), public.pem, predicate)
    signer = publisher.signer()
    half = next((half for half in signer.public.halves if half.alg == "ed25519"), None)
    if half is None:
        why = f"the key of {publisher.label} has no Ed25519 half"
        raise Malformed("cannot sign an attestation", why=why, hint="repeat with --key p256", code="ATTESTATION-KEY")
    pem = ed25519.Ed25519PublicKey.from_public_bytes(half.raw).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Exported(write_envelope(payload, half.id, dict(signer.sign(message))[half.id]), pem, predicate)
