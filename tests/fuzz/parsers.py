"""Every parser of hostile bytes, each with valid samples. A new format needs one line here."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tomllib
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from comity.addons.attestations.envelopes import AttestationKey, ForeignEnvelope
from comity.addons.attestations.predicates import ForeignStatement
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.addons.hardware.certificates import RevocationData, VendorChain
from comity.addons.hardware.evidence_files import read_gpu_list
from comity.addons.hardware.reports import GpuReport, SnpReport, TdxQuote
from comity.content.audit_log import EMPTY, AuditLog, parse_head, parse_record
from comity.content.gateway_tokens import parse_uses
from comity.federation_file import Federation
from comity.formats.inspect import inspect
from comity.formats.tensors import read_gguf, read_safetensors
from comity.gateway.console.feeds import FeedMemory
from comity.gateway.console.forms import parse_form
from comity.gateway.console.oidc.provider_documents import (
    ProviderMetadata,
    check_id_token,
    parse_keys,
    parse_tokens,
    read_person,
)
from comity.gateway.fileserver.http1 import SignedUrls
from comity.gateway.fileserver.http1 import parse as parse_request
from comity.ledger.stored_lines import pack_line, unpack_line
from comity.node.config import setting_lines
from comity.node.importing.queue import encode_queue, parse_queue
from comity.node.maintenance.backup_format import BackupFile, BackupManifest, LedgerCopy
from comity.node.operator_acts import parse_positions
from comity.node.webhooks import parse_hooks
from comity.rules.continuity.drill_report import DrillReport
from comity.rules.equivocation import check_equivocation
from comity.rules.hardware_evidence import KINDS, HardwareEvidence
from comity.rules.mirror_rules import parse_mirror_rules
from comity.rules.offers.fault_proof import FaultProof, ProvenRecord
from comity.rules.offers.offer import Offer
from comity.rules.pieces import PieceIndex, encode_records
from comity.rules.retention import parse_retention_rules
from comity.rules.signing import sign_content
from comity.rules.tiles import decode_entries, encode_entries, parse_tile_path
from comity.rules.tree_proofs import Frontier
from comity.rules.witness import AddCheckpoint, MirrorInfo, TlogPolicy, encode_signatures, parse_signatures
from comity.trust.approvals import ApprovalConditions, ApprovalEnded, Approved
from comity.trust.artifact import FileEntry, Manifest, PieceRecord, parse_records
from comity.trust.charter.certificate import certify
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, canonical, parse_canonical, parse_json
from comity.trust.errors import ComityError, Malformed
from comity.trust.evaluation import (
    EvaluationCriteria,
    EvaluationResults,
    Threshold,
)
from comity.trust.evidence import Evidence, UnreadStatements
from comity.trust.identity import Inception, check_inception
from comity.trust.model_signing.bundle import Bundle, ModelKey, ModelStatement, TrustedTime
from comity.trust.model_signing.certificates import CertificateChain, parse_roots
from comity.trust.names import Name, Reference
from comity.trust.node_records import (
    certificate_key,
)
from comity.trust.policy_file import parse_policy
from comity.trust.report import VerdictReport
from comity.trust.rotation import KeyState, follow, parse_rotation
from comity.trust.statement import (
    PAYLOAD_TYPE,
    Envelope,
    EnvelopeSignature,
    SideObject,
    Statement,
    parse_entry,
)
from comity.trust.statement_kinds import STATEMENT_KINDS
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey
from comity.trust.tlog.proof import ConsistencyProof, TlogProof
from comity.trust.upstream import check_endpoint
from comity.trust.verify import verify
from comity.upstream.git_objects import PackReader
from comity.upstream.git_repository import parse_pack_answer, parse_refs
from comity.upstream.http_list import parse_checksums
from comity.upstream.listed_files import (
    ListedFile,
    Observation,
    UpstreamRequest,
    encode_observations,
    parse_observations,
)
from comity.upstream.model_scope import parse_files
from comity.upstream.oci_image import parse_layers
from comity.upstream.packed_layers import parse_pax
from comity.upstream.registry_tokens import parse_demand, parse_token
from comity.upstream.s3_prefix import parse_page
from comity.webhook_requests import parse_secret
from comity.wire.addresses import GatewayUrl, RangeUrl
from comity.wire.audit import AuditOrder, AuditReply
from comity.wire.upstream import QueuedImport
from comity_client.bundles.contents import (
    BundleIndex,
    CarriedFile,
    CarriedLog,
    PackMember,
    encode_misbehaviour_proof,
    parse_contents,
    parse_misbehaviour_proof,
)
from comity_client.bundles.erasure import ErasureCode
from comity_client.carried_audits import CarriedAnswers, RefusedChallenge, encode_challenges, parse_challenges
from comity_client.evidence.approvals import CarriedApprovals
from comity_client.inventory.inventory import Inventory
from comity_client.offers.measure import NAME, MeasuredFigures, MeasuredRate
from cryptography.utils import CryptographyDeprecationWarning
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from support import audits, hardware, weights
from support import offers as lending
from support.attesting import PREDICATES, bundle, encoded, envelope, payload
from support.case import advisory, case, nodes
from support.documents import read_statement, statements
from support.drill_reports import a_drill_report
from support.foreign_keys import private_key, public_pem
from support.inventories import an_inventory
from support.logs import LogKeys
from support.model_sig import Authority, certificate_der, posix
from support.world import found, identity


@dataclass(frozen=True)
class Target:
    """`parse` raises nothing but ComityError; `printed`, where given, is its exact inverse for all that it accepts."""

    parse: Callable[[bytes], Any]
    samples: tuple[bytes, ...]
    printed: Callable[[Any], bytes] | None = None


def of_text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """A parser of text as one of bytes; what is not UTF-8 reaches it as lone surrogates."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def of_toml(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """A parser of text that was read as TOML before."""

    def checked(data: bytes) -> Any:
        try:
            text = data.decode("utf-8")
            tomllib.loads(text)
        except ValueError as error:
            raise Malformed("this is not TOML") from error
        return parse(text)

    return checked


def to_text(printed: Callable[[Any], str]) -> Callable[[Any], bytes]:
    return lambda value: printed(value).encode("utf-8", "surrogateescape")


def _vectors(name: str) -> Any:
    return json.loads((Path(__file__).parents[1] / "vectors" / name).read_text("utf-8"))


def _encoded(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


_NOTES: Final = _encoded(*(case["note"] for case in _vectors("note.json")["accepted"]))
_LINES: Final = tuple(line for note in _NOTES for line in note.splitlines() if line.startswith("— ".encode()))
_KEYS: Final = _encoded(*_vectors("note.json")["vkeys"], _vectors("cosignature.json")["ml-dsa-44"]["vkey"])
_CHECKPOINTS: Final = _encoded(*(case["text"] for case in _vectors("checkpoint.json")["accepted"]))
_PROOFS: Final = _encoded(*_vectors("tlog-proof.json")["accepted"])
_POLICIES: Final = _encoded(*(case["policy"] for case in _vectors("tlog-policy.json")["satisfied"]))
_TILES: Final = _encoded(*(case["path"] for case in _vectors("tiles.json")["paths"]))
_BACKUP: Final = BackupManifest(
    created=1,
    software="comity 1",
    node="node-ch.example",
    origin="node-ch.example/log",
    keys=True,
    blobs="listed",
    ledger=LedgerCopy("0010", "node-ch.example/log+1+key", 3),
    files=(
        BackupFile("blobs.txt", 1, Digest("a" * 64)),
        BackupFile("home/keys/log.pem", 2, Digest("b" * 64), secret=True),
        BackupFile("ledger.sqlite", 3, Digest("c" * 64)),
    ),
)
_BUNDLES: Final = tuple(bytes.fromhex(case["data_hex"]) for case in _vectors("tiles.json")["bundles"])
_JSON: Final = (b'{"a":[1,-2,null,true,"\xc3\xa9\\n"],"b":{"c":9007199254740991}}',)


_GOOD: Final = case()
_NODE: Final = nodes(1)[0]
_CARRIED_CHALLENGES = encode_challenges([AuditOrder(audits.FEDERATION, audits.CHALLENGE)])
_CARRIED_ANSWERS = CarriedAnswers(
    (AuditReply(audits.ANSWER, ((b"x" * 32,),)),), (RefusedChallenge(audits.CHALLENGE.artifact, "none here"),)
).encode()
_RETENTION_RULES = b"""keep = ["a/b@v1"]
[[rule]]
name = "old"
repositories = ["lab/*"]
keep_versions = 3
keep_days = 90
"""
_MIRROR_RULES: Final = b'default = "skip"\n[[rule]]\nname = "a"\ndo = "copy"\nrepositories = ["a/*"]\nmax_bytes = 9\n'
_INCEPTION: Final = canonical(identity("Swiss AI", "CH").inception.to_json())
_FEDERATION: Final = found([_NODE], {"swiss-ai": identity("Swiss AI", "CH").id})
_RECORDS: Final = encode_records([PieceRecord(6, bytes(32)), PieceRecord(4, bytes(32))])
_ARTIFACT_POLICY: Final = _GOOD.policy
_PINNED_FEDERATION: Final = _GOOD.federation.encode()


_MODEL_SIGS: Final = _vectors("model-sig.json")["accepted"]
_ROOT: Final = Authority.root()
_ABOVE: Final = _ROOT.below()
_LEAF: Final = _ABOVE.leaf()
_ROOTS: Final = parse_roots(_ROOT.pem)


def _follow(data: bytes) -> Any:
    """A leaf with arbitrary content, under valid certificates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # a serial number that is not positive
        chain = CertificateChain.parse((data, certificate_der(_ABOVE.certificate)))
    assert chain.validity
    return chain.verify(_ROOTS, TrustedTime(posix(2026), "then"))


