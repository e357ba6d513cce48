"""A run-kit: an artifact that runs, described by the file `kit.json` in its root.

    kit.json            this description: RFC 8785 JSON
    wheels/*.whl        every Python distribution of the engine, for each Python that the kit names
    requirements.lock   the same with their hashes, as pip takes them
    engine/…            the engine's own files: a program that serves, configuration
    weights/…           the weights
    image/…             an OCI image layout
    licences/…          the texts of the licences, a folder for each distribution
    bom.cdx.json        a CycloneDX bill of all parts
    selftest.json       requests with expected answers (`comity.rules.kits.cases`)
    samples.json        requests of an evaluation, in the same form

The description names every other file with its digest, so who has one digest, that of the artifact, has all. Names,
versions and licences in it are claims of the kit's publisher. Pure. Source: docs/kits.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from comity.trust.artifact import MAX_PATH_BYTES, FileEntry, Manifest, check_path
from comity.trust.codec import JsonItems, JsonMap, JsonNumber, JsonObject, JsonRead, JsonText, JsonWord
from comity.trust.encoding import Digest, bare_digest, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

KIT_FILE: Final = "kit.json"
KIT_SCHEMA: Final = "comity/kit/v1"
LOCK_FILE: Final = "requirements.lock"
SELFTEST_FILE: Final = "selftest.json"
SAMPLES_FILE: Final = "samples.json"
BOM_FILE: Final = "bom.cdx.json"
MAX_KIT: Final = 8 * 1024 * 1024
MAX_PARTS: Final = 10_000
MAX_NAME: Final = 64
MAX_TEXT: Final = 200
MAX_PYTHONS: Final = 16
MAX_ARGUMENTS: Final = 64
MAX_VARIABLES: Final = 64
MAX_WEIGHTS: Final = 1_000
MAX_READY_SECONDS: Final = 3_600
MAX_ACCELERATORS: Final = 1_024

SERVICES: Final = ("chat", "embeddings", "other")
"""What is served: the first two have the routes of OpenAI's API."""
SYSTEMS: Final = ("linux", "any")
ARCHITECTURES: Final = ("x86_64", "aarch64", "any")
WHEEL, LOCK, ENGINE, WEIGHTS, IMAGE, LICENCE, BOM, CASES, DOCUMENT = (
    "wheel", "lock", "engine", "weights", "image", "licence", "bom", "cases", "document",
)  # fmt: skip
"""Kinds of parts. A document is any other file in the root."""
_FOLDERS: Final[Mapping[str, str]] = {
    "wheels": WHEEL,
    "engine": ENGINE,
    "weights": WEIGHTS,
    "image": IMAGE,
    "licences": LICENCE,
}
_FILES: Final[Mapping[str, str]] = {LOCK_FILE: LOCK, BOM_FILE: BOM, SELFTEST_FILE: CASES, SAMPLES_FILE: CASES}
PLACEHOLDERS: Final = ("python", "kit", "host", "port")
"""What a word of the command may have in braces."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._\-]{0,62}[a-z0-9])?\Z")
_PYTHON: Final = re.compile(r"3\.(?:0|[1-9][0-9]?)\Z")
_LIBC: Final = re.compile(r"(?:(?:glibc|musl) [1-9][0-9]?\.[0-9]{1,2})?\Z")
VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,99}\Z")
_ROUTE: Final = re.compile(r"/[!-~]{0,1023}\Z")
_DIGEST_OR_NONE: Final = re.compile(r"(?:[0-9a-f]{64})?\Z")
_FILE_PATH: Final = re.compile(r"[^\\/]+(?:/[^\\/]+)*\Z")
_BRACES: Final = re.compile(r"\{([^{}]*)\}|[{}]")
_WHEEL_FILE: Final = re.compile(r"wheels/[A-Za-z0-9_.+!\-]+\.whl\Z")


def _of_form(form: re.Pattern[str], most: int, least: int = 1) -> JsonRead:
    def read(text: str) -> str:
        if not form.match(text):
            raise Malformed("kit is malformed", why=f"{text[:60]!r} has not the form {form.pattern[:-2]}")
        return text

    return JsonRead(read, form, most=most, least=least)


ROUTE: Final = _of_form(_ROUTE, 1024)
"""A path of the engine's HTTP server."""
PATH: Final = JsonRead(check_path, _FILE_PATH, most=MAX_PATH_BYTES)
PYTHONS: Final = JsonItems(MAX_PYTHONS, of=_of_form(_PYTHON, 5), once=True)
"""Minor versions of CPython, such as `3.11`."""
NAME: Final = _of_form(_NAME, MAX_NAME)


@frozen
class KitPlatform(JsonObject):
    """The machines on which a kit runs.

    Attributes:
        python: the minor versions of CPython for which it has wheels; none where it needs no Python.
        libc: the least C library, such as `glibc 2.28`; empty where it needs none.
    """

    os: Annotated[str, JsonWord(SYSTEMS)]
    arch: Annotated[str, JsonWord(ARCHITECTURES)]
    libc: Annotated[str, _of_form(_LIBC, 20, 0)]
    python: Annotated[tuple[str, ...], PYTHONS]


