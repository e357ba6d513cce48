"""A run-kit and cases for tests, and strategies for others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from comity.rules.kits.cases import Expectation, KitCase, KitCases
from comity.rules.kits.description import (
    BOM_FILE,
    KIT_FILE,
    LOCK_FILE,
    SELFTEST_FILE,
    Kit,
    KitEngine,
    KitNeeds,
    KitPart,
    KitPlatform,
    KitWeightFile,
    KitWeights,
)
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Json, sha256
from hypothesis import strategies as st

WHEEL_FILE: Final = "wheels/engine-1.0-py3-none-any.whl"
WEIGHT_FILE: Final = "weights/tiny.gguf"
_PATHS: Final = (
    BOM_FILE,
    "engine/serve.py",
    "licences/engine-1.0/LICENSE",
    LOCK_FILE,
    SELFTEST_FILE,
    WEIGHT_FILE,
    WHEEL_FILE,
)
ENGINE: Final = KitEngine(
    "engine",
    "1.0",
    ("{python}", "{kit}/engine/serve.py", "--model", "{kit}/weights/tiny.gguf", "--port", "{port}"),
    {"THREADS": "1"},
    "/health",
    60,
)


def a_part(path: str, **of: Any) -> KitPart:
    """A part with its path as its content."""
    return replace(KitPart(path, sha256(path.encode()), len(path), "", "", ""), **of)


def a_kit(*more: str, without: str = "", **changes: Any) -> Kit:
    """A kit with parts of these paths too, and without one."""
    parts = [a_part(path) for path in (*_PATHS, *more) if path != without]
    kit: dict[str, Any] = {
        "name": "tiny-chat",
        "service": "chat",
        "platform": KitPlatform("linux", "x86_64", "glibc 2.28", ("3.11",)),
        "engine": ENGINE,
        "needs": KitNeeds(1 << 30, 1 << 20, 0, ""),
        "parts": tuple(sorted(parts, key=lambda part: part.path.encode())),
        "weights": (KitWeights(sha256(b"model"), "swiss-ai/tiny@v1", (KitWeightFile(WEIGHT_FILE, "tiny.gguf"),)),),
    }
    return Kit(**kit | changes)


def manifest_of(kit: Kit) -> Manifest:
    """The manifest of an artifact that has all files of a kit."""
    data = kit.encode()
    return Manifest.of([*kit.files.files, FileEntry(KIT_FILE, len(data), sha256(data))])


def some_cases() -> KitCases:
    """A case of each kind of expectation."""
    body: Json = {"messages": [{"content": "What is the capital of France?", "role": "user"}], "temperature": 0}
    return KitCases(
        (
            KitCase("alive", "GET", "/health", (Expectation("/status", equals="ok"),)),
            KitCase(
                "capital",
                "POST",
                "/v1/chat/completions",
                (Expectation("/choices/0/message/content", contains="Paris"),),
                body,
            ),
            KitCase(
                "near",
                "POST",
                "/v1/embeddings",
                (Expectation("/data/0/embedding", close_to=("0.6", "0.8"), cosine="0.999"),),
                {"input": "a"},
            ),
        )
    )


def kits() -> st.SearchStrategy[Kit]:
    """Kits with any texts and numbers in their members."""
    text = st.text(st.characters(categories=["L", "N", "P"]), max_size=20)
    number = st.integers(0, 2**53 - 1)
    more = st.lists(st.from_regex(r"(engine|licences/a|image)/[a-f]{1,5}x", fullmatch=True), max_size=4, unique=True)
    needs = st.builds(KitNeeds, number, number, st.integers(0, 1024), text)
    return st.builds(
        lambda paths, name, needs, licence, variables: replace(
            (kit := a_kit(*paths)),
            name=name,
            needs=needs,
            engine=replace(ENGINE, environment=variables),
            parts=tuple(replace(part, licence=licence) for part in kit.parts),
        ),
        more,
        st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}[a-z0-9]", fullmatch=True),
        needs,
        text,
        st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), text, max_size=3),
    )
