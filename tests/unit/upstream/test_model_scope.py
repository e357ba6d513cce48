"""Repositories of ModelScope: lists of files, and an import from a server that answers in the format of its API."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.upstream.download import Timeouts
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import MirrorOrder, default_endpoint, fetch_repository, list_repository, pin_revision
from comity.upstream.model_scope import parse_files
from support.file_site import file_server

FILES = {"config.json": b"{}\n", "sub/weights bin": bytes(range(256)) * 400}
WANTED = UpstreamRequest.parse("ms:org/tiny")


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        pass


def item(path: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"Path": path, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest(), **more}


def answer(*items: Any) -> bytes:
    return json.dumps({"Code": 200, "Success": True, "Data": {"Files": items}}).encode()


def test_a_repository_is_mirrored_and_a_replaced_file_is_another_commit(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for path, data in FILES.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    folder = {"Path": "sub", "Type": "tree", "Size": 0}
    (site / "files").write_bytes(answer(folder, *(item(path, data) for path, data in FILES.items())))
    start = "/api/v1/models/org/tiny/repo"
    with file_server(site) as server:

        def route(target: str) -> str:
            head, _, path = target.partition("?Revision=master&FilePath=")
            return (
                path if head == start else {f"{start}/files?Revision=master&Recursive=True": "files"}.get(target, "-")
            )

        server.route = route
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
