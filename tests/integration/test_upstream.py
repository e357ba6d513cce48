"""Mirroring a commit from a Hub that unmodified clients accept, and from one that sends false data, stalls or redirects
to other hosts.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from comity.upstream import mirror
from comity.upstream.download import NoImportObserver, Timeouts
from comity.upstream.guarded import AllowedHosts, Origin
from comity.upstream.listed_files import Observation, RepositoryListing, UpstreamRequest
from comity.upstream.mirror import MirrorOrder, MirrorResult, fetch_repository, list_repository, pin_revision
from support.hub_like import Answer, Asked, HubLike, Interference, hub_like
from support.weights import as_tensor

NAME = "org/tiny"
WEIGHTS = as_tensor(bytes(range(256)) * 12_000)
FILES = {
    "LICENSE": b"Do as you like.\n",
    "README.md": b"---\nlicense: mit\n---\n# Tiny\n",
    "config.json": b"{}\n",
    "empty.txt": b"",
    "sub/deep/note.txt": b"Nobody can take it away.\n",
    "weights.bin": WEIGHTS,
}
TOKEN = f"hf_{'b' * 37}"


@dataclass
class Waits:
    """A replacement of the downloads' waits: it does not wait, and records for how long it should have."""

    waited: list[tuple[float, str]] = field(default_factory=list)
    received: int = 0

    def progress(self, path: str, count: int) -> None:
        self.received += count

    def wait(self, seconds: float, why: str) -> None:
        self.waited.append((seconds, why))


@pytest.fixture
def hub() -> Iterator[HubLike]:
    with hub_like() as made:
        made.repository(NAME).commit(FILES, tag="v1")
        made.repository(NAME).card = {"license": "mit"}
        yield made


def order(hub: HubLike, *, revision: str = "main", token: str = "", **more: Any) -> MirrorOrder:
    allowed_hosts = AllowedHosts.to(hub.url, [hub.cdn.removeprefix("http://")], token)
    return MirrorOrder(
        UpstreamRequest(NAME, revision), allowed_hosts, timeouts=Timeouts(read_timeout=0.5, first_delay=0.01), **more
    )


def run(wanted: MirrorOrder, folder: Path, work: Waits | None = None) -> MirrorResult:
    work = work or Waits()
    folder.mkdir(exist_ok=True)
    return fetch_repository(wanted, list_repository(wanted, pin_revision(wanted, work), work), folder, work)


def contents(mirrored: MirrorResult) -> dict[str, bytes]:
    return {
        seen.entry.path: path.read_bytes() for seen, path in zip(mirrored.observations, mirrored.paths, strict=True)
    }


def only(path: str, answer: Callable[[Asked], Answer | None], times: int = 1) -> Interference:
    """Change the first answers to requests whose path ends with this."""
    left = [times]

    def interfere(asked: Asked) -> Answer | None:
        if asked.path.endswith(path) and left[0]:
            left[0] -= 1
            return answer(asked)
        return None

    return interfere


def content(hub: HubLike) -> str:
    """The path of the weights at the content server."""
    return hashlib.sha256(WEIGHTS).hexdigest()


def test_a_commit_is_mirrored_bit_for_bit_and_agrees_with_all_that_its_hub_lists(hub: HubLike, tmp_path: Path) -> None:
    hub.page = 2
    done = run(order(hub), tmp_path / "work")
    assert contents(done) == FILES
    matches = {seen.entry.path: (seen.match, seen.pointer) for seen in done.observations}
    assert matches.pop("weights.bin") == ("sha256", True)
    assert set(matches.values()) == {("git-blob", False)}
    assert done.listing.folders.keys() == {"sub", "sub/deep"}
    revision_info = done.listing.revision_info
    assert (revision_info.upstream.commit, revision_info.licence) == (hub.repositories[NAME].commits[0].sha, "mit")
    assert done.tls is None


