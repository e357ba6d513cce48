"""Repositories of ModelScope: lists of files, and an import from a server that answers in the format of its API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.upstream.download import Timeouts
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import MirrorOrder, default_endpoint, fetch_repository, list_repository, pin_revision
from comity.upstream.model_scope import parse_files
from support.model_scope_site import answer, item, model_scope_site

FILES = {"config.json": b"{}\n", "sub/weights bin": bytes(range(256)) * 400}
WANTED = UpstreamRequest.parse("ms:org/tiny")


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        pass


def test_a_repository_is_mirrored_and_a_replaced_file_is_another_commit(tmp_path: Path) -> None:
    site = tmp_path / "site"
    with model_scope_site(site, FILES) as server:
        order = MirrorOrder(WANTED, AllowedHosts.to(server.url), timeouts=Timeouts(first_delay=0.01))
        pinned = pin_revision(order, Silent())
        (tmp_path / "work").mkdir()
        server.cut = 30_000
        listing = list_repository(order, pinned, Silent())
        done = fetch_repository(order, listing, tmp_path / "work", Silent())
        got = {seen.entry.path: path.read_bytes() for seen, path in zip(done.observations, done.paths, strict=True)}
        assert (got, {seen.match for seen in done.observations}) == (FILES, {"sha256"})
        assert pinned.upstream.name == f"ms:org/tiny@{pinned.upstream.commit}"
        server.cut = None
        assert pin_revision(replace(order, wanted=replace(WANTED, revision=pinned.upstream.commit)), Silent())
        with pytest.raises(NotFound):
            pin_revision(replace(order, wanted=replace(WANTED, revision="1f" * 20)), Silent())
        (site / "files").write_bytes(answer(item("config.json", b"[]\n")))
        with pytest.raises(NotFound):
            list_repository(order, pinned, Silent())
        (site / "files").write_bytes(answer(item("../x", b"")))
        with pytest.raises(ComityError) as caught:
            pin_revision(order, Silent())
        assert caught.value.code == "BAD-PATH"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"Data": null}',
        answer("x"),
        answer(item("a", b"", Size=-1)),
        answer(item("a", b"", Size=True)),
        answer(item("a", b"", Sha256="")),
        answer(item("a", b"", Sha256=None)),
        answer(item("a", b""), item("a", b"")),
    ],
)
def test_another_list_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_files(body)
    assert caught.value.code == "UPSTREAM-ANSWER"


def test_each_origin_has_an_endpoint() -> None:
    assert default_endpoint(WANTED) == "https://www.modelscope.cn"
    assert default_endpoint(UpstreamRequest.parse("https:a.example/b")) == "https://a.example"
    assert default_endpoint(UpstreamRequest.parse("hf:a/b")) == "https://huggingface.co"
