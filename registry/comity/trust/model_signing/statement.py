"""The payload of a `model.sig`: an in-toto statement that lists files, or shards of files, with their digests.

    {"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"tiny","digest":{"sha256":"<root>"}}],
     "predicateType":"https://model_signing/signature/v1.0",
     "predicate":{"resources":[{"name":"config.json","algorithm":"sha256","digest":"<hex>"},…],
                  "serialization":{"method":"files","hash_type":"sha256","allow_symlinks":false,"ignore_paths":[…]}}}

The root is the SHA-256 over the listed digests and nothing else: names are not in it, so it names no artifact. Nothing
that the signer asks to ignore is ignored here. Source: OpenSSF Model Signing, v1.0, with its predicate schema.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.encoding import Json, canonical, parse_json
from comity.trust.errors import Malformed
from comity.trust.evidence import MAX_MODEL_SIG
from comity.trust.fields import CONTROLS, Fields
from comity.trust.manifest import MAX_FILES

TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
BEFORE_V1: Final = "https://model_signing/Digests/v0.1"
SIZES: Final = {"sha256": 32, "blake3": 32, "blake2b": 64}
"""Bytes of a digest, by the names of the algorithms that the format knows."""
MAX_NAME: Final = 1200
MAX_IGNORED: Final = 10_000

_HEX = re.compile(r"[0-9a-f]+\Z")
_SHARDED = re.compile(r"(?P<algorithm>[a-z0-9]+)-sharded-[0-9]{1,16}\Z")
_SHARD = re.compile(r"(?P<path>.+):(?P<start>0|[1-9][0-9]{0,15}):(?P<end>0|[1-9][0-9]{0,15})\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Resource:
    """A file, by the hex digest of its content; or its bytes from `start` to before `end`, where it is a shard."""

    path: str
    digest: str
    start: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.path == ".":
            raise Malformed("model.sig is malformed", why="it signs a file without a folder")
        if not _relative(self.path):
            raise Malformed("model.sig is malformed", why=f"{self.path[:120]!r} is no path below the model's folder")
        if any(unicodedata.category(character) in CONTROLS for character in self.path):
            raise Malformed("model.sig is malformed", why=f"{self.path[:120]!r} holds a control character")
        if self.end is not None and not self.start < self.end:
            raise Malformed("model.sig is malformed", why=f"a shard of {self.path[:120]!r} is empty")

    @property
    def name(self) -> str:
        return self.path if self.end is None else f"{self.path}:{self.start}:{self.end}"


@dataclass(frozen=True, slots=True)
class ModelStatement:
    """What was signed. `model` is what the signer called the folder; `shard_size` is None where whole files are listed.
    `ignored` are the paths that the signer asks verifiers to pass over."""

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
        if kind == BEFORE_V1:
            raise fields.error("it was made before the format's version 1.0, which guards less; sign the model again")
        if kind != PREDICATE:
            raise fields.error(f"predicate type {kind[:80]!r} is not {PREDICATE}")
        model, root = _subject(fields)
        statement = _predicate(model, fields.object("predicate"))
        fields.done()
        if statement.root != root:
            raise fields.error("its root digest is not that of the files it lists")
        return statement

    def encode(self) -> bytes:
        """As RFC 8785 JSON, without what the format's schema does not know."""
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
    algorithm = serialization.choice("hash_type", tuple(SIZES))
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
    """Further members of a resource are allowed by the format, and say nothing here."""
    fields = Fields(item, "model.sig resource")
    name, said, digest = fields.text("name", most=MAX_NAME), fields.text("algorithm"), fields.text("digest")
    match = _SHARDED.match(said) if sharded else None
    if (match["algorithm"] if match else said) != algorithm:
        raise fields.error(f"algorithm {said[:40]!r} is not the list's, {algorithm}")
    if len(digest) != 2 * SIZES[algorithm] or not _HEX.match(digest):
        raise fields.error(f"a {algorithm} digest has {2 * SIZES[algorithm]} lower-case hex digits")
    if not sharded:
        return Resource(name, digest)
    shard = _SHARD.match(name)
    if shard is None:
        raise fields.error(f"{name[:80]!r} does not say which part of a file it is")
    return Resource(shard["path"], digest, int(shard["start"]), int(shard["end"]))


def _relative(path: str) -> bool:
    return "\\" not in path and not any(segment in ("", ".", "..") for segment in path.split("/"))