def _payload(line: bytes) -> bytes:
    return parse_entry(line).envelope.payload


def _of_file(read: Callable[[BinaryIO, int], Any]) -> Callable[[bytes], Any]:
    return lambda data: read(io.BytesIO(data), len(data))


def _judge(claim: bytes) -> Any:
    """`verify` raises nothing, whatever the content of one of the claims."""
    try:
        verify(Evidence(_GOOD.manifest, None, (*_GOOD.claims[:1], claim), _GOOD.proofs[-1:]), _ARTIFACT_POLICY)
    except ComityError as error:
        raise AssertionError("verify raised") from error
    return parse_entry(claim)


_OFFICER: Final = identity("Security officer", "ES")
_CHARTERS: Final = _vectors("charter-certificate.json")
_GENESIS: Final = Body.parse(_CHARTERS["genesis"].encode())
_CERTIFICATES: Final = _CHARTERS["accepted"][:1]
_NEXT: Final = Body.parse(_CERTIFICATES[0]["body"].encode())
_LIES: Final = _CHARTERS["lies"][:1]
_LIAR: Final = next(seat for seat in _GENESIS.members if seat.id == _LIES[0]["member"])


def _certify(data: bytes) -> Any:
    return certify(_GENESIS, _NEXT, data.split(b"\n"))


