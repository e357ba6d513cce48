"""Observations of upstreams: every valid one reads back, and no false statement of a Hub about a file passes for a
match.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.rules.git_ids import blob_id, lfs_pointer, tree_ids
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.names import Reference
from comity.trust.statement import MAX_OBJECT_BYTES, SideObject, Statement, Subject
from comity.trust.upstream import (
    GATED,
    LOST,
    OBTAINED,
    UNCHECKED,
    Changed,
    Conditions,
    Gone,
    Matched,
    Observed,
    Obtained,
    Upstream,
    check_endpoint,
)
from comity.upstream.listed_files import (
    BlobHash,
    ListedFile,
    Observation,
    UpstreamRequest,
    compare,
    encode_observations,
    matching_folders,
    parse_observations,
)
from hypothesis import given
from hypothesis import strategies as st
from support.tools import needs
from support.world import node, seat

NODE = node(seat("CH"))
digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
commits = st.binary(min_size=20, max_size=20).map(bytes.hex)
objects = st.builds(SideObject, digests, st.integers(0, MAX_OBJECT_BYTES // 6))
words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
segments = st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True)
repositories = st.builds("{}/{}".format, segments, segments)
endpoints = st.sampled_from(["https://huggingface.co", "http://127.0.0.1:8080/prefix", "https://[::1]:1"])
upstreams = st.builds(Upstream, endpoints, repositories, commits, st.sampled_from(["main", "v1.0", "refs/pr/1"]))


@st.composite
def counts(draw: st.DrawFn) -> Matched:
    by_hash, by_blob, rest, folders = (draw(st.integers(0, 5000)) for _ in range(4))
    listed = folders + draw(st.integers(0, 9))
    return Matched(by_hash + by_blob + rest, by_hash, by_blob, draw(st.integers(0, by_hash)), folders, listed)


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    how, upstream = draw(st.sampled_from(OBTAINED)), draw(upstreams)
    unchecked = draw(st.lists(st.sampled_from(UNCHECKED), unique=True).map(set)) - {"upstream"}
    if how != "fetched":
        upstream, unchecked = replace(upstream, endpoint=""), unchecked | {"upstream"}
    begun = draw(st.integers(0, 2**40))
    named = draw(st.lists(objects, min_size=6, max_size=6, unique_by=lambda item: item.digest))
    manifest, pieces, files, *documents = named
    licence_text, card, terms = (item if draw(st.booleans()) else None for item in documents)
    return Observed(
        by=NODE.record.node.id,
        upstream=upstream,
        artifact=manifest.digest,
        manifest=manifest,
        pieces=pieces,
        files=files,
        matched=draw(counts()),
        unchecked=tuple(sorted(unchecked)),
        obtained=Obtained(
            how, begun, begun + draw(st.integers(0, 10**6)), draw(words.filter(bool)), draw(st.none() | digests)
        ),
        conditions=Conditions(
            draw(words),
            licence_text,
            card,
            draw(st.sampled_from(GATED)),
            terms,
        ),
    )


@given(observations())
def test_an_observation_reads_back(said: Observed) -> None:
    entry = sign_content(said, NODE.online)
    assert Observed.parse(entry.statement) == said
    assert set(said.objects()) == set(entry.statement.objects)


@given(upstreams, digests, commits, st.sampled_from(LOST), st.integers(0, 2**40))
def test_news_of_an_upstream_reads_back(upstream: Upstream, artifact: Digest, now: str, lost: str, at: int) -> None:
    gone = Gone(NODE.record.node.id, upstream, artifact, lost, at)
    assert Gone.parse(sign_content(gone, NODE.online).statement) == gone
    changed = Changed(NODE.record.node.id, upstream, artifact, now, at)
    if now != upstream.commit:
        assert Changed.parse(sign_content(changed, NODE.online).statement) == changed


@given(observations(), st.data())
def test_an_observation_with_anything_left_out_or_added_is_refused(said: Observed, data: st.DataObject) -> None:
    statement = said.statement()
    left_out = data.draw(st.sampled_from(sorted(statement.body)))
    body = {key: value for key, value in statement.body.items() if key != left_out}
    for changed in (body, {**statement.body, "rider": 1}):
        with pytest.raises(Malformed):
            Observed.parse(replace(statement, body=changed))


def _with(path: str, value: Any) -> Callable[[Statement], Statement]:
    def change(statement: Statement) -> Statement:
        outer, _, inner = path.partition(".")
        part = statement.body[outer]
        body = {**statement.body, outer: {**part, inner: value} if inner else value}  # type: ignore[dict-item]  # hostile
        return replace(statement, body=body)

    return change


SAID = Observed(
    by=NODE.record.node.id,
    upstream=Upstream("https://huggingface.co", "org/name", "1f" * 20, "main"),
    artifact=sha256(b"m"),
    manifest=SideObject(sha256(b"m"), 1),
    pieces=SideObject(sha256(b"p"), 1),
    files=SideObject(sha256(b"f"), 1),
    matched=Matched(2, 1, 1, 1, 0, 0),
    unchecked=("commit",),
    obtained=Obtained("fetched", 1, 2, "comity"),
)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_with("upstream.commit", "main"), id="an invalid commit"),
        pytest.param(_with("upstream.repository", "../x"), id="a repository that is a path"),
        pytest.param(_with("upstream.endpoint", "https://user:secret@hub.example"), id="an endpoint with credentials"),
        pytest.param(_with("upstream.endpoint", ""), id="fetched without an endpoint"),
        pytest.param(_with("upstream.requested", "2e" * 20), id="another commit asked for"),
        pytest.param(_with("obtained.how", "carried"), id="carried, and yet from an endpoint"),
        pytest.param(_with("obtained.ended", 0), id="an end before its beginning"),
        pytest.param(_with("matched.sha256", 3), id="more matches than files"),
        pytest.param(_with("unchecked", ["commit", "commit"]), id="a repeated word"),
        pytest.param(_with("unchecked", ["upstream"]), id="fetched without asking"),
        pytest.param(_with("conditions.gated", "always"), id="an unknown gate"),
        pytest.param(lambda said: replace(said, by=seat("CH").inception.author), id="by an identity"),
        pytest.param(lambda said: replace(said, objects=said.objects[:2]), id="an object that is not listed"),
        pytest.param(lambda said: replace(said, subjects=(Subject("hf:a/b@v1", said.subject),)), id="another name"),
        pytest.param(
            lambda said: replace(said, subjects=(Subject(SAID.upstream.name, sha256(b"p")),)), id="another subject"
        ),
    ],
)
def test_an_observation_that_contradicts_itself_is_refused(change: Callable[[Statement], Statement]) -> None:
    Observed.parse(SAID.statement())
    with pytest.raises(Malformed):
        Observed.parse(change(SAID.statement()))


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_only_the_listed_bytes_match_by_any_kind_of_hash(data: bytes, other: bytes) -> None:
    entry, blob = FileEntry("a/b.bin", len(data), sha256(data)), _git_blob(data)
    in_lfs = ListedFile("a/b.bin", len(data), blob_id(entry), entry.sha256)
    plain = ListedFile("a/b.bin", len(data), blob)
    assert compare(in_lfs, entry, blob) == Observation(entry, in_lfs, "sha256", True)
    assert compare(plain, entry, blob) == Observation(entry, plain, "git-blob", False)
    if data != other:
        wrong = FileEntry("a/b.bin", len(other), sha256(other))
        assert compare(in_lfs, wrong, _git_blob(other)) is None
        assert compare(plain, wrong, _git_blob(other)) is None


@pytest.mark.parametrize("other", [b"abd", b"", b"abcd"])
def test_other_bytes_do_not_match_what_is_listed(other: bytes) -> None:
    listed = FileEntry("x", 3, sha256(b"abc"))
    wrong = FileEntry("x", len(other), sha256(other))
    for listing in (
        ListedFile("x", 3, blob_id(listed), listed.sha256),
        ListedFile("x", 3, "", listed.sha256),
        ListedFile("x", 3, _git_blob(b"abc")),
    ):
        assert compare(listing, listed, _git_blob(b"abc")) is not None
        assert compare(listing, wrong, _git_blob(other)) is None


def test_a_listed_size_alone_never_makes_a_match() -> None:
    entry, bare = FileEntry("x", 3, sha256(b"abc")), ListedFile("x", 3)
    assert compare(bare, entry, _git_blob(b"abc")) == Observation(entry, bare, "none", False)
    assert compare(ListedFile("x", 4), entry, _git_blob(b"abc")) is None


def test_an_unlisted_pointer_is_reported_as_different() -> None:
    entry = FileEntry("x", 3, sha256(b"abc"))
    seen = compare(ListedFile("x", 3, "0" * 40, entry.sha256), entry, _git_blob(b"abc"))
    assert seen is not None
    assert (seen.match, seen.pointer) == ("sha256", False)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_a_blob_hash_does_not_depend_on_the_chunks(parts: list[bytes]) -> None:
    hashed = BlobHash(sum(map(len, parts)))
    for part in parts:
        hashed.update(part)
    assert hashed.hexdigest() == _git_blob(b"".join(parts))


def test_folders_match_where_their_listed_blobs_make_their_listed_trees() -> None:
    entries = [FileEntry(path, 1, sha256(path.encode())) for path in ("a/b/c", "a/d", "e")]
    seen = [Observation(e, ListedFile(e.path, 1, blob_id(e), e.sha256), "sha256", True) for e in entries]
    listed = {path: tree for path, tree in tree_ids(Manifest.of(entries)).items() if path}
    assert matching_folders(seen, listed) == len(listed) == 2
    assert matching_folders(seen, {**listed, "a/b": "0" * 40}) == 1
    for at, matches in enumerate((0, 1, 2)):  # a/b/c is in both folders, a/d in one, e in none
        unlisted = [replace(item, listed=replace(item.listed, blob="")) if item is seen[at] else item for item in seen]
        assert matching_folders(unlisted, listed) == matches


def test_git_itself_gives_the_same_ids(tmp_path: Path) -> None:
    git = needs("git", unlock="install git")
    subprocess.run([git, "init", "-q", str(tmp_path)], check=True)
    entry = FileEntry("weights.bin", 5, sha256(b"12345"))
    for data, expected in ((lfs_pointer(entry), blob_id(entry)), (b"# A card\n", _git_blob(b"# A card\n"))):
        (tmp_path / "file").write_bytes(data)
        ran = subprocess.run([git, "-C", str(tmp_path), "hash-object", "file"], check=True, capture_output=True)
        assert ran.stdout.decode().strip() == expected


def test_file_by_file_observations_read_back() -> None:
    entry = FileEntry("a", 1, sha256(b"a"))
    seen = (
        Observation(entry, ListedFile("a", 1, blob_id(entry), entry.sha256, "ab" * 32), "sha256", True),
        Observation(replace(entry, path="b"), ListedFile("b", 1), "none", False),
    )
    data = encode_observations(seen)
    assert parse_observations(data) == seen
    with pytest.raises(Malformed):
        parse_observations(data.replace(b"true", b"1"))


@given(repositories, st.sampled_from(["main", "v1", "refs/pr/7", "1f" * 20]))
def test_an_upstream_request_reads_back(repository: str, revision: str) -> None:
    assert UpstreamRequest.parse(str(UpstreamRequest(repository, revision))) == UpstreamRequest(repository, revision)
    assert UpstreamRequest.parse(f"hf:{repository}") == UpstreamRequest(repository, "main")


@pytest.mark.parametrize(
    "text", ["org/name", "hf:", "hf:a/b/c", "hf:a/b@", "hf:a/b@../x", "hf:a/b@x y", "hf:a/..", "hf:a/b@-x", "hf:"]
)
def test_a_text_that_names_no_repository_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        UpstreamRequest.parse(text)


def test_a_mirrored_commit_is_a_reference_like_any_other() -> None:
    reference = Reference.parse(f"hf:org/name@{'1f' * 20}")
    assert (reference.repository, reference.version, reference.mirrored) == ("hf:org/name", "1f" * 20, True)
    assert str(reference) == f"hf:org/name@{'1f' * 20}"
    assert not Reference.parse("org/name@v1").mirrored


@pytest.mark.parametrize(
    "url", ["ftp://x", "https://", "https://a/?q", "https://a b", "//a", "https://a/", "https://a:0"]
)
def test_an_invalid_endpoint_is_refused(url: str) -> None:
    with pytest.raises(Malformed):
        check_endpoint(url)


def _git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
