"""The format of a `model.sig`: parsing, comparison with files, and signing.

The file is a Sigstore bundle, v0.3, with exactly one DSSE signature; a second one is refused, because readers that
check only the first would accept it unchecked. The key or certificate in it is a claim until `judging` has checked it.

    {"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial":{"publicKey":{"hint":"<hex>"},"tlogEntries":[]},
     "dsseEnvelope":{"payload":"<base64>","payloadType":"application/vnd.in-toto+json",
                     "signatures":[{"keyid":"","sig":"<base64>"}]}}

The payload is an in-toto statement that lists files, or shards of files, with their digests:

    {"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"tiny","digest":{"sha256":"<root>"}}],
     "predicateType":"https://model_signing/signature/v1.0",
     "predicate":{"resources":[{"name":"config.json","algorithm":"sha256","digest":"<hex>"},…],
                  "serialization":{"method":"files","hash_type":"sha256","allow_symlinks":false,"ignore_paths":[…]}}}

The root is the SHA-256 over the listed digests without names, so it does not identify an artifact. Every file counts;
the signer's `ignore_paths` are not ignored. Whole files by SHA-256, and shards that are a whole file, are compared.
Files listed by another algorithm or in several shards are reported as *unchecked*.

A `model.sig` written here has whole files, SHA-256 and one ECDSA signature, so that other tools accept it. The
reference tool ignores the names in `EXCLUDED_NAMES` at the root of a folder and rejects a list that has them; they are
therefore not signed, and strict readers report them as unsigned.

Keys are on P-256, P-384 or P-521, each with the hash of its size. The SHA-256 of the PEM text (SubjectPublicKeyInfo, as
OpenSSL writes it) is the hint that identifies the key. Sources: the Sigstore bundle's protobuf definition;
OpenSSF Model Signing, v1.0, with its predicate schema.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterable, Set
from dataclasses import field
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.artifact import MAX_FILES, RESERVED, FileEntry
from comity.trust.encoding import CONTROLS, Digest, Fields, Json, b64decode, b64encode, canonical, parse_json, sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.evidence import MAX_MODEL_SIG, MODEL_SIG, FoundFile
from comity.trust.frozen import frozen
from comity.trust.keys import PrivateKey, PublicKey, ecdsa_der
from comity.trust.statement import PAYLOAD_TYPE, pae

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_CERTIFICATES: Final = 10
MAX_CERTIFICATE: Final = 64 * 1024
"""Maximum bytes of one certificate, and of an included public key."""
MAX_LOG_ENTRIES: Final = 32

_MAX_TIME: Final = 253_402_300_799  # the end of year 9999, the latest time in a certificate
_HASHES: Final[dict[str, tuple[str, hashes.HashAlgorithm]]] = {
    "secp256r1": ("ecdsa-p256", hashes.SHA256()),
    "secp384r1": ("ecdsa-p384", hashes.SHA384()),
    "secp521r1": ("ecdsa-p521", hashes.SHA512()),
}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {"ecdsa-p256": ec.SECP256R1(), "ecdsa-p384": ec.SECP384R1()}
_MATERIALS: Final = ("publicKey", "x509CertificateChain", "certificate")


@frozen
class ModelKey:
    """A public key that may sign models. `hint` is the SHA-256 of its PEM text, by which a `model.sig` names the
    key."""

    pem: bytes
    algorithm: str
    hint: Digest = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", sha256(self.pem))

    @classmethod
    def parse(cls, text: bytes) -> ModelKey:
        """Read a public key in PEM, with any line length. Raises Malformed (MODEL-KEY) for other keys."""
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed(
                "not a public key", why="expected a SubjectPublicKeyInfo in PEM", code="MODEL-KEY"
            ) from error
        return cls.of(key)

    @classmethod
    def of(cls, key: object) -> ModelKey:
        """Raises Malformed (MODEL-KEY) if `key` is not a public key on one of the three curves."""
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            why = "models are signed with keys on P-256, P-384 or P-521"
            raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(pem, _HASHES[key.curve.name][0])

    @classmethod
    def of_raw(cls, key: PublicKey) -> ModelKey:
        """Convert a Comity public key. Raises Malformed (MODEL-KEY) unless it is on P-256 or P-384."""
        if key.alg not in _CURVES:
            why = f"models are signed with ECDSA on P-256 or P-384, and this key is {key.alg}"
            raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
        return cls.of(ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[key.alg], key.raw))

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises Untrusted (MODEL-SIG) unless `signature` is a signature of `message` by this key."""
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        key = load_pem_public_key(self.pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)  # no other is made into a ModelKey
        try:
            key.verify(signature, message, ec.ECDSA(_HASHES[key.curve.name][1]))
        except InvalidSignature as error:
            why = f"it is not a signature of this list of files by {self.algorithm} key {self.hint[:16]}"
            raise Untrusted("bad signature", why=why, code="MODEL-SIG") from error