def _convict(data: bytes) -> Any:
    first, _, second = data.partition(b"\n")
    return check_equivocation(_LIES[0]["kind"], first, second, _LIAR.keys)


_ROTATED: Final = _vectors("rotation.json")
_INCEPTED: Final = KeyState.of_inception(check_inception(parse_entry(_ROTATED["inception"].encode())))
_ROTATIONS: Final = _encoded(*(case["line"] for case in (*_ROTATED["accepted"], *_ROTATED["refused"])))
_GROWTHS: Final = _encoded(*(case["data"] for case in _vectors("growth.json")["accepted"]))


def _rotate(data: bytes) -> Any:
    """No line makes a chain fail."""
    entry = parse_entry(data)
    assert len(follow(_INCEPTED, [entry, entry]).steps) <= 1
    return parse_rotation(entry)


_SUBMISSIONS: Final = tuple(
    AddCheckpoint(size, (bytes(32),) * size, SignedNote.parse(note)).encode() for size, note in enumerate(_NOTES)
)

_URLS: Final = SignedUrls(bytes(32), lambda: 1e9)
_REQUEST: Final = b"GET /blobs/a?b HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nConnection: close"


_NOTE: Final = SignedNote.parse(_NOTES[0])
_FAULT_PROOF: Final = FaultProof((_NOTE,), (ProvenRecord(b"a line", 1, (bytes(32),), 0),))

