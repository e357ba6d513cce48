"""Statements about upstreams: each member is typed and bounded, and names one commit of a repository."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.artifact import MAX_FILES, FileEntry
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import SideObject, Statement, Subject
from comity.trust.upstream import (
    MAX_ENDPOINT,
    Changed,
    Gone,
    Matched,
    Observed,
    Obtained,
    Upstream,
    check_commit,
    check_endpoint,
    check_revision,
)
from comity.upstream.listed_files import (
    ListedFile,
    Observation,
    UpstreamRequest,
    encode_observations,
    parse_observations,
)
from support.world import node, seat

NODE = node(seat("CH"))
BY = NODE.record.node.id
COMMIT, OTHER = "1f" * 20, "2e" * 20
UPSTREAM = Upstream("https://huggingface.co", "org/name", COMMIT, "main")
MANIFEST = SideObject(sha256(b"m"), 1)
OBSERVED = Observed(
    by=BY,
    upstream=UPSTREAM,
    artifact=MANIFEST.digest,
    manifest=MANIFEST,
    pieces=SideObject(sha256(b"p"), 1),
    files=SideObject(sha256(b"f"), 1),
    matched=Matched(2, 1, 1, 1, 0, 0),
    unchecked=("commit",),
    obtained=Obtained("fetched", 1, 2, "comity"),
)
GONE = Gone(BY, UPSTREAM, MANIFEST.digest, "commit", 7)
CHANGED = Changed(BY, UPSTREAM, MANIFEST.digest, OTHER, 7)


@pytest.mark.parametrize("text", ["", "main", COMMIT[:-1], COMMIT + "0", COMMIT.upper(), COMMIT[:-1] + "\n"])
def test_a_commit_id_is_forty_hex_digits(text: str) -> None:
    assert check_commit(COMMIT) == COMMIT
    with pytest.raises(Malformed):
        check_commit(text)
    with pytest.raises(Malformed):
        replace(UPSTREAM, commit=text)


@pytest.mark.parametrize("text", ["", "/main", "main/", "-x", "a..b", "a b", "x" * 256, "é"])
def test_what_cannot_name_a_revision_is_refused(text: str) -> None:
    assert check_revision("x" * 255) and check_revision("refs/pr/1")
    with pytest.raises(Malformed):
        check_revision(text)
    with pytest.raises(Malformed):
        replace(UPSTREAM, requested=text)


def test_the_oldest_repositories_have_no_organisation() -> None:
    assert UpstreamRequest.parse("hf:gpt2@main").repository == "gpt2"
    for repository in ("gpt 2", "a b/c", "a/b/c", ""):
        with pytest.raises(Malformed):
            UpstreamRequest(repository)
    with pytest.raises(Malformed):
        replace(UPSTREAM, repository="gpt2")


def test_a_requested_commit_is_the_one_that_was_found() -> None:
    assert replace(UPSTREAM, requested=COMMIT).requested == COMMIT
    with pytest.raises(Malformed, match="not the requested commit"):
        replace(UPSTREAM, requested=OTHER)


LONG = "https://hub.example/" + "x" * (MAX_ENDPOINT - 20)


@pytest.mark.parametrize("url", ["", "http://a", "https://a:1", "https://a:65535/x", "https://[::1]:80", LONG])
def test_an_endpoint_is_a_host_with_a_port_and_a_path(url: str) -> None:
    assert check_endpoint(url) == url
    assert replace(UPSTREAM, endpoint=url).endpoint == url


@pytest.mark.parametrize("url", ["https://a:0", "https://a:65536", "https://a:99999", f"{LONG}x", "https://a:"])
def test_an_endpoint_with_another_port_or_too_long_is_refused(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_endpoint(url)
    assert caught.value.code == "BAD-ENDPOINT"


@pytest.mark.parametrize(
    ("counts", "accepted"),
    [
        ((2, 1, 1, 1, 3, 3), True),
        ((2, 2, 1, 1, 0, 0), False),
        ((2, 1, 1, 2, 0, 0), False),
        ((2, 1, 1, 1, 1, 0), False),
        ((0, 0, 0, 0, 0, 0), True),
    ],
)
def test_no_more_matches_than_files_pointers_and_folders(counts: tuple[int, ...], accepted: bool) -> None:
    if accepted:
        assert Matched(*counts).text == f"{counts[1] + counts[2]}/{counts[0]} files equal what the upstream lists"
        return
    with pytest.raises(Malformed, match="more matches"):
        Matched(*counts)


def test_an_observation_says_how_much_was_compared() -> None:
    listed = Matched(2, 1, 0, 1, 0, 0)
    unlisted = replace(listed, sha256=0, pointers=0)
    for unchecked, matched, text in (
        (("commit",), listed, "1/2 files equal what the upstream lists"),
        (("commit",), unlisted, "0/2 files equal what the upstream lists"),
        (("upstream",), listed, "1/2 files equal what the upstream lists"),
        (("upstream",), unlisted, "not compared with a list of the upstream"),
    ):
        assert replace(OBSERVED, unchecked=unchecked, matched=matched).match_text == text


def observed(part: str, **change: Any) -> Statement:
    statement = OBSERVED.statement()
    body: dict[str, Any] = dict(statement.body)
    return replace(statement, body={**body, part: {**body[part], **change}})


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (observed("obtained", tool="x" * 200), observed("obtained", tool="x" * 201)),
        (observed("conditions", licence="x" * 200), observed("conditions", licence="x" * 201)),
        (observed("conditions", gated="auto"), observed("conditions", gated="automatic")),
        (
            observed("matched", folders=MAX_FILES * 512, folders_listed=MAX_FILES * 512),
            observed("matched", folders=0, folders_listed=MAX_FILES * 512 + 1),
        ),
        (observed("obtained", begun=2), observed("obtained", begun=3)),
        *((OBSERVED.statement(), observed(part, more=1)) for part in ("upstream", "matched", "obtained", "conditions")),
        *((OBSERVED.statement(), replace(OBSERVED.statement(), by=by)) for by in (None, seat("CH").inception.author)),
        (OBSERVED.statement(), replace(OBSERVED.statement(), predicate="published")),
    ],
)
def test_an_observation_is_bounded_in_every_part(good: Statement, bad: Statement) -> None:
    assert Observed.parse(good)
    with pytest.raises(Malformed):
        Observed.parse(bad)


NEWS = {
    Changed.parse: sign_content(CHANGED, NODE.online).statement,
    Gone.parse: sign_content(GONE, NODE.online).statement,
}


@pytest.mark.parametrize("parse", NEWS, ids=["changed", "gone"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "observed"}, id="another predicate"),
        pytest.param({"by": None}, id="no author"),
        pytest.param({"by": seat("CH").inception.author}, id="by an identity"),
        pytest.param({"subjects": (Subject(f"hf:org/other@{COMMIT}", MANIFEST.digest),)}, id="another name"),
        pytest.param({"subjects": (Subject(UPSTREAM.name, MANIFEST.digest),) * 2}, id="two subjects"),
        pytest.param({"body": {"more": 1}}, id="an unknown member"),
        pytest.param({"body": {"upstream": replace(UPSTREAM, endpoint="").to_json()}}, id="no endpoint"),
        pytest.param({"body": {"at": -1}}, id="a negative time"),
    ],
)
def test_news_are_of_a_node_about_one_commit(parse: Any, change: dict[str, Any]) -> None:
    statement = NEWS[parse]
    assert parse(statement) in (CHANGED, GONE)
    body = {"body": {**statement.body, **change["body"]}} if "body" in change else {}
    with pytest.raises(Malformed):
        parse(replace(statement, **{**change, **body}))


def test_what_nobody_could_read_is_not_signed() -> None:
    for successor in (COMMIT, "main"):
        with pytest.raises(Malformed):
            sign_content(replace(CHANGED, successor=successor), NODE.online)
    with pytest.raises(Malformed):
        sign_content(replace(GONE, lost="interest"), NODE.online)
    with pytest.raises(Malformed):
        sign_content(replace(OBSERVED, unchecked=("upstream",)), NODE.online)


def files(**change: Any) -> bytes:
    entry = FileEntry("a", 1, sha256(b"a"))
    document = json.loads(encode_observations([Observation(entry, ListedFile("a", 1), "none", False)]))
    (item,) = document["files"]
    return canonical({**document, "files": [{**item, **change}]})


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (files(path="x" * 1024), files(path="x" * 1025)),
        (files(blob="0" * 64), files(blob="0" * 65)),
        (files(xet="0" * 128), files(xet="0" * 129)),
        (files(pointer=True), files(pointer=1)),
        (files(match="sha256"), files(match="md5")),
        (files(), files(more=1)),
        (files(lfs=None), files(lfs="")),
        (files(), canonical({**json.loads(files()), "more": 1})),
    ],
)
def test_the_list_of_files_is_bounded(good: bytes, bad: bytes) -> None:
    assert len(parse_observations(good)) == 1
    with pytest.raises(Malformed):
        parse_observations(bad)