@frozen
class TrustedTime:
    """A time (POSIX seconds) and its source, as text at the end of a sentence, such as `as_of of the policy`."""

    at: int
    source: str

    def __str__(self) -> str:
        return f"{self.date:%Y-%m-%dT%H:%M:%SZ}, {self.source}"

    @property
    def date(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(min(self.at, _MAX_TIME), datetime.UTC)


@frozen
class KeyMaterial:
    """Signed with a plain key. `hint` is the hex SHA-256 of its PEM text; `pem`, which older signers wrote instead, is
    that text. Both may be absent, and both are untrusted."""

    hint: str = ""
    pem: bytes = b""


@frozen
class ChainMaterial:
    """Signed with the key of the first certificate (DER); the others are intermediates."""

    certificates: tuple[bytes, ...]


@frozen
class KeylessMaterial:
    """Signed with a short-lived certificate (DER) of a Sigstore authority; its log has `entries` entries for it."""

    certificate: bytes
    entries: int


Material: TypeAlias = KeyMaterial | ChainMaterial | KeylessMaterial


@frozen
class Bundle:
    """The claimed signing key or certificate, the signed payload, and the signature."""

    material: Material
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The signed bytes. The faulty encoding of model_signing 0.2 is not supported."""
        return pae(PAYLOAD_TYPE, self.payload)

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Parse a bundle of at most 64 MiB. Raises Malformed."""
        fields = Fields(parse_json(data, limit=MAX_MODEL_SIG, what="model.sig"), "model.sig")
        fields.constant("mediaType", MEDIA_TYPE)
        if fields.has("messageSignature"):
            raise fields.error("it signs a message, not a list of files")
        material = _material(fields.object("verificationMaterial"))
        envelope = fields.object("dsseEnvelope")
        fields.done()
        payload = b64decode(envelope.take("payload"))
        envelope.constant("payloadType", PAYLOAD_TYPE)
        signatures = envelope.items("signatures", most=MAX_LOG_ENTRIES)
        envelope.done()
        if len(signatures) != 1:
            raise envelope.error(f"{len(signatures)} signatures; a bundle has exactly one")
        return cls(material, payload, _signature(signatures[0]))

    def encode(self) -> bytes:
        """Return one JSON line and a line feed. Raises Malformed for a keyless bundle: its log entries are not
        stored."""
        document: dict[str, Json] = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {**_to_json(self.material), "tlogEntries": []},
            "dsseEnvelope": {
                "payload": b64encode(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": b64encode(self.signature), "keyid": ""}],
            },
        }
        return canonical(document) + b"\n"


def _material(fields: Fields) -> Material:
    """Parse the verification material, which has exactly one of `_MATERIALS`."""
    kinds = [kind for kind in _MATERIALS if fields.has(kind)]
    if len(kinds) != 1:
        raise fields.error(f"expected exactly one of {', '.join(_MATERIALS)}")
    entries = len(fields.items("tlogEntries", most=MAX_LOG_ENTRIES)) if fields.has("tlogEntries") else 0
    if fields.has("timestampVerificationData"):
        fields.object("timestampVerificationData")  # used only by a KeylessVerifier
    material = _material_of(kinds[0], fields.object(kinds[0]), entries)
    fields.done()
    return material


def _material_of(kind: str, fields: Fields, entries: int) -> Material:
    if kind == "publicKey":
        return _key(fields)
    if kind == "certificate":
        material = KeylessMaterial(_raw_bytes(fields), entries)
    else:
        items = fields.items("certificates", least=1, most=MAX_CERTIFICATES)
        fields.done()
        return ChainMaterial(tuple(_raw_bytes(Fields(item, "model.sig certificate")) for item in items))
    fields.done()
    return material


def _key(fields: Fields) -> KeyMaterial:
    hint = _optional_text(fields, "hint")
    pem = _raw_bytes(fields) if fields.has("rawBytes") else b""
    if fields.has("keyDetails"):
        fields.text("keyDetails", most=100)
    fields.done()
    return KeyMaterial(hint, pem)


def _raw_bytes(fields: Fields) -> bytes:
    raw = b64decode(fields.take("rawBytes"))
    if not 1 <= len(raw) <= MAX_CERTIFICATE:
        raise fields.error(f"a certificate or key has 1 to {MAX_CERTIFICATE} bytes")
    return raw


def _signature(item: Json) -> bytes:
    fields = Fields(item, "model.sig signature")
    signature = b64decode(fields.take("sig"))
    _optional_text(fields, "keyid")  # not used
    fields.done()
    return signature


def _optional_text(fields: Fields, name: str) -> str:
    """Writers omit this member, or write null or an empty string."""
    value = fields.take(name) if fields.has(name) else None
    if value is not None and not (isinstance(value, str) and len(value) <= 256):
        raise fields.error(f"member {name!r} must be a string of at most 256 characters")
    return value or ""


def _to_json(material: Material) -> dict[str, Json]:
    if isinstance(material, ChainMaterial):
        return {"x509CertificateChain": {"certificates": [{"rawBytes": b64encode(c)} for c in material.certificates]}}
    if isinstance(material, KeylessMaterial):
        raise Malformed("a keyless bundle cannot be written", why="its log entries are not stored")
    key: dict[str, Json] = {"hint": material.hint} if material.hint else {}
    return {"publicKey": key | ({"rawBytes": b64encode(material.pem)} if material.pem else {})}


TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
PREDICATE_BEFORE_V1: Final = "https://model_signing/Digests/v0.1"
DIGEST_SIZES: Final = {"sha256": 32, "blake3": 32, "blake2b": 64}
"""Digest size in bytes, by algorithm name of the format."""
MAX_NAME: Final = 1200
MAX_IGNORED: Final = 10_000

_HEX = re.compile(r"[0-9a-f]+\Z")
_SHARDED = re.compile(r"(?P<algorithm>[a-z0-9]+)-sharded-[0-9]{1,16}\Z")
_SHARD = re.compile(r"(?P<path>.+):(?P<start>0|[1-9][0-9]{0,15}):(?P<end>0|[1-9][0-9]{0,15})\Z", re.DOTALL)


@frozen
class Resource:
    """A file with the hex digest of its content, or a shard: its bytes from `start` up to, without, `end`."""

    path: str
    digest: str
    start: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.path == ".":
            raise Malformed("model.sig is malformed", why="it signs a file without a folder")
        if not _is_relative(self.path):
            why = f"{self.path[:120]!r} is not a path inside the model's folder"
            raise Malformed("model.sig is malformed", why=why)
        if any(unicodedata.category(character) in CONTROLS for character in self.path):
            raise Malformed("model.sig is malformed", why=f"{self.path[:120]!r} contains a control character")
        if self.end is not None and not self.start < self.end:
            raise Malformed("model.sig is malformed", why=f"a shard of {self.path[:120]!r} is empty")

    @property
    def name(self) -> str:
        return self.path if self.end is None else f"{self.path}:{self.start}:{self.end}"


@frozen
class ModelStatement:
    """The signed list. `model` is the signer's name for the folder; `shard_size` is None if whole files are listed.
    `ignored` are the paths that the signer asks verifiers to ignore."""

    model: str
    resources: tuple[Resource, ...]
    algorithm: str = "sha256"
    allow_symlinks: bool = False
    ignored: tuple[str, ...] = ()
    shard_size: int | None = None

    def __post_init__(self) -> None:
        if len({resource.name for resource in self.resources}) != len(self.resources):
            raise Malformed("model.sig is malformed", why="a name is listed twice")

    @property
    def root(self) -> Digest:
        return sha256(b"".join(bytes.fromhex(resource.digest) for resource in self.resources))

    @classmethod
    def parse(cls, payload: bytes) -> ModelStatement:
        """Parse a payload of at most 64 MiB and 100,000 resources. Raises Malformed."""
        document = parse_json(payload, limit=MAX_MODEL_SIG, what="model.sig payload", whole_fractions=True)
        fields = Fields(document, "model.sig payload")
        fields.constant("_type", TYPE)
        kind = fields.text("predicateType")
        if kind == PREDICATE_BEFORE_V1:
            raise fields.error(
                "it was made before version 1.0 of the format, which protects less; sign the model again"
            )
        if kind != PREDICATE:
            raise fields.error(f"predicate type {kind[:80]!r} is not {PREDICATE}")
        model, root = _subject(fields)
        statement = _predicate(model, fields.object("predicate"))
        fields.done()
        if statement.root != root:
            raise fields.error("the root digest does not match the listed files")
        return statement

    def encode(self) -> bytes:
        """Encode as RFC 8785 JSON, with members of the format's schema only."""
        sharded = self.shard_size is not None
        algorithm = f"{self.algorithm}-sharded-{self.shard_size}" if sharded else self.algorithm
        serialization: dict[str, Json] = {
            "method": "shards" if sharded else "files",
            "hash_type": self.algorithm,
            "allow_symlinks": self.allow_symlinks,
            "ignore_paths": list(self.ignored),
        }
        if self.shard_size is not None:
            serialization["shard_size"] = self.shard_size
        resources: list[Json] = [
            {"name": resource.name, "algorithm": algorithm, "digest": resource.digest} for resource in self.resources
        ]
        return canonical(
            {
                "_type": TYPE,
                "subject": [{"name": self.model, "digest": {"sha256": self.root}}],
                "predicateType": PREDICATE,
                "predicate": {"serialization": serialization, "resources": resources},
            }
        )


def _subject(fields: Fields) -> tuple[str, Digest]:
    item = Fields(fields.items("subject", least=1, most=1)[0], "model.sig subject")
    model, digest = item.text("name", most=MAX_NAME), item.object("digest")
    root = digest.digest("sha256")
    digest.done()
    item.done()
    return model, root


def _predicate(model: str, predicate: Fields) -> ModelStatement:
    serialization, items = predicate.object("serialization"), predicate.items("resources", most=MAX_FILES)
    predicate.done()
    method = serialization.choice("method", ("files", "shards"))
    algorithm = serialization.choice("hash_type", tuple(DIGEST_SIZES))
    symlinks = serialization.take("allow_symlinks") if serialization.has("allow_symlinks") else False
    if not isinstance(symlinks, bool):
        raise serialization.error("member 'allow_symlinks' must be true or false")
    ignored = serialization.items("ignore_paths", most=MAX_IGNORED) if serialization.has("ignore_paths") else ()
    shard_size = serialization.integer("shard_size", least=1) if method == "shards" else None
    serialization.done()
    paths = tuple(path for path in ignored if isinstance(path, str) and len(path) <= MAX_NAME)
    if len(paths) != len(ignored):
        raise serialization.error(f"member 'ignore_paths' must be strings of at most {MAX_NAME} characters")
    resources = tuple(_resource(item, algorithm, sharded=shard_size is not None) for item in items)
    return ModelStatement(model, resources, algorithm, symlinks, paths, shard_size)


def _resource(item: Json, algorithm: str, *, sharded: bool) -> Resource:
    """Parse a resource. The format allows further members; they are ignored."""
    fields = Fields(item, "model.sig resource")
    name, listed, digest = fields.text("name", most=MAX_NAME), fields.text("algorithm"), fields.text("digest")
    match = _SHARDED.match(listed) if sharded else None
    if (match["algorithm"] if match else listed) != algorithm:
        raise fields.error(f"algorithm {listed[:40]!r} is not the algorithm of the list, {algorithm}")
    if len(digest) != 2 * DIGEST_SIZES[algorithm] or not _HEX.match(digest):
        raise fields.error(f"a {algorithm} digest has {2 * DIGEST_SIZES[algorithm]} lower-case hex digits")
    if not sharded:
        return Resource(name, digest)
    shard = _SHARD.match(name)
    if shard is None:
        raise fields.error(f"{name[:80]!r} does not name a part of a file")
    return Resource(shard["path"], digest, int(shard["start"]), int(shard["end"]))


def _is_relative(path: str) -> bool:
    return "\\" not in path and not any(segment in ("", ".", "..") for segment in path.split("/"))


_IGNORED_NOTE = "; its signer asks verifiers to ignore it"


@frozen
class Coverage:
    """The result of comparing files with the signed list. Each text begins with a path. `right` is the number of files
    that match; `tolerated` are unsigned files that the policy allows."""

    right: int
    wrong: tuple[str, ...]
    missing: tuple[str, ...]
    unsigned: tuple[str, ...]
    tolerated: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def false(self) -> tuple[str, ...]:
        """Errors that are impossible in the folder that the signer signed."""
        return self.wrong + self.unsigned


def compare_files(statement: ModelStatement, files: Iterable[FoundFile], allowed: Iterable[str] = ()) -> Coverage:
    """Compare the files of a folder with the signed list.

    Args:
        files: all files in the folder. The signature file itself is ignored.
        allowed: paths and folders whose files may be unsigned.
    """
    found = {file.path: file for file in files if file.path != MODEL_SIG}
    listed: dict[str, list[Resource]] = {}
    for resource in statement.resources:
        listed.setdefault(resource.path, []).append(resource)
    states = {path: _compare(parts, found[path], statement) for path, parts in listed.items() if path in found}
    unlisted = [path for path in found if path not in listed]
    allowed_paths, ignored = _without_slash(allowed), _without_slash(statement.ignored)
    tolerated = {path for path in unlisted if _within(path, allowed_paths)}
    return Coverage(
        right=sum(1 for wrong, unchecked in states.values() if not wrong and not unchecked),
        wrong=tuple(f"{path}: {wrong}" for path, (wrong, _) in states.items() if wrong),
        missing=tuple(f"{path}: signed, and not here" for path in listed if path not in found),
        unsigned=tuple(
            f"{path}: not signed{_IGNORED_NOTE if _within(path, ignored) else ''}"
            for path in unlisted
            if path not in tolerated
        ),
        tolerated=tuple(f"{path}: not signed, which the policy allows" for path in unlisted if path in tolerated),
        unchecked=tuple(f"{path}: {why}" for path, (_, why) in states.items() if why),
    )


def _compare(parts: list[Resource], found: FoundFile, statement: ModelStatement) -> tuple[str, str]:
    """Return (error, why it could not be checked); both are empty if the file is as signed."""
    if found.kind != "file":
        return ("a link out of the folder" if found.kind == "link" else "not a regular file"), ""
    if (wrong := _shard_error(parts, found.size)) is not None:
        return wrong, ""
    if statement.algorithm != "sha256":
        return "", f"signed by {statement.algorithm}, which is not computed here"
    if len(parts) > 1:
        return "", f"signed in {len(parts)} parts, which are not computed here"
    return ("its bytes are not the signed ones" if parts[0].digest != found.sha256 else ""), ""


def _shard_error(parts: list[Resource], size: int) -> str | None:
    """Return the error if the shards do not cover the file exactly once."""
    if parts[0].end is None:
        return None
    at = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start != at or part.end is None:
            return "its signed parts do not cover the file exactly once"
        at = part.end
    return None if at == size else f"{size} bytes instead of {at}"


def _within(path: str, folders: Set[str]) -> bool:
    """Whether `path` or one of its folders is in `folders`. The time does not depend on the number of `folders`."""
    parts = path.split("/")
    return any("/".join(parts[:count]) in folders for count in range(1, len(parts) + 1))


def _without_slash(folders: Iterable[str]) -> frozenset[str]:
    return frozenset(folder.rstrip("/") for folder in folders)


EXCLUDED_NAMES: Final = (".git", ".gitattributes", ".github", ".gitignore")


def is_excluded(path: str) -> bool:
    """Whether a `model.sig` written here does not list this file."""
    return path == MODEL_SIG or path.partition("/")[0] in EXCLUDED_NAMES


def statement_of_files(model: str, files: Iterable[FileEntry]) -> ModelStatement:
    """Return the statement to sign for a folder named `model`. Raises Malformed (EMPTY) if there is no file to sign."""
    resources = [Resource(file.path, file.sha256) for file in files if not is_excluded(file.path)]
    if not resources:
        raise Malformed("nothing to sign", why="there is no file that a model.sig can list", code="EMPTY")
    ignored = sorted({*EXCLUDED_NAMES, *RESERVED, MODEL_SIG})
    return ModelStatement(model, tuple(sorted(resources, key=lambda resource: resource.path)), ignored=tuple(ignored))


def sign_model(statement: ModelStatement, key: PrivateKey) -> bytes:
    """Return the bytes of the `model.sig` (deterministic). Raises Malformed unless the key is on P-256 or P-384."""
    public = ModelKey.of_raw(key.public)
    unsigned = Bundle(KeyMaterial(public.hint), statement.encode(), b"")
    return Bundle(unsigned.material, unsigned.payload, ecdsa_der(key.public.alg, key.sign(unsigned.signed))).encode()


def signed_by(data: bytes, key: ModelKey) -> bool:
    """Whether `data` is a `model.sig` signed by `key`; the files are not compared."""
    try:
        bundle = Bundle.parse(data)
        key.verify(bundle.signature, bundle.signed)
    except ComityError:
        return False
    return True