_APPROVED: Final = sign_content(
    Approved(
        _OFFICER.id,
        _GOOD.artifact,
        "hospital-bern",
        1_000,
        2_000,
        1_500,
        ApprovalConditions("a.txt", SideObject.of(b"a")),
    ),
    _OFFICER.signer,
)
_APPROVAL_ENDED: Final = sign_content(
    ApprovalEnded(_OFFICER.id, _GOOD.artifact, _APPROVED.statement_digest, 1_700, "a new version"), _OFFICER.signer
)


_VENDOR: Final = hardware.vendor()
_HARDWARE: Final = HardwareEvidence(
    (hardware.gpu(_VENDOR, bytes(32)), hardware.snp(_VENDOR, bytes(32)), hardware.tdx(_VENDOR, bytes(32)))
)
_PINS: Final = HardwarePins(roots=dict.fromkeys(KINDS, (_VENDOR.above[0].der,)))


_REVOCATIONS: Final = (
    hardware.revocation_list(_VENDOR),
    hardware.ocsp_response(
        _VENDOR, hardware.revocable(_HARDWARE.devices[0]), responder=hardware.ocsp_responder(_VENDOR)
    ),
)


def _appraise(data: bytes) -> Any:
    """An appraisal raises nothing, whatever the evidence."""
    evidence = HardwareEvidence.parse(data)
    try:
        appraise(evidence, bytes(32), _PINS, hardware.AT)
    except ComityError as error:
        raise AssertionError("appraise raised") from error
    return evidence


def _vendor_chain(data: bytes) -> Any:
    """A leaf with arbitrary content, under valid certificates. An appraisal of a device with it raises nothing."""
    for device in _HARDWARE.devices[:2]:
        changed = replace(device, certificates=(data, *device.certificates[1:]))
        appraise(HardwareEvidence((changed,)), bytes(32), _PINS, hardware.AT)
    return VendorChain.parse_der((data, _VENDOR.der)).check([_VENDOR.above[0].der], hardware.AT)


def _revocation(data: bytes) -> Any:
    """Revocation data of any issuer: they revoke nothing that their issuer did not issue."""
    parsed = RevocationData.parse(data)
    results = appraise(_HARDWARE, bytes(32), replace(_PINS, revocations=(data,)), hardware.AT)
    assert all(row.state != "fail" for result in results for row in result.findings if row.name == "revocation")
    return parsed


def _id_token(data: bytes) -> Any:
    """The claims of a token, and the person; claims are also read if the signature is invalid."""
    keys, text = parse_keys(_PROVIDER_KEYS), data.decode("utf-8", "replace")
    issuer = str(_ID_CLAIMS["iss"])
    claims = check_id_token(text, keys, issuer=issuer, client="c", nonce="n", access_token="", now=1_800_000_000)
    return read_person(claims, "groups")


def _inspect(data: bytes) -> Any:
    """An inspection raises nothing, whatever the file; a file with faults counts as refused here."""
    try:
        found = inspect(io.BytesIO(data), "config.json", len(data))
    except ComityError as error:
        raise AssertionError("inspect raised") from error
    if found.malformed or found.format in ("unknown", "text"):
        raise Malformed("no sound file")
    return found


