"""Lists of files with SHA-256 at a web server: parsing, the commit of a list, and what a server may not do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.names import Reference, upstream_name
from comity.trust.upstream import HTTPS_LIST, Upstream
from comity.upstream.download import Timeouts
from comity.upstream.guarded import AllowedHosts
from comity.upstream.http_list import HttpList, parse_checksums
from comity.upstream.listed_files import UpstreamRequest, list_commit
from comity.upstream.mirror import MirrorOrder, MirrorResult, fetch_repository, list_repository, pin_revision
from support.file_site import FileServer, file_server

FILES = {"config.json": b"{}\n", "sub/weights bin": bytes(range(256)) * 400}
NAME = UpstreamRequest.parse("https:127.0.0.1/tiny")


class Waits:
    def __init__(self) -> None:
        self.waited: list[float] = []

    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        self.waited.append(seconds)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FileServer]:
    folder = tmp_path / "site" / "tiny"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(data)}  {path}\n" for path, data in FILES.items()))
    with file_server(tmp_path / "site") as made:
        yield made


def order(site: FileServer, wanted: UpstreamRequest = NAME) -> MirrorOrder:
    return MirrorOrder(wanted, AllowedHosts.to(site.url), timeouts=Timeouts(read_timeout=5, first_delay=0.01))


def run(wanted: MirrorOrder, folder: Path, waits: Waits | None = None) -> MirrorResult:
    waits = waits or Waits()
    folder.mkdir(exist_ok=True)
    return fetch_repository(wanted, list_repository(wanted, pin_revision(wanted, waits), waits), folder, waits)


def test_a_list_is_mirrored_and_every_file_matches_its_sha256(site: FileServer, tmp_path: Path) -> None:
    done = run(order(site), tmp_path / "work")
    assert {seen.entry.path: path.read_bytes() for seen, path in zip(done.observations, done.paths, strict=True)} == (
        FILES
    )
    assert {seen.match for seen in done.observations} == {"sha256"}
    upstream = done.listing.revision_info.upstream
    commit = list_commit({path: sha256(data) for path, data in FILES.items()})
    assert upstream.name == f"https:127.0.0.1/tiny@{commit}"
    assert (upstream.kind, upstream.endpoint, upstream.requested) == (HTTPS_LIST, site.url, "main")


def test_a_manifest_gives_sizes_so_that_no_file_is_asked_for_its_size(site: FileServer, tmp_path: Path) -> None:
    manifest = Manifest.of(FileEntry(path, len(data), sha256(data)) for path, data in FILES.items())
    (site.folder / "tiny" / ".comity").mkdir()
    by_checksums = run(order(site), tmp_path / "work").listing.revision_info.upstream
    site.asked.clear()
    (site.folder / "tiny" / ".comity" / "manifest.json").write_bytes(manifest.encode())
    assert run(order(site), tmp_path / "work").listing.revision_info.upstream == by_checksums
    assert not [path for method, path in site.asked if method == "HEAD" or path.endswith("SHA256SUMS")]


def test_a_transfer_that_breaks_off_again_and_again_ends_with_the_same_bytes(site: FileServer, tmp_path: Path) -> None:
    wanted = order(site)
    listing = list_repository(wanted, pin_revision(wanted, Waits()), Waits())
    folder, waits = tmp_path / "work", Waits()
    folder.mkdir()
    site.cut = 10_000
    done = fetch_repository(wanted, listing, folder, waits)
    assert len(waits.waited) >= 10
    assert {seen.entry.sha256 for seen in done.observations} == {sha256(data) for data in FILES.values()}


def test_other_bytes_than_listed_are_refused_and_removed(site: FileServer, tmp_path: Path) -> None:
    (site.folder / "tiny" / "config.json").write_bytes(b"[]\n")
    with pytest.raises(ComityError) as caught:
        run(order(site), tmp_path / "work")
    assert caught.value.code == "UPSTREAM-LIED"
    assert b"[]\n" not in [path.read_bytes() for path in (tmp_path / "work").iterdir()]


def test_a_list_that_was_replaced_is_not_the_pinned_one(site: FileServer) -> None:
    api = HttpList(AllowedHosts.to(site.url), read_timeout=5)
    pinned = api.revision_info(NAME)
    again = replace(NAME, revision=pinned.upstream.commit)
    assert api.revision_info(again).upstream.commit == pinned.upstream.commit
    (site.folder / "tiny" / "SHA256SUMS").write_text(f"{'a' * 64}  config.json\n")
    for ask in (lambda: api.listing(pinned), lambda: api.revision_info(again)):
        with pytest.raises(NotFound):
            ask()
    with pytest.raises(NotFound):
        api.revision_info(replace(NAME, revision="v1"))


def test_the_name_has_the_host_of_the_endpoint(site: FileServer) -> None:
    with pytest.raises(Malformed) as caught:
        HttpList(AllowedHosts.to(site.url), read_timeout=5).revision_info(
            UpstreamRequest.parse("https:other.example/x")
        )
    assert caught.value.code == "BAD-NAME"
    assert not site.asked
    told = Upstream("https://models.example:8443/pub", "models.example/tiny", "1f" * 20, "main", HTTPS_LIST)
    assert Upstream.from_json(json.loads(json.dumps(told.to_json()))) == told
    for endpoint in ("https://other.example", "https://models.example.org", ""):
        with pytest.raises(Malformed):
            replace(told, endpoint=endpoint)


def test_a_redirect_of_a_list_to_another_server_is_not_followed(site: FileServer, tmp_path: Path) -> None:
    with file_server(tmp_path) as inner:
        site.status = lambda path: (302, {"Location": f"{inner.url}/secret"})
        with pytest.raises(ComityError) as caught:
            HttpList(AllowedHosts.to(site.url), read_timeout=5).revision_info(NAME)
        assert caught.value.code == "UPSTREAM-REDIRECT"
        assert not inner.asked


def test_a_server_that_asks_to_come_back_later_is_asked_again_then(site: FileServer, tmp_path: Path) -> None:
    left = [2]

    def busy(path: str) -> tuple[int, dict[str, str]] | None:
        left[0] -= 1
        return (429, {"Retry-After": "7"}) if left[0] >= 0 else None

    site.status, waits = busy, Waits()
    run(order(site), tmp_path / "work", waits)
    assert waits.waited == [7.0, 7.0] or sum(waits.waited) == 14.0


@pytest.mark.parametrize(
    ("status", "code"), [(404, "UPSTREAM-NOT-FOUND"), (403, "UPSTREAM-DENIED"), (204, "UPSTREAM-ANSWER")]
)
def test_a_missing_or_denied_list_is_reported(site: FileServer, status: int, code: str) -> None:
    site.status = lambda path: (status, {})
    with pytest.raises(ComityError) as caught:
        HttpList(AllowedHosts.to(site.url), read_timeout=5).revision_info(NAME)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        "x",
        f"{'g' * 64}  a",
        f"{'a' * 64} a",
        f"{'a' * 64}  a\n{'b' * 64}  a",
        f"\\{'a' * 64}  a\\nb",
        f"{'a' * 64}  ",
    ],
)
def test_another_form_of_a_list_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_checksums(text.encode())


def test_what_sha256sum_writes_is_read() -> None:
    one, two = (Digest(hashlib.sha256(data).hexdigest()) for data in (b"1", b"2"))
    text = f"# by hand\n{one}  ./a b\r\n\n{two.upper()} *sub/c\n"
    assert parse_checksums(text.encode()) == {"a b": one, "sub/c": two}
    assert list_commit({"a": one, "b": two}) == list_commit({"b": two, "a": one}) != list_commit({"a": two, "b": one})
    with pytest.raises(Malformed):
        parse_checksums(b"\xff\xfe")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../b", ".comity/x"])
def test_a_path_out_of_the_folder_is_refused_before_a_file_is_requested(site: FileServer, path: str) -> None:
    (site.folder / "tiny" / "SHA256SUMS").write_text(f"{'a' * 64}  {path}\n")
    with pytest.raises(ComityError) as caught:
        HttpList(AllowedHosts.to(site.url), read_timeout=5).revision_info(NAME)
    assert caught.value.code == "BAD-PATH"
    assert {method for method, _ in site.asked} == {"GET"}


def test_a_long_list_without_sizes_is_refused_without_a_request_for_each_file(
    site: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.upstream.http_list.MAX_ASKED", 1)
    with pytest.raises(ComityError) as caught:
        HttpList(AllowedHosts.to(site.url), read_timeout=5).revision_info(NAME)
    assert (caught.value.code, {method for method, _ in site.asked}) == ("TOO-MANY-FILES", {"GET"})


def test_a_mirrored_list_is_a_reference_like_any_other() -> None:
    reference = Reference.parse(f"https:host.example/tiny@{'1f' * 20}")
    assert (reference.repository, reference.version, reference.mirrored) == (
        "https:host.example/tiny",
        "1f" * 20,
        True,
    )
    assert (upstream_name("https:a/b"), upstream_name("a/b")) == ("https:a/b", "hf:a/b")
    with pytest.raises(Malformed):
        Reference.parse("https://host.example/tiny")
