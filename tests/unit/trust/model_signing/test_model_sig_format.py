"""The format of a `model.sig`: what its bundle and its list of files may hold, and the bounds of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from comity.trust.artifact import FileEntry
from comity.trust.encoding import b64encode, sha256
from comity.trust.errors import Malformed
from comity.trust.evidence import MODEL_SIG, FoundFile
from comity.trust.model_signing.bundle import (
    MAX_CERTIFICATE,
    MAX_CERTIFICATES,
    MAX_IGNORED,
    MAX_LOG_ENTRIES,
    MAX_NAME,
    Bundle,
    ChainMaterial,
    KeylessMaterial,
    KeyMaterial,
    ModelStatement,
    Resource,
    compare_files,
    signed_by,
    statement_of_files,
)
from support.model_sig import FILES, PUBLIC, changed, flipped, listed, signed

GOOD = signed()
RAW = {"rawBytes": b64encode(b"x")}


def material(**members: Any) -> bytes:
    def change(document: Any) -> None:
        kept: dict[str, Any] = {"tlogEntries": []} if "tlogEntries" not in members else {}
        document["verificationMaterial"] = {**kept, **{name: m for name, m in members.items() if m is not None}}

    return changed(GOOD, change)


def key(**members: Any) -> bytes:
    return material(publicKey=members)


def chain(*certificates: Any, **members: Any) -> bytes:
    return material(x509CertificateChain={"certificates": list(certificates), **members})


def envelope(**members: Any) -> bytes:
    return changed(GOOD, lambda document: document["dsseEnvelope"].update(members))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param(envelope(), envelope(more=1), id="an unknown member of the envelope"),
        pytest.param(
            envelope(signatures=[{"sig": "AA==", "keyid": None}]),
            envelope(signatures=[{"sig": "AA==", "more": 1}]),
            id="an unknown member of the signature",
        ),
        pytest.param(
            envelope(signatures=[{"sig": "AA==", "keyid": "x" * 256}]),
            envelope(signatures=[{"sig": "AA==", "keyid": "x" * 257}]),
            id="a long key id",
        ),
        pytest.param(material(publicKey={}), material(publicKey={}, more=1), id="an unknown member of the material"),
        pytest.param(
            material(publicKey={}, timestampVerificationData={}),
            material(publicKey={}, timestampVerificationData=[]),
            id="time stamps that are no object",
        ),
        pytest.param(
            material(publicKey={}, tlogEntries=[{}] * MAX_LOG_ENTRIES),
            material(publicKey={}, tlogEntries=[{}] * (MAX_LOG_ENTRIES + 1)),
            id="many log entries",
        ),
        pytest.param(key(hint="x" * 256), key(hint="x" * 257), id="a long hint"),
        pytest.param(key(hint=None), key(hint=5), id="a hint that is no text"),
        pytest.param(key(keyDetails="x" * 100), key(keyDetails="x" * 101), id="long key details"),
        pytest.param(key(**RAW), key(more=1), id="an unknown member of the key"),
        pytest.param(key(**RAW), key(rawBytes=""), id="no bytes of a key"),
        pytest.param(
            key(rawBytes=b64encode(bytes(MAX_CERTIFICATE))),
            key(rawBytes=b64encode(bytes(MAX_CERTIFICATE + 1))),
            id="many bytes of a key",
        ),
        pytest.param(material(certificate=RAW), material(certificate={**RAW, "more": 1}), id="more of a certificate"),
        pytest.param(material(certificate=RAW), material(certificate={}), id="no bytes of a certificate"),
        pytest.param(material(certificate=RAW), material(certificate=RAW, publicKey={}), id="a certificate and a key"),
        pytest.param(chain(RAW), chain(), id="no certificate"),
        pytest.param(chain(*[RAW] * MAX_CERTIFICATES), chain(*[RAW] * (MAX_CERTIFICATES + 1)), id="many certificates"),
        pytest.param(chain(RAW), chain(RAW, more=1), id="an unknown member of the chain"),
    ],
)
def test_a_bundle_is_bounded_in_every_part(good: bytes, bad: bytes) -> None:
    assert Bundle.parse(good).payload == listed().encode()
    with pytest.raises(Malformed):
        Bundle.parse(bad)


def test_the_entries_of_a_log_are_counted() -> None:
    for entries, count in ((None, 0), ([], 0), ([{}, {}], 2)):
        assert Bundle.parse(material(certificate=RAW, tlogEntries=entries)).material == KeylessMaterial(b"x", count)


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (KeyMaterial("", b""), {"publicKey": {}}),
        (KeyMaterial("hint", b""), {"publicKey": {"hint": "hint"}}),
        (KeyMaterial("", b"x"), {"publicKey": RAW}),
        (ChainMaterial((b"x", b"x")), {"x509CertificateChain": {"certificates": [RAW, RAW]}}),
    ],
)
def test_a_bundle_reads_back(kind: KeyMaterial | ChainMaterial, members: dict[str, Any]) -> None:
    bundle = Bundle(kind, b"payload", b"signature")
    assert Bundle.parse(bundle.encode()) == bundle
    assert json.loads(bundle.encode())["verificationMaterial"] == {**members, "tlogEntries": []}


def test_a_keyless_bundle_is_not_written() -> None:
    with pytest.raises(Malformed, match="keyless"):
        Bundle(KeylessMaterial(b"x", 1), b"payload", b"signature").encode()


def stated(change: Callable[[Any], None] = lambda document: None) -> ModelStatement:
    """The list as it is read after `change`, with the root digest of what it then lists."""
    document = json.loads(listed().encode())
    change(document)
    raw = b"".join(bytes.fromhex(resource["digest"]) for resource in document["predicate"]["resources"])
    document["subject"][0]["digest"]["sha256"] = hashlib.sha256(raw).hexdigest()
    return ModelStatement.parse(json.dumps(document).encode())


def serialization(**members: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        known = document["predicate"]["serialization"]
        known.update(members)
        for name in [name for name, value in known.items() if value is None]:
            del known[name]

    return change


def first(**members: Any) -> Callable[[Any], None]:
    return lambda document: document["predicate"]["resources"][0].update(members)


def subject(**members: Any) -> Callable[[Any], None]:
    return lambda document: document["subject"][0].update(members)


def shards(*names: str, size: Any = 4, algorithm: str = "sha256-sharded-4") -> Callable[[Any], None]:
    def change(document: Any) -> None:
        serialization(method="shards", shard_size=size)(document)
        document["predicate"]["resources"] = [
            {"name": name, "algorithm": algorithm, "digest": sha256(name.encode())} for name in names
        ]

    return change


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (subject(name="x" * MAX_NAME), subject(name="x" * (MAX_NAME + 1))),
        (subject(name="x"), subject(name="")),
        (subject(), subject(more=1)),
        (subject(), lambda document: document["subject"][0]["digest"].update(sha512="00")),
        (subject(), lambda document: document.update(more=1)),
        (subject(), lambda document: document["predicate"].update(more=1)),
        (serialization(), serialization(more=1)),
        (serialization(allow_symlinks=True), serialization(allow_symlinks=1)),
        (serialization(ignore_paths=["x" * MAX_NAME]), serialization(ignore_paths=["x" * (MAX_NAME + 1)])),
        (serialization(ignore_paths=["x"] * MAX_IGNORED), serialization(ignore_paths=["x"] * (MAX_IGNORED + 1))),
        (serialization(ignore_paths=[]), serialization(ignore_paths=["x", 5])),
        (serialization(), serialization(shard_size=4)),
        (first(name="x" * MAX_NAME), first(name="x" * (MAX_NAME + 1))),
        (first(name="a/b"), first(name="a\\b")),
        (first(name="..."), first(name="a//b")),
        (first(digest="ab" * 32), first(digest="AB" * 32)),
        (first(), first(digest="ab" * 33)),
        (first(), first(algorithm="sha256-sharded-4")),
        (shards("a:0:1"), shards("a:1:1")),
        (shards("a:0:4", "a:4:8"), shards("a:5:4")),
        (shards("a:b:0:4"), shards("a")),
        (shards("a:0:4"), shards("a:00:4")),
        (shards("a:0:4"), shards("a:0")),
        (shards("a:0:4", size=1), shards("a:0:4", size=0)),
        (shards("a:0:4", algorithm="sha256"), shards("a:0:4", algorithm="blake3-sharded-4")),
        (shards("a:0:4", "a:4:8"), shards("a:0:4", "a:0:4")),
        (shards("a:0:4"), shards("a:0:4", size=None)),
    ],
)
def test_a_list_of_files_is_bounded_in_every_part(good: Callable[[Any], None], bad: Callable[[Any], None]) -> None:
    read = stated(good)
    assert ModelStatement.parse(read.encode()) == read
    with pytest.raises(Malformed):
        stated(bad)


def test_a_part_of_a_file_is_listed_with_the_size_of_its_part() -> None:
    predicate = json.loads(stated(shards("a:0:4", "a:4:6")).encode())["predicate"]
    assert (predicate["serialization"]["method"], predicate["serialization"]["shard_size"]) == ("shards", 4)
    assert [each["algorithm"] for each in predicate["resources"]] == ["sha256-sharded-4"] * 2
    assert [each["algorithm"] for each in json.loads(listed().encode())["predicate"]["resources"]] == ["sha256"] * 4


@pytest.mark.parametrize("count", [0, 2])
def test_a_list_is_about_one_folder(count: int) -> None:
    document = json.loads(listed().encode())
    with pytest.raises(Malformed, match="1 to 1 items"):
        ModelStatement.parse(json.dumps({**document, "subject": document["subject"] * count}).encode())


def test_members_that_the_signer_left_out_have_a_default() -> None:
    read = stated(serialization(allow_symlinks=None, ignore_paths=None))
    assert (read.allow_symlinks, read.ignored) == (False, ())
    assert stated(serialization(allow_symlinks=True, ignore_paths=["b", "a"])).ignored == ("b", "a")
    assert stated(serialization(allow_symlinks=True)).allow_symlinks


@pytest.mark.parametrize("path", [".", "", "/a", "a/", "../a", "a\\b", "a\u2028b", "a\x00"])
def test_a_resource_cannot_be_built_for_a_path_outside_the_folder(path: str) -> None:
    with pytest.raises(Malformed):
        Resource(path, "00" * 32)


def test_parts_of_a_file_cover_it_exactly_once_in_any_order() -> None:
    def compared(*names: str, size: int = 8) -> str:
        coverage = compare_files(stated(shards(*names)), [FoundFile("a", size, sha256(b"x"))])
        return (*coverage.wrong, *coverage.unchecked)[0]

    assert compared("a:0:4", "a:4:8") == compared("a:4:8", "a:0:4")
    assert compare_files(stated(shards("a:0:4", "a:4:8")), [FoundFile("a", 8, sha256(b"x"))]).right == 0
    assert compared("a:0:4", "a:4:8") == "a: signed in 2 parts, which are not computed here"
    for torn in (("a:0:4", "a:5:8"), ("a:0:5", "a:4:8"), ("a:1:8",), ("a:4:8",)):
        assert compared(*torn) == "a: its signed parts do not cover the file exactly once"
    assert compared("a:0:4") == "a: 8 bytes instead of 4"
    assert compared("a:0:8", size=7) == "a: 7 bytes instead of 8"
    assert compared("a:0:8") == "a: its bytes are not the signed ones"


def test_files_are_counted_by_what_comes_of_them() -> None:
    files = [FoundFile(path, len(data), sha256(data)) for path, data in FILES.items()]
    coverage = compare_files(listed(), files)
    assert (coverage.right, coverage.false, coverage.missing, coverage.unchecked) == (len(FILES), (), (), ())
    kinds = [FoundFile("config.json", 0, None, "link"), FoundFile("empty.txt", 0, None, "special"), *files[2:]]
    coverage = compare_files(listed(), kinds)
    assert coverage.right == len(FILES) - 2
    assert coverage.wrong == ("config.json: a link out of the folder", "empty.txt: not a regular file")


@pytest.mark.parametrize(
    ("allowed", "tolerated"),
    [
        ("logs", True),
        ("logs/", True),
        ("logs/1", True),
        ("logs/1/a.txt", True),
        ("", False),
        ("/", False),
        ("log", False),
    ],
)
def test_a_file_may_be_unsigned_by_its_path_or_by_one_of_its_folders(allowed: str, tolerated: bool) -> None:
    coverage = compare_files(listed({"a": b""}), [FoundFile("logs/1/a.txt", 0, sha256(b""))], [allowed])
    assert (bool(coverage.tolerated), bool(coverage.unsigned)) == (tolerated, not tolerated)


def test_what_is_not_listed_of_a_folder_and_in_which_order_the_rest_is() -> None:
    entries = [
        FileEntry(path, 0, sha256(b""))
        for path in (
            "b",
            "a/.git",
            ".git/config",
            ".gitattributes",
            ".gitignore/x",
            MODEL_SIG,
            f"a/{MODEL_SIG}",
            ".gitx",
        )
    ]
    made = statement_of_files("tiny", entries)
    assert [resource.path for resource in made.resources] == [".gitx", "a/.git", f"a/{MODEL_SIG}", "b"]
    assert list(made.ignored) == sorted(made.ignored) and {MODEL_SIG, ".comity", ".git"} <= set(made.ignored)
    with pytest.raises(Malformed) as caught:
        statement_of_files("tiny", entries[2:6])
    assert caught.value.code == "EMPTY"


def test_a_model_sig_is_of_the_key_that_signed_it() -> None:
    assert signed_by(GOOD, PUBLIC)
    for data in (flipped(GOOD), b"{}", b""):
        assert not signed_by(data, PUBLIC)