_ENTRY: Final = FileEntry("a", 1, Digest("0" * 64))
_QUEUE = encode_queue([QueuedImport("hf:a/b@main", "https://a.example", ("c.example",), "waiting", 1, why="down")])
_PACK_BODY = b"PACK\0\0\0\2\0\0\0\2" + b"\x33" + zlib.compress(b"abc") + b"\x66\x0c" + zlib.compress(b"\3\4\x90\3\1d")
_PACK = _PACK_BODY + hashlib.sha1(_PACK_BODY, usedforsecurity=False).digest()
_PACK_ANSWER = b"000dpackfile\n%04x\x01%s0000" % (len(_PACK) + 5, _PACK)
_BRANCHES = b"003d" + b"1f" * 20 + b" refs/heads/main\n0000"
_IMAGE = (
    b'{"layers":[{"mediaType":"application/octet-stream","digest":"sha256:' + b"a" * 64 + b'","size":1,'
    b'"annotations":{"org.opencontainers.image.title":"a"}}]}'
)
_SCOPE_FILES = b'{"Data":{"Files":[{"Path":"a","Type":"blob","Size":1,"Sha256":"' + b"a" * 64 + b'"}]}}'
_LISTED_KEYS = (
    b"<L><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    b"<Contents><Key>a/b</Key></Contents></L>"
)
_OBSERVATIONS: Final = encode_observations(
    [
        Observation(_ENTRY, ListedFile("a", 1, "1" * 40, _ENTRY.sha256, "x"), "sha256", True),
        Observation(FileEntry("b", 1, _ENTRY.sha256), ListedFile("b", 1), "none", False),
    ]
)

_MEASURED: Final = MeasuredFigures(
    NAME, MeasuredRate(3, 2, 4, "MB/s"), MeasuredRate(30, 20, 40, "GFLOP/s bf16"), 79_000, "one node"
)
_PROVIDER_METADATA: Final = (
    b'{"issuer":"https://a.example","authorization_endpoint":"https://a.example/a","token_endpoint":"https://a.example/t",'
    b'"jwks_uri":"https://b.example/k","token_endpoint_auth_methods_supported":["client_secret_post"]}'
)
_PROVIDER_KEY: Final = ECKey.generate_key("P-256", {"kid": "one"})
_PROVIDER_KEYS: Final = json.dumps(KeySet([_PROVIDER_KEY]).as_dict(private=False)).encode()
_ID_CLAIMS: Final = {"iss": "https://a.example", "sub": "1", "aud": "c", "iat": 1_800_000_000, "exp": 1_800_000_300}
_ID_TOKEN: Final = jwt.encode(
    {"alg": "ES256", "kid": "one"}, {**_ID_CLAIMS, "nonce": "n", "name": "Ada", "groups": ["g"]}, _PROVIDER_KEY
)
_TOOL: Final = private_key()
_RESULTS: Final = EvaluationResults(
    EvaluationCriteria("s", "1", (Threshold("a", ">=", "0.5"), Threshold("b", "<", "-1")), 9, "0" * 32),
    ("0.75", "-2"),
    1,
)
_STANDARD: Final = tuple(payload(predicate, _GOOD.artifact) for predicate in PREDICATES)
_CARRIED: Final = (
    CarriedFile(
        "packs/000000", 3, Digest("0" * 64), (PackMember(Digest("1" * 64), 1), PackMember(Digest("2" * 64), 2))
    ),
    CarriedFile("blobs/" + "3" * 64, 9, Digest("3" * 64)),
)
_CARRIED_LOG: Final = CarriedLog(str(LogKeys.generate("fuzz.example/log").verifier), Frontier.empty(), Frontier.empty())
_BUNDLE_INDEX: Final = BundleIndex(
    "", "fuzz.example/log", (), Digest("4" * 64), 12, 6, ErasureCode(2, 3), (_CARRIED_LOG,), 0, 1, 1
)


def _contents(data: bytes) -> tuple[CarriedFile, ...]:
    return tuple(parse_contents(data.splitlines(keepends=True)))


def _read_in_pieces(data: bytes) -> Federation:
    """A federation file in small pieces: nearly every value crosses the end of a piece."""
    return Federation.read(data[at : at + 61] for at in range(0, len(data), 61))


def _packed(count: int) -> bytes:
    """A stored envelope with that many short signatures, whose lengths mutations then reach."""
    envelope = Envelope(PAYLOAD_TYPE, b"", tuple(EnvelopeSignature(Digest(f"{n:064x}"), b"s") for n in range(count)))
    return pack_line(envelope.encode())


