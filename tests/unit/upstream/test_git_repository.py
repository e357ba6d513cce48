"""Git repositories with LFS: imports from git's own server, and what lying servers may not do."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Untrusted
from comity.upstream import git_repository
from comity.upstream.download import Timeouts
from comity.upstream.git_repository import parse_batch, parse_pack_answer, parse_refs
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import ListedFile, UpstreamRequest
from comity.upstream.mirror import (
    MirrorOrder,
    MirrorResult,
    default_endpoint,
    fetch_repository,
    list_repository,
    pin_revision,
)
from support.git_site import GitSite, Lfs, git, git_site
from support.tools import needs

WEIGHTS = bytes(range(256)) * 2000
FILES: dict[str, bytes | Lfs] = {
    ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
    "config.json": b"{}\n",
    "empty": b"",
    "sub/copy.json": b"{}\n",
    "sub/weights.bin": Lfs(WEIGHTS),
}
BYTES = {path: item.data if isinstance(item, Lfs) else item for path, item in FILES.items()}


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        pass


def leading_to(href: str, item: dict[str, Any]) -> dict[str, Any]:
    return item | {"actions": {"download": {"href": href}}}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GitSite]:
    with git_site(tmp_path) as running:
        yield running


def order_of(site: GitSite, revision: str = "main", token: str = "") -> MirrorOrder:
    wanted = UpstreamRequest.parse(f"git:127.0.0.1/tiny@{revision}")
    return MirrorOrder(wanted, AllowedHosts.to(site.url, (), token), timeouts=Timeouts(first_delay=0.01))


def mirrored(order: MirrorOrder, folder: Path) -> MirrorResult:
    folder.mkdir()
    return fetch_repository(order, list_repository(order, pin_revision(order, Silent()), Silent()), folder, Silent())


def test_a_commit_is_mirrored_by_branch_tag_and_id(site: GitSite, tmp_path: Path) -> None:
    commit = site.commit("tiny", FILES)
    git(site.folder / "tiny.git", "tag", "-a", "v1", commit, "-m", "release")
    site.commit("tiny", {"config.json": b"[]\n"})
    site.commit("tiny", {"config.json": b"[1]\n"}, "v1-next")
    for revision in ("v1", commit):
        done = mirrored(order_of(site, revision), tmp_path / revision)
        pairs = zip(done.observations, done.paths, strict=True)
        assert {seen.entry.path: path.read_bytes() for seen, path in pairs} == BYTES
        assert {(seen.match, seen.pointer) for seen in done.observations} == {("git-blob", False), ("sha256", True)}
        assert done.listing.revision_info.upstream.name == f"git:127.0.0.1/tiny@{commit}"
    assert pin_revision(order_of(site), Silent()).upstream.commit != commit
    for revision in ("v2", "1f" * 20):
        with pytest.raises(NotFound) as caught:
            pin_revision(order_of(site, revision), Silent())
        assert caught.value.code == "UPSTREAM-NOT-FOUND"


def test_main_is_the_default_branch_where_no_branch_has_that_name(site: GitSite) -> None:
    commit = site.commit("tiny", {"a": b"a"}, "trunk")
    git(site.folder / "tiny.git", "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert pin_revision(order_of(site), Silent()).upstream.commit == commit


def test_a_server_without_filters_sends_the_same_files(site: GitSite, tmp_path: Path) -> None:
    site.commit("tiny", FILES)
    git(site.folder / "tiny.git", "config", "uploadpack.allowFilter", "false")
    assert len(mirrored(order_of(site), tmp_path / "work").paths) == len(FILES)


def test_links_submodules_and_large_files_outside_lfs_are_refused(
    site: GitSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = site.commit("tiny", {"a": b"a" * 100})
    bare = site.folder / "tiny.git"
    blob = git(bare, "hash-object", "-w", "--stdin", data=b"/etc/passwd").decode().strip()
    for row in (f"120000 blob {blob}\tlink", f"160000 commit {commit}\tmodule"):
        site.commit_tree("tiny", git(bare, "mktree", "--missing", data=f"{row}\n".encode()).decode().strip())
        require_refused(order_of(site), "UPSTREAM-ENTRY")
    site.commit("tiny", {"a": b"a" * 100})
    monkeypatch.setattr(git_repository, "MAX_BLOB", 99)
    require_refused(order_of(site), "UPSTREAM-ENTRY")


def test_paths_that_leave_the_folder_are_refused_before_a_byte_is_fetched(site: GitSite) -> None:
    site.commit("tiny", FILES)
    bare = site.folder / "tiny.git"
    blob = git(bare, "hash-object", "-w", "--stdin", data=Lfs(WEIGHTS).pointer)
    row = b"100644 ..\0" + bytes.fromhex(blob.decode().strip())
    tree = git(bare, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", data=row).decode().strip()
    site.commit_tree("tiny", tree)
    require_refused(order_of(site), "BAD-PATH")
    assert not [path for _, path, _ in site.asked if "/lfs/" in path]


def require_refused(order: MirrorOrder, code: str) -> None:
    pinned = pin_revision(order, Silent())
    with pytest.raises(ComityError) as caught:
        list_repository(order, pinned, Silent())
    assert caught.value.code == code


def test_a_server_that_leads_to_another_host_is_asked_for_nothing_there(site: GitSite, tmp_path: Path) -> None:
    site.commit("tiny", FILES)
    for number, href in enumerate(("http://169.254.169.254/latest", "http://localhost/x", "file:///etc/passwd", "x:")):
        site.item = partial(leading_to, href)
        with pytest.raises((Untrusted, Malformed)) as caught:
            mirrored(order_of(site), tmp_path / str(number))
        assert caught.value.code in ("UPSTREAM-REDIRECT", "UPSTREAM-ANSWER")


def test_bytes_that_do_not_have_the_digest_of_their_pointer_are_discarded(site: GitSite, tmp_path: Path) -> None:
    site.commit("tiny", FILES)
    site.objects[Lfs(WEIGHTS).oid] = WEIGHTS[:-1] + b"?"
    with pytest.raises(Untrusted) as caught:
        mirrored(order_of(site), tmp_path / "work")
    assert caught.value.code == "UPSTREAM-LIED"


def test_a_pointer_without_bytes_at_the_server_is_not_found(site: GitSite, tmp_path: Path) -> None:
    site.commit("tiny", FILES)
    site.objects.clear()
    with pytest.raises(NotFound):
        mirrored(order_of(site), tmp_path / "work")


def test_the_token_goes_to_the_endpoint_and_what_the_lfs_server_names_to_its_host(
    site: GitSite, tmp_path: Path
) -> None:
    site.commit("tiny", FILES)
    site.key = f"Basic {base64.b64encode(b'alice:secret').decode()}"
    mirrored(order_of(site, token="alice:secret"), tmp_path / "work")
    assert {given for _, _, given in site.asked} == {site.key}
    with pytest.raises(ComityError) as caught:
        pin_revision(order_of(site), Silent())
    assert caught.value.code == "UPSTREAM-DENIED"
    with git_site(tmp_path / "other") as other:
        other.objects = site.objects
        href, key = f"{other.url}/bytes/{Lfs(WEIGHTS).oid}", "Basic b3RoZXI="
        site.item = lambda item: item | {"actions": {"download": {"href": href, "header": {"authorization": key}}}}
        hosts = AllowedHosts.to(site.url, [other.url.removeprefix("http://")], "alice:secret")
        wanted = MirrorOrder(order_of(site).wanted, hosts)
        mirrored(wanted, tmp_path / "second")
        site.item = partial(leading_to, href)
        mirrored(wanted, tmp_path / "third")
        assert [given for _, _, given in other.asked] == [key, ""]


LISTED = ListedFile("w", 7, "", Digest(Lfs(b"weights").oid))


def batch(**more: Any) -> bytes:
    action = {"download": {"href": "https://a.example/x"}}
    return json.dumps({"objects": [{"oid": LISTED.lfs, "size": 7, "actions": action} | more]}).encode()


def test_a_redirect_to_another_server_takes_no_credentials_there(site: GitSite, tmp_path: Path) -> None:
    site.commit("tiny", FILES)
    with git_site(tmp_path / "other") as other:
        other.objects, site.moved = site.objects, other.url
        given = {"header": {"Authorization": "RemoteAuth lfs", "Accept": "text/plain"}}
        site.item = lambda item: item | {"actions": {"download": item["actions"]["download"] | given}}
        wanted = UpstreamRequest.parse("git:127.0.0.1/tiny@main")
        hosts = AllowedHosts.to(site.url, (other.url.removeprefix("http://"),), "alice:secret")
        order = MirrorOrder(wanted, hosts, timeouts=Timeouts(first_delay=0.01))
        assert len(mirrored(order, tmp_path / "work").paths) == len(FILES)
        assert [key for _, path, key in site.asked if path.startswith("/bytes/")] == ["RemoteAuth lfs"]
        assert [key for _, _, key in other.asked] == [""]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"objects": []}',
        b'{"objects": [1, 2]}',
        batch(oid="00"),
        batch(size=8),
        batch(actions=[]),
        batch(actions={"download": {"href": 7}}),
        batch(actions={"download": {"href": "x", "header": ["x"]}}),
        batch(actions={"download": {"href": "x", "header": {"Authorization": "a\r\nHost: b"}}}),
        batch(actions={"download": {"href": "x", "header": {"Authorization": 7}}}),
    ],
)
def test_another_answer_of_an_lfs_server_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_batch(body, LISTED)
    assert caught.value.code == "UPSTREAM-ANSWER"


def test_headers_other_than_those_of_access_are_not_taken_over() -> None:
    header = {"HOST": "b", "range": "bytes=0-", "authorization": "Basic eA==", "Transfer-Encoding": "chunked"}
    body = batch(actions={"download": {"href": "https://a.example/x", "header": header}})
    assert parse_batch(body, LISTED) == ("https://a.example/x", {"Authorization": "Basic eA=="})


@pytest.mark.parametrize("body", [b"0008zzzz", b"003f" + b"1f" * 20 + b"refs/heads/main\n"])
def test_malformed_branches_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_refs(body)


def test_a_server_that_speaks_another_version_is_refused_with_what_it_says(
    site: GitSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = site.commit("tiny", FILES)
    monkeypatch.setattr(git_repository, "PROTOCOL", {})
    with pytest.raises(Malformed, match=f"version 2 of the protocol: it begins with '{commit} ") as caught:
        mirrored(order_of(site), tmp_path / "work")
    assert len(caught.value.why) < 200


def test_an_error_of_the_server_is_shown() -> None:
    with pytest.raises(Malformed, match="disk is full"):
        parse_pack_answer(b"000dpackfile\n0011\x03disk is full")


def test_the_endpoint_of_a_name_is_its_host() -> None:
    assert default_endpoint(UpstreamRequest.parse("git:git.example.org/tiny")) == "https://git.example.org"


@pytest.mark.slow
def test_what_the_lfs_client_of_git_pushed_is_mirrored(site: GitSite, tmp_path: Path) -> None:
    needs("git-lfs", unlock="apt-get install git-lfs")
    site.commit("tiny", {"first": b""})
    work, bare = tmp_path / "clone", site.folder / "tiny.git"
    git(tmp_path, "clone", "-q", str(bare), str(work))
    home = str(tmp_path)
    git(work, "lfs", "install", "--local", HOME=home)
    git(work, "config", "lfs.url", f"{site.url}/tiny.git/info/lfs")
    git(work, "config", "lfs.locksverify", "false")
    git(work, "lfs", "track", "*.bin", HOME=home)
    data = {"a.bin": os.urandom(300_000), "b.bin": os.urandom(10), "config.json": b"{}\n"}
    for path, content in data.items():
        (work / path).write_bytes(content)
    git(work, "add", ".", HOME=home)
    git(work, "commit", "-q", "-m", "weights", HOME=home)
    git(work, "push", "-q", "origin", "main", HOME=home)
    done = mirrored(order_of(site), tmp_path / "work")
    found = {seen.entry.path: path.read_bytes() for seen, path in zip(done.observations, done.paths, strict=True)}
    assert {path: found[path] for path in data} == data
    assert {seen.entry.path for seen in done.observations if seen.pointer} == {"a.bin", "b.bin"}