@frozen
class KitEngine(JsonObject):
    """The program that serves.

    Attributes:
        command: its words. `{python}` is the interpreter that has the wheels, `{kit}` the folder of the kit; the first
            word is or begins with one of them, so that nothing outside of the kit is started. Empty where only an image
            is run.
        ready: answers 200 once the engine serves.
        ready_seconds: after which it is given up.
    """

    name: Annotated[str, JsonText(MAX_TEXT)]
    version: Annotated[str, JsonText(MAX_TEXT)]
    command: Annotated[tuple[str, ...], JsonItems(MAX_ARGUMENTS, of=JsonText())]
    environment: Annotated[Mapping[str, str], JsonMap(MAX_VARIABLES, VARIABLE, of=JsonText(least=0))]
    ready: Annotated[str, ROUTE]
    ready_seconds: Annotated[int, JsonNumber(1, MAX_READY_SECONDS)]

    def __post_init__(self) -> None:
        if self.command and self.command[0] != "{python}" and not self.command[0].startswith("{kit}/"):
            raise _malformed(f"the command begins with {self.command[0][:60]!r}, not with {{python}} or {{kit}}/")
        for word in self.command:
            for found in _BRACES.finditer(word):
                if found[1] not in PLACEHOLDERS:
                    raise _malformed(f"the command has {found[0][:60]!r}; known: {', '.join(PLACEHOLDERS)}")


@frozen
class KitNeeds(JsonObject):
    """What a machine must have. `memory` and `disk` in bytes; `accelerator` names one that is enough."""

    memory: int
    disk: int
    accelerators: Annotated[int, JsonNumber(0, MAX_ACCELERATORS)]
    accelerator: Annotated[str, JsonText(MAX_TEXT, 0)]


@frozen
class KitPart(JsonObject):
    """A file of a kit. `name`, `version` and `licence`, an SPDX expression, are empty where they are unknown."""

    path: Annotated[str, PATH]
    sha256: Digest
    size: int
    name: Annotated[str, JsonText(MAX_TEXT, 0)]
    version: Annotated[str, JsonText(MAX_TEXT, 0)]
    licence: Annotated[str, JsonText(MAX_TEXT, 0)]

    @property
    def kind(self) -> str:
        """What it is, by its path."""
        folder, slash, _ = self.path.partition("/")
        return _FOLDERS[folder] if slash else _FILES.get(self.path, DOCUMENT)

    def __post_init__(self) -> None:
        folder, slash, _ = self.path.partition("/")
        if slash and folder not in _FOLDERS:
            raise _malformed(f"{self.path[:100]!r} is in none of the folders {', '.join(_FOLDERS)}")
        if not slash and self.path in (*_FOLDERS, KIT_FILE):
            raise _malformed(f"{self.path!r} cannot be a part")
        if folder == "wheels" and not _WHEEL_FILE.match(self.path):
            raise _malformed(f"{self.path[:100]!r} is no wheel")


@frozen
class KitWeightFile(JsonObject):
    """A part that is weights, and its path in the artifact that it is of."""

    path: Annotated[str, PATH]
    original: Annotated[str, PATH]


@frozen
class KitWeights(JsonObject):
    """Weights of one artifact; `artifact` and `name` are empty where they are of none that is published."""

    artifact: Annotated[str, _of_form(_DIGEST_OR_NONE, 64, 0), "The digest of an artifact, or empty."]
    name: Annotated[str, JsonText(MAX_TEXT, 0)]
    files: Annotated[tuple[KitWeightFile, ...], JsonItems(MAX_PARTS, 1)]


@frozen
class Kit(JsonObject):
    """A run-kit. Every file but `kit.json` is one of its parts, in the order of the UTF-8 bytes of their paths."""

    constants: ClassVar = {"schema": KIT_SCHEMA}
    name: Annotated[str, NAME]
    service: Annotated[str, JsonWord(SERVICES)]
    platform: KitPlatform
    engine: KitEngine
    needs: KitNeeds
    parts: Annotated[tuple[KitPart, ...], JsonItems(MAX_PARTS, 1)]
    weights: Annotated[tuple[KitWeights, ...], JsonItems(MAX_WEIGHTS)]

    def __post_init__(self) -> None:
        paths = [part.path for part in self.parts]
        if paths != [entry.path for entry in self.files.files]:
            raise _malformed("its parts are not in the order of their paths")
        kinds = {part.kind for part in self.parts}
        for file in (SELFTEST_FILE, BOM_FILE):
            if file not in paths:
                raise _malformed(f"it has no {file}")
        if (LOCK in kinds) != (WHEEL in kinds):
            raise _malformed(f"it has wheels without {LOCK_FILE}, or the reverse")
        if WHEEL in kinds and not self.platform.python:
            raise _malformed("it has wheels and names no Python")
        if not self.engine.command and IMAGE not in kinds:
            raise _malformed("it has neither a command nor an image")
        if self.engine.command[:1] == ("{python}",) and not self.platform.python:
            raise _malformed("its command needs a Python, and it names none")
        named = [file.path for each in self.weights for file in each.files]
        if sorted(named) != sorted(part.path for part in self.parts if part.kind == WEIGHTS):
            raise _malformed("the weights that it names are not its parts below weights/, each once")

    @property
    def files(self) -> Manifest:
        """The files that the parts describe: those of the artifact but `kit.json`. Raises Malformed."""
        return Manifest.of(FileEntry(part.path, part.size, part.sha256) for part in self.parts)

    @property
    def by_path(self) -> dict[str, KitPart]:
        return {part.path: part for part in self.parts}

    def of_kind(self, kind: str) -> tuple[KitPart, ...]:
        return tuple(part for part in self.parts if part.kind == kind)

    @property
    def artifacts(self) -> tuple[Digest, ...]:
        """The artifacts that its weights are of, each once."""
        return tuple(dict.fromkeys(bare_digest(each.artifact) for each in self.weights if each.artifact))

    def encode(self) -> bytes:
        """The file `kit.json`."""
        return canonical(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Kit:
        """Inverse of `encode`. Raises Malformed."""
        return cls.from_json(parse_canonical(data, limit=MAX_KIT, what="kit"))


def _malformed(why: str) -> Malformed:
    return Malformed("kit is malformed", why=why)