def _of_kinds() -> Iterator[tuple[str, Target]]:
    """The reader of each kind of statements, by its predicate."""
    samples: dict[str, list[bytes]] = {predicate: [] for predicate in STATEMENT_KINDS}
    for said in statements():
        samples[Statement.parse(said).predicate].append(said)
    for predicate, payloads in samples.items():
        yield predicate, Target(read_statement, tuple(payloads))


PARSERS: Final[dict[str, Target]] = {
    **dict(_of_kinds()),
    "bundle-contents": Target(
        _contents,
        (b"".join(file.encode() for file in _CARRIED),),
        lambda files: b"".join(file.encode() for file in files),
    ),
    "bundle-index": Target(BundleIndex.parse, (_BUNDLE_INDEX.encode(),)),
    "bundle-proof": Target(parse_misbehaviour_proof, (encode_misbehaviour_proof("roots", "a/log", (b"a", b"b")),)),
    "add-checkpoint": Target(AddCheckpoint.parse, _SUBMISSIONS, AddCheckpoint.encode),
    "approval-file": Target(
        CarriedApprovals.parse, (_OFFICER.entry.line + b"\n" + _APPROVED.line + b"\n" + _APPROVAL_ENDED.line + b"\n",)
    ),
    "backup-manifest": Target(BackupManifest.parse, (_BACKUP.encode(),), BackupManifest.encode),
    "setting-lines": Target(
        of_toml(setting_lines), _encoded("[a]\nx = [\n1]\n", 'a.b = {c = 1}\n[d]\ne = """\nf"""\n')
    ),
    "canonical-json": Target(lambda data: parse_canonical(data, limit=1 << 20), _JSON, canonical),
    "certificate": Target(certificate_key, (_NODE.record.tls,)),
    "charter": Target(Body.parse, (_GOOD.federation.body.data,)),
    "charter-certificate": Target(_certify, tuple("\n".join(case["lines"]).encode() for case in _CERTIFICATES)),
    "charter-lie": Target(_convict, tuple("\n".join((lie["first"], lie["second"])).encode() for lie in _LIES)),
    "checkpoint": Target(of_text(Checkpoint.parse), _CHECKPOINTS, to_text(lambda checkpoint: checkpoint.text)),
    "claim": Target(_judge, (_GOOD.publication.line, _NODE.entry.line, _GOOD.claims[-1], *advisory(_GOOD))),
    "entry-bundle": Target(decode_entries, _BUNDLES, encode_entries),
    "envelope": Target(Envelope.parse, (_GOOD.publication.line,)),
    "federation": Target(Federation.parse, (_FEDERATION.encode(),)),
    "federation-in-pieces": Target(_read_in_pieces, (_FEDERATION.encode(),)),
    "growth": Target(ConsistencyProof.parse, _GROWTHS, ConsistencyProof.encode),
    "evaluation-criteria": Target(EvaluationCriteria.parse, (_RESULTS.criteria.encode(),), EvaluationCriteria.encode),
    "evaluation-results": Target(EvaluationResults.parse, (_RESULTS.encode(),), EvaluationResults.encode),
    "foreign-envelope": Target(
        ForeignEnvelope.parse, (encoded(envelope(_TOOL, _STANDARD[0])), encoded(bundle(_TOOL, _STANDARD[1])))
    ),
    "foreign-key": Target(AttestationKey.parse, (public_pem(_TOOL),)),
    "foreign-statement": Target(ForeignStatement.parse, _STANDARD),
    "file": Target(_inspect, (weights.safetensors({"a": b"A"}), weights.gguf({"a": b"A"}), pickle.dumps(print))),
    "gpu-list": Target(read_gpu_list, (hardware.gpu_list(_HARDWARE.devices[0]),)),
    "hardware-chain": Target(_vendor_chain, (_HARDWARE.devices[0].certificates[1],)),
    "hardware-evidence": Target(_appraise, (_HARDWARE.encode(),), HardwareEvidence.encode),
    "hardware-gpu": Target(GpuReport.parse, (_HARDWARE.devices[0].report,)),
    "hardware-snp": Target(SnpReport.parse, (_HARDWARE.devices[1].report,)),
    "hardware-tdx": Target(TdxQuote.parse, (_HARDWARE.devices[2].report,)),
    "http-request": Target(parse_request, (_REQUEST,)),
    "feeds": Target(FeedMemory.parse, (FeedMemory(5, {Digest("a" * 64): 1_800_000_000}).encode(),)),
    "unread": Target(UnreadStatements.parse, (UnreadStatements(("more",), frozenset({Digest("a" * 64)})).encode(),)),
    "token-uses": Target(parse_uses, (b'{"schema":"comity/token-uses/v1","uses":{"3f9c01aa":1800000000}}',)),
    "webhooks": Target(
        parse_hooks,
        _encoded('[[webhook]]\nname = "a"\nurl = "https://a.example/b"\nsecret_file = "s"\nevents = ["alert"]\n'),
    ),
    "inventory": Target(Inventory.parse, (an_inventory().encode(),)),
    "webhook-secret": Target(parse_secret, (b"whsec_" + b"QUFB" * 8 + b"\n",)),
    "audit-log": Target(
        parse_record, (AuditLog.record_after(EMPTY, 1_800_000_000, "token.new", "ana", "ci", "").line(),)
    ),
    "audit-head": Target(parse_head, (f"{EMPTY}\n".encode(),)),
    "import-queue": Target(parse_queue, (_QUEUE,)),
    "audit-copies": Target(parse_positions, (b'{"schema":"comity/audit-copies/v1","sent":{"syslog:/dev/log":9}}',)),
    "console-form": Target(lambda data: parse_form(data, ("form", "id")), (b"form=k3f9&id=%C3%A9+b",)),
    "oidc-metadata": Target(lambda data: ProviderMetadata.parse(data, "https://a.example"), (_PROVIDER_METADATA,)),
    "oidc-keys": Target(parse_keys, (_PROVIDER_KEYS,)),
    "oidc-tokens": Target(parse_tokens, (b'{"access_token":"a","id_token":"a.b.c","expires_in":3600}',)),
    "oidc-token": Target(_id_token, (_ID_TOKEN.encode(),)),
    "inception-record": Target(lambda data: Inception.from_json(parse_json(data, limit=1 << 16)), (_INCEPTION,)),
    "cosignatures": Target(parse_signatures, tuple(encode_signatures(SignedNote.parse(n).signatures) for n in _NOTES)),
    "manifest": Target(Manifest.parse, (_GOOD.manifest,), Manifest.encode),
    "measured": Target(MeasuredFigures.parse, (_MEASURED.encode(),)),
    "mirror-info": Target(MirrorInfo.parse, (MirrorInfo(600, 256).encode(), b"0\n0\nAAA=\n"), MirrorInfo.encode),
    "model-key": Target(ModelKey.parse, _encoded(*(case["public_key"] for case in _MODEL_SIGS))),
    "model-sig": Target(Bundle.parse, _encoded(*(case["bundle"] for case in _MODEL_SIGS))),
    "model-sig-chain": Target(_follow, (certificate_der(_LEAF.certificate),)),
    "model-sig-list": Target(ModelStatement.parse, _encoded(*(case["payload"] for case in _MODEL_SIGS))),
    "name": Target(of_text(Name.parse), _encoded("swiss-ai/apertus-8b@v1", "a/b@1.0_x"), to_text(str)),
    "note": Target(SignedNote.parse, _NOTES, SignedNote.encode),
    "note-key": Target(of_text(VerifierKey.parse), _KEYS, to_text(str)),
    "note-signature": Target(of_text(NoteSignature.parse), _LINES, to_text(str)),
    "offer-document": Target(Offer.parse, (lending.an_offer().encode(),), Offer.encode),
    "offer-fault-proof": Target(FaultProof.parse, (_FAULT_PROOF.encode(),), FaultProof.encode),
    "piece-index": Target(PieceIndex.parse, (_GOOD.pieces,), PieceIndex.encode),
    "piece-records": Target(lambda data: parse_records(data, size=10), (_RECORDS,), encode_records),
    "observations": Target(parse_observations, (_OBSERVATIONS,), encode_observations),
    "mirror rules": Target(parse_mirror_rules, (_MIRROR_RULES,)),
    "audit challenges": Target(parse_challenges, (_CARRIED_CHALLENGES,), encode_challenges),
    "audit answers by file": Target(CarriedAnswers.parse, (_CARRIED_ANSWERS,), CarriedAnswers.encode),
    "retention rules": Target(parse_retention_rules, (_RETENTION_RULES,)),
    "policy": Target(lambda data: parse_policy(data, lambda _: _PINNED_FEDERATION), (_GOOD.policy_text.encode(),)),
    "gateway-url": Target(
        of_text(GatewayUrl.parse), _encoded("https://a.example:8443/hub", "http://[::1]"), to_text(str)
    ),
    "range-url": Target(of_text(RangeUrl.parse), _encoded("https://a.example/b?c", "https://[2001:db8::1]:7445/b")),
    "reference": Target(of_text(Reference.parse), _encoded("a/b", "a/b@v1", f"comity://sha256:{_GOOD.artifact}")),
    "drill-report": Target(DrillReport.parse, (a_drill_report().encode(),), DrillReport.encode),
    "report": Target(VerdictReport.parse, (VerdictReport.of(_GOOD.verdict(), "1.0").encode(),), VerdictReport.encode),
    "revocation": Target(_revocation, _REVOCATIONS),
    "rotation": Target(_rotate, _ROTATIONS),
    "signed-url": Target(of_text(_URLS.check), _encoded(_URLS.sign(_GOOD.artifact, seconds=9, name="a", peer="b"))),
    "statement": Target(Statement.parse, (_payload(_GOOD.publication.line),)),
    "stored-line": Target(unpack_line, (pack_line(_GOOD.publication.line), *(_packed(count) for count in (1, 2, 24)))),
    "tensors-gguf": Target(_of_file(read_gguf), (weights.gguf({"a": bytes(16), "b": bytes(64)}, tokens=("x", "yz")),)),
    "tensors-safetensors": Target(
        _of_file(read_safetensors), (weights.safetensors({"a": bytes(16), "b": bytes(9)}, {"f": "pt"}),)
    ),
    "tile-path": Target(of_text(parse_tile_path), _TILES, to_text(lambda tile: tile.path)),
    "tlog-policy": Target(of_text(TlogPolicy.parse), _POLICIES),
    "tlog-proof": Target(TlogProof.parse, _PROOFS, TlogProof.encode),
    "upstream": Target(of_text(UpstreamRequest.parse), _encoded("hf:org/name", "hf:org/name@refs/pr/1", "s3:a/b")),
    "upstream-checksums": Target(parse_checksums, (b"a" * 64 + b"  sub/file\n# text\r\n" + b"B" * 64 + b" *other\n",)),
    "upstream-files": Target(parse_files, (_SCOPE_FILES,)),
    "upstream-pack": Target(lambda data: PackReader(data, 1 << 20).objects(), (_PACK,)),
    "upstream-pack-answer": Target(parse_pack_answer, (_PACK_ANSWER,)),
    "upstream-branches": Target(parse_refs, (_BRANCHES,)),
    "upstream-image": Target(parse_layers, (_IMAGE,)),
    "upstream-token": Target(parse_token, (b'{"token": "eyJh.b-_~+/==", "expires_in": 300}', b'{"access_token": "a"}')),
    "upstream-token-demand": Target(
        of_text(parse_demand),
        _encoded('Bearer realm="https://auth.example/token",service="registry"', 'Basic realm="a"'),
    ),
    "upstream-pax": Target(parse_pax, (b"24 path=folder/file.bin\n13 size=1024\n",)),
    "upstream-keys": Target(parse_page, (_LISTED_KEYS,)),
    "upstream-endpoint": Target(of_text(check_endpoint), _encoded("https://hub.example:8443/prefix"), to_text(str)),
}