def test_files_that_a_reader_waits_for_are_fetched_first_then_those_without_a_listed_sha256(
    hub: HubLike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FILES_AT_ONCE", 1)
    hub.repositories[NAME].commit({**FILES, "big.bin": WEIGHTS * 2, "small.bin": WEIGHTS[:1000]})
    wanted, work, reader = order(hub), Waits(), Reader("small.bin")
    fetch_repository(wanted, list_repository(wanted, pin_revision(wanted, work), work), tmp_path, work, reader)
    came = [asked.path.rpartition("/")[2] for asked in hub.asked if "/resolve/" in asked.path]
    assert came == ["small.bin", "README.md", "note.txt", "LICENSE", "config.json", "big.bin", "weights.bin"]
    assert sorted(reader.whole_files) == sorted([*FILES, "big.bin", "small.bin"])


class Reader(NoImportObserver):
    """Waits for one file, and records which files became complete."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[str] = []
        self.whole_files: list[str] = []

    def on_listing(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        self.files = [file.path for file in listing.files]

    def awaited(self) -> list[int]:
        return [self.files.index(self.path)]

    def on_complete(self, number: int, observation: Observation) -> None:
        assert observation.entry.path == self.files[number]
        self.whole_files.append(self.files[number])


@pytest.mark.parametrize("revision", ["main", "v1"])
def test_the_commit_is_pinned_once_though_the_branch_moves(hub: HubLike, tmp_path: Path, revision: str) -> None:
    wanted, work = order(hub, revision=revision), Waits()
    revision_info = pin_revision(wanted, work)
    hub.repositories[NAME].commit({**FILES, "config.json": b'{"later": 1}'}, tag="v1")
    (tmp_path / "work").mkdir()
    assert (
        contents(fetch_repository(wanted, list_repository(wanted, revision_info, work), tmp_path / "work", work))
        == FILES
    )


@pytest.mark.parametrize("old", ["old/name", "oldest"])
def test_a_renamed_repository_is_mirrored_under_its_new_name(hub: HubLike, tmp_path: Path, old: str) -> None:
    hub.moved[old] = NAME
    done = run(replace(order(hub), wanted=UpstreamRequest.parse(f"hf:{old}")), tmp_path / "work")
    assert done.listing.revision_info.upstream.repository == NAME


def test_the_token_is_sent_to_the_endpoint_only(hub: HubLike, tmp_path: Path) -> None:
    hub.repositories[NAME].gated, hub.repositories[NAME].tokens = "auto", {TOKEN}
    done = run(order(hub, token=TOKEN, terms=b"I accept."), tmp_path / "work")
    assert contents(done) == FILES
    shown = {asked.cdn: "authorization" in asked.headers for asked in hub.asked}
    assert shown == {False: True, True: False}
    assert TOKEN not in repr(order(hub, token=TOKEN))


def test_a_gated_repository_is_refused_without_terms_before_anything_is_fetched(hub: HubLike, tmp_path: Path) -> None:
    hub.repositories[NAME].gated = "manual"
    with pytest.raises(Refused) as refused:
        run(order(hub), tmp_path / "work")
    assert refused.value.code == "UPSTREAM-GATED"
    assert "--accept-terms" in refused.value.hint
    assert not [asked for asked in hub.asked if "/resolve/" in asked.path]


def test_accepted_terms_without_a_token_that_the_hub_knows_do_not_help(hub: HubLike, tmp_path: Path) -> None:
    hub.repositories[NAME].gated = "auto"
    with pytest.raises(Refused) as refused:
        run(order(hub, terms=b"I accept."), tmp_path / "work")
    assert refused.value.code == "UPSTREAM-GATED"


def test_a_private_repository_is_not_made_public(hub: HubLike, tmp_path: Path) -> None:
    hub.repositories[NAME].private, hub.repositories[NAME].tokens = True, {TOKEN}
    with pytest.raises(Refused) as refused:
        run(order(hub, token=TOKEN), tmp_path / "work")
    assert refused.value.code == "UPSTREAM-PRIVATE"


def broken_off(asked: Asked) -> Answer:
    rest = WEIGHTS[asked.offset :]
    headers = {
        "Content-Range": f"bytes {asked.offset}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}",
        "Content-Length": str(len(rest)),
    }
    return Answer(206 if asked.offset else 200, rest, headers, cut=500_000)


def falls_silent(asked: Asked) -> Answer:
    return replace(broken_off(asked), stall=True)


@pytest.mark.parametrize("fault", [broken_off, falls_silent])
def test_a_download_that_breaks_off_or_becomes_silent_continues_where_it_was(
    hub: HubLike, tmp_path: Path, fault: Callable[[Asked], Answer]
) -> None:
    hub.interfere = only(content(hub), fault, times=3)
    assert contents(run(order(hub), tmp_path / "work")) == FILES
    offsets = [asked.offset for asked in hub.asked if asked.cdn]
    assert len(offsets) == 4
    assert offsets == sorted(set(offsets))
    assert offsets[-1] > 0


def test_a_partial_file_of_another_process_is_hashed_again_and_completed(hub: HubLike, tmp_path: Path) -> None:
    wanted, work = order(hub), Waits()
    listing = list_repository(wanted, pin_revision(wanted, work), work)
    number = [file.path for file in listing.files].index("weights.bin")
    (tmp_path / f"{number:06d}").write_bytes(WEIGHTS[:1_000_001])
    assert contents(fetch_repository(wanted, listing, tmp_path, work)) == FILES
    assert [asked.offset for asked in hub.asked if asked.cdn] == [1_000_001]
    assert work.received == sum(map(len, FILES.values()))


@pytest.mark.parametrize("left", [b"x" * 900_000, WEIGHTS + b"more"], ids=["other bytes", "too many"])
def test_a_partial_file_with_wrong_bytes_is_deleted_and_no_hub_is_accused(
    hub: HubLike, tmp_path: Path, left: bytes
) -> None:
    wanted, work = order(hub), Waits()
    listing = list_repository(wanted, pin_revision(wanted, work), work)
    number = [file.path for file in listing.files].index("weights.bin")
    (tmp_path / f"{number:06d}").write_bytes(left)
    assert contents(fetch_repository(wanted, listing, tmp_path, work)) == FILES
    assert work.received == sum(map(len, FILES.values()))


def test_a_server_that_cannot_resume_is_asked_for_the_whole(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = lambda asked: Answer(200, WEIGHTS, cut=700_000 if not asked.offset else None) if asked.cdn else None
    assert contents(run(order(hub), tmp_path / "work")) == FILES


@pytest.mark.parametrize(
    ("headers", "expected"), [({"Retry-After": "7"}, 7.0), ({"RateLimit": '"api";r=0;t=55'}, 55.0), ({}, 0.02)]
)
@pytest.mark.parametrize("path", ["/revision/main", "/tree/", "weights.bin"])
def test_a_hub_with_a_retry_time_is_asked_again_then(
    hub: HubLike, tmp_path: Path, path: str, headers: dict[str, str], expected: float
) -> None:
    left = [2]

    def busy(asked: Asked) -> Answer | None:
        if path in asked.path and left[0]:
            left[0] -= 1
            return Answer(429, b"", headers)
        return None

    hub.interfere, work = busy, Waits()
    assert contents(run(order(hub), tmp_path / "work", work)) == FILES
    total = sum(seconds for seconds, _ in work.waited)
    assert total == pytest.approx(2 * expected, rel=1)
    assert "429" in work.waited[0][1] or "later" in work.waited[0][1]


def test_a_retry_time_of_days_is_not_waited_for(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = lambda asked: Answer(429, b"", {"Retry-After": "999999"})
    work = Waits()
    with pytest.raises(Unavailable) as busy:
        run(order(hub), tmp_path / "work", work)
    assert busy.value.code == "UPSTREAM-BUSY"
    assert work.waited == []


def altered(path: str, /, **change: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda entries: [entry | change if entry["path"] == path else entry for entry in entries]


def in_lfs(path: str, /, **change: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    def said(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [e | {"lfs": e["lfs"] | change} if e["path"] == path else e for e in entries]

    return said


OTHER = "0" * 64


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(altered("config.json", size=2), "UPSTREAM-LIED", id="a smaller size"),
        pytest.param(altered("config.json", size=4), "UPSTREAM-LIED", id="a larger size"),
        pytest.param(altered("config.json", oid="1" * 40), "UPSTREAM-LIED", id="another git blob"),
        pytest.param(in_lfs("weights.bin", oid=OTHER), "UPSTREAM-LIED", id="another sha256"),
        pytest.param(in_lfs("weights.bin", size=9), "UPSTREAM-ANSWER", id="two sizes"),
        pytest.param(in_lfs("weights.bin", oid="../../x"), "MALFORMED", id="a sha256 that is a path"),
        pytest.param(altered("config.json", size=-1), "UPSTREAM-ANSWER", id="less than nothing"),
        pytest.param(altered("config.json", size=2**60), "UPSTREAM-ANSWER", id="an offset beyond the end"),
        pytest.param(altered("config.json", size="3"), "UPSTREAM-ANSWER", id="a size as text"),
        pytest.param(altered("config.json", path="../config.json"), "BAD-PATH", id="a path out of the folder"),
        pytest.param(altered("config.json", path="/etc/passwd"), "BAD-PATH", id="an absolute path"),
        pytest.param(altered("config.json", path="a\\b"), "BAD-PATH", id="a backslash"),
        pytest.param(altered("config.json", path="a\nb"), "BAD-PATH", id="a line feed"),
        pytest.param(altered("config.json", path=".git/hooks/x"), "BAD-PATH", id="a git hook"),
        pytest.param(altered("config.json", path="WEIGHTS.bin"), "BAD-PATH", id="names that differ in case only"),
        pytest.param(altered("config.json", path="sub"), "BAD-PATH", id="a file that is a folder"),
        pytest.param(altered("config.json", path="weights.bin"), "UPSTREAM-ANSWER", id="a name twice"),
        pytest.param(altered("config.json", path="x" * 1025), "BAD-PATH", id="a name without end"),
        pytest.param(altered("config.json", path=None), "UPSTREAM-ANSWER", id="no name"),
        pytest.param(lambda entries: [1, 2], "UPSTREAM-ANSWER", id="no entries"),
        pytest.param(lambda entries: [], "EMPTY", id="nothing"),
    ],
)
def test_a_hub_with_false_file_data_is_named_and_nothing_is_kept(
    hub: HubLike, tmp_path: Path, said: Any, code: str
) -> None:
    hub.tree_said = said
    with pytest.raises(ComityError) as lie:
        run(order(hub), tmp_path / "work")
    assert lie.value.code == code
    assert lie.value.why
    assert lie.value.hint, "it says what to do"
    if code != "UPSTREAM-LIED":
        assert not [asked for asked in hub.asked if "/resolve/" in asked.path]
        return
    assert isinstance(lie.value, Untrusted)
    number = sorted(FILES).index("weights.bin" if "weights.bin" in lie.value.what else "config.json")
    kept = tmp_path / "work" / f"{number:06d}"
    assert not kept.exists() or kept.stat().st_size == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"sha": "main"}, "UPSTREAM-ANSWER"),
        ({"sha": None}, "UPSTREAM-ANSWER"),
        ({"sha": "A" * 40}, "UPSTREAM-ANSWER"),
        ({"id": "../../etc"}, "BAD-NAME"),
        ({"id": 7}, "UPSTREAM-ANSWER"),
    ],
)
def test_a_false_commit_of_a_hub_is_refused(hub: HubLike, tmp_path: Path, said: dict[str, Any], code: str) -> None:
    hub.info_said = lambda info: info | said
    with pytest.raises(Malformed) as lie:
        run(order(hub), tmp_path / "work")
    assert lie.value.code == code


def test_an_answer_about_another_commit_is_refused(hub: HubLike, tmp_path: Path) -> None:
    first = hub.repositories[NAME].commits[0].sha
    hub.info_said = lambda info: info | {"sha": "2" * 40}
    with pytest.raises(Malformed):
        run(order(hub, revision=first), tmp_path / "work")
    hub.info_said = lambda info: info
    hub.interfere = only("config.json", lambda asked: Answer(200, b"{}\n", {"X-Repo-Commit": "2" * 40}), times=9)
    with pytest.raises(Untrusted) as lie:
        run(order(hub), tmp_path / "work")
    assert lie.value.code == "UPSTREAM-LIED"


@pytest.mark.parametrize(
    "where", ["http://169.254.169.254/latest", "https://hub.invalid/x", "file:///etc/passwd", "//x.invalid"]
)
def test_a_redirect_to_an_unnamed_host_is_not_followed(hub: HubLike, tmp_path: Path, where: str) -> None:
    hub.interfere = only("config.json", lambda asked: Answer(302, b"", {"Location": where}))
    with pytest.raises(ComityError) as led:
        run(order(hub), tmp_path / "work")
    assert led.value.code in ("UPSTREAM-REDIRECT", "UPSTREAM-ANSWER")


def test_the_content_server_has_to_be_named_where_it_is_not_the_endpoint(hub: HubLike, tmp_path: Path) -> None:
    wanted = replace(order(hub), allowed_hosts=AllowedHosts.to(hub.url))
    with pytest.raises(Untrusted) as led:
        run(wanted, tmp_path / "work")
    assert led.value.code == "UPSTREAM-REDIRECT"
    assert led.value.hint == f"to allow it: --allow-host {hub.cdn.removeprefix('http://')}"
    assert not [asked for asked in hub.asked if asked.cdn]


def test_a_page_link_to_another_host_gets_no_token(hub: HubLike, tmp_path: Path) -> None:
    hub.page = 2
    hub.interfere = only(
        hub.repositories[NAME].commits[0].sha,
        lambda asked: Answer(200, b"[]", {"Link": f'<{hub.cdn}/next>; rel="next"'}) if "/tree/" in asked.path else None,
    )
    with pytest.raises(Untrusted) as led:
        run(order(hub, token=TOKEN), tmp_path / "work")
    assert led.value.code == "UPSTREAM-REDIRECT"
    assert not [asked for asked in hub.asked if asked.cdn]


def test_circular_redirects_end(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = lambda asked: Answer(302, b"", {"Location": asked.path}) if "/resolve/" in asked.path else None
    with pytest.raises(Untrusted) as led:
        run(order(hub), tmp_path / "work")
    assert led.value.code == "UPSTREAM-REDIRECT"


def test_more_bytes_than_listed_are_not_written(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = lambda asked: Answer(200, WEIGHTS * 2) if asked.cdn else None
    with pytest.raises(Untrusted):
        run(order(hub), tmp_path / "work")
    assert all(path.stat().st_size <= len(WEIGHTS) for path in (tmp_path / "work").iterdir())


def test_wrong_bytes_of_the_right_length_accuse_the_hub_and_are_removed(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = lambda asked: Answer(200, b"x" * len(WEIGHTS)) if asked.cdn else None
    with pytest.raises(Untrusted) as lie:
        run(order(hub), tmp_path / "work")
    assert hashlib.sha256(b"x" * len(WEIGHTS)).hexdigest() in lie.value.why
    sizes = {path.stat().st_size for path in (tmp_path / "work").iterdir()}
    assert len(WEIGHTS) not in sizes


def test_a_file_deleted_between_listing_and_fetching_is_reported(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = only("config.json", lambda asked: Answer(404))
    with pytest.raises(NotFound) as gone:
        run(order(hub), tmp_path / "work")
    assert gone.value.code == "UPSTREAM-NOT-FOUND"


@pytest.mark.parametrize(
    "wanted", [UpstreamRequest("nobody/nothing"), UpstreamRequest(NAME, "v99"), UpstreamRequest(NAME, "3" * 40)]
)
def test_a_missing_repository_is_reported_with_the_name_of_the_hub(
    hub: HubLike, tmp_path: Path, wanted: UpstreamRequest
) -> None:
    with pytest.raises(NotFound) as missing:
        run(replace(order(hub), wanted=wanted), tmp_path / "work")
    assert missing.value.code == "UPSTREAM-NOT-FOUND"
    assert str(Origin.of(hub.url)) in missing.value.why


def test_a_disabled_repository_is_not_given_out(hub: HubLike, tmp_path: Path) -> None:
    hub.repositories[NAME].disabled = True
    with pytest.raises(Refused) as denied:
        run(order(hub), tmp_path / "work")
    assert denied.value.code == "UPSTREAM-DENIED"


def test_an_answer_without_end_is_cut_off(hub: HubLike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.upstream.guarded.MAX_RESPONSE_BYTES", 20_000)
    hub.interfere = only("/revision/main", lambda asked: Answer(200, b'"' + b"x" * 100_000 + b'"'))
    with pytest.raises(Malformed) as endless:
        run(order(hub), tmp_path / "work")
    assert endless.value.code == "UPSTREAM-ANSWER"


def test_a_compressed_answer_is_refused_unread(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = only("/revision/main", lambda asked: Answer(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}))
    with pytest.raises(Malformed):
        run(order(hub), tmp_path / "work")


def test_a_silent_hub_times_out_after_some_tries(hub: HubLike, tmp_path: Path) -> None:
    hub.interfere = lambda asked: Answer(200, b"{}", {"Content-Length": "2"}, cut=0, stall=True)
    work = Waits()
    with pytest.raises(Unavailable) as silent:
        run(order(hub), tmp_path / "work", work)
    assert silent.value.code == "UPSTREAM-UNREACHABLE"
    assert len(work.waited) == mirror.MAX_TRIES - 1


def test_an_endpoint_without_a_server_is_unreachable(tmp_path: Path) -> None:
    wanted = MirrorOrder(
        UpstreamRequest(NAME), AllowedHosts.to("http://127.0.0.1:9"), timeouts=Timeouts(read_timeout=0.5, first_delay=0)
    )
    with pytest.raises(Unavailable) as nobody:
        run(wanted, tmp_path / "work")
    assert nobody.value.code == "UPSTREAM-UNREACHABLE"


def test_a_disk_without_space_is_detected_before_the_first_byte(hub: HubLike, tmp_path: Path) -> None:
    wanted, work = order(hub), Waits()
    listing = list_repository(wanted, pin_revision(wanted, work), work)
    with pytest.raises(OutOfSpace) as full:
        fetch_repository(wanted, listing, tmp_path, work, reserve_bytes=2**60)
    assert str(2**60) in full.value.why
    assert "reserve_bytes" in full.value.hint
    assert not [asked for asked in hub.asked if "/resolve/" in asked.path]


def test_cancelled_work_ends_every_download(hub: HubLike, tmp_path: Path) -> None:
    class GivenUp(Waits):
        def progress(self, path: str, count: int) -> None:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run(order(hub), tmp_path / "work", GivenUp())
        raise AssertionError("it went on")


@pytest.mark.parametrize(
    ("endpoint", "hosts", "location", "allowed"),
    [
        ("https://huggingface.co", (), "https://cdn-lfs.hf.co/x", True),
        ("https://huggingface.co", (), "https://huggingface.co/y", True),
        ("https://huggingface.co", (), "http://cdn-lfs.hf.co/x", False),
        ("https://huggingface.co", (), "https://evilhf.co/x", False),
        ("https://huggingface.co", (), "https://hf.co.evil.example/x", False),
        ("https://hub.example", (), "https://cdn-lfs.hf.co/x", False),
        ("https://hub.example", ("cdn.example",), "https://cdn.example/x", True),
        ("https://hub.example", ("cdn.example:8443",), "https://cdn.example/x", False),
        ("https://hub.example", ("cdn.example:8443",), "https://cdn.example:8443/x", True),
        ("https://hub.example", ("cdn.example",), "https://user@cdn.example/x", False),
        ("https://hub.example/prefix", (), "/prefix/other", True),
    ],
)
def test_redirects_of_a_download_are_restricted(
    endpoint: str, hosts: tuple[str, ...], location: str, allowed: bool
) -> None:
    allowed_hosts = AllowedHosts.to(endpoint, hosts, TOKEN)
    if not allowed:
        with pytest.raises(ComityError):
            allowed_hosts.redirect(f"{endpoint}/file", location)
        return
    target = allowed_hosts.redirect(f"{endpoint}/file", location)
    assert ("Authorization" in allowed_hosts.headers(target)) == (Origin.of(target) == allowed_hosts.origin)
