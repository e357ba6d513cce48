"""Routes of the distribution protocol: lists in pages, what an address may say, and errors for registry clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from comity.addons.oci.registry import LATEST
from comity.addons.oci.routes import MAX_PAGE, MAX_WARNING, OciRoutes, oci_error
from comity.gateway.hub.views import Refs
from comity.rules.model_pack import IMAGE_MANIFEST
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, PolicyNotMet, Refused, Unavailable
from starlette.requests import Request
from starlette.responses import Response

DIGEST = sha256(b"a document")
DOCUMENT = SimpleNamespace(digest=DIGEST, data=b"{}", media="application/x")


class Slot:
    def slot(self, scope: Any) -> Slot:
        return self

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


class Scene:
    """A registry with these repositories and versions; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.names_here = [f"inst/model-{number}" for number in range(5)]
        self.known = Refs({"v1": "1", "v2": "2", "v10": "3", "bad tag": "4"}, "3")
        self.packed: Any = SimpleNamespace(manifest=DOCUMENT)
        self.found: Any = None
        self.catalogue = self
        self.versions: dict[str, str] = {}
        self.searches = Slot()
        self.asked: list[tuple[Any, ...]] = []
        self.notices: tuple[tuple[str, str], ...] = ()
        self.continues: Any = None
        anything: Any = self
        self.routes = OciRoutes(anything, anything, anything, anything, anything)

    async def reach(self, request: Request) -> str:
        return "all"

    async def names(self, text: str, owner: str, last: str, most: int, reach: str) -> tuple[list[str], str]:
        later = [name for name in self.names_here if name > last]
        return later[:most], (later[most - 1] if len(later) > most else "")

    async def refs(self, repository: str, permit: object) -> Refs:
        return self.known

    def permit(self, request: Request) -> None: ...

    async def manifest(self, repository: str, digest: str, permit: object) -> tuple[Any, Any]:
        self.asked.append((repository, digest))
        return DOCUMENT, SimpleNamespace(notices=self.notices, continues=self.continues)

    async def tagged(self, repository: str, tag: str, permit: object) -> Any:
        self.asked.append((repository, tag))
        return SimpleNamespace(notices=self.notices, continues=None, manifest=SimpleNamespace(files=[1, 2, 3]))

    async def pack(self, snapshot: Any) -> Any:
        return self.packed

    async def snapshot(self, repository: str, revision: str, *permit: object) -> Any:
        self.asked.append((repository, revision))
        if revision not in self.versions:
            raise NotFound("no such version")
        files = [SimpleNamespace(path="tiny.Q4_K_M.gguf")]
        return SimpleNamespace(
            name=self.versions[revision], manifest=SimpleNamespace(files=files), notices=(), continues=None
        )

    async def ollama_image(self, snapshot: Any, wanted: str) -> Any:
        self.asked.append((snapshot.name, wanted))
        return DOCUMENT

    async def blob(self, repository: str, digest: str, permit: object) -> Any:
        return SimpleNamespace(content=DOCUMENT, snapshot=None)

    async def referrers(self, repository: str, digest: str, kind: str | None, permit: object) -> bytes:
        self.asked.append((repository, digest, kind))
        return b"{}"


@pytest.fixture(name="scene")
def _scene() -> Scene:
    return Scene()


def request(query: str = "", headers: Mapping[str, str] | None = None, **params: str) -> Request:
    path = {"namespace": "inst", "name": "tiny", **params}
    listed = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "GET", "path": "/v2/x", "query_string": query.encode(), "headers": listed,
                    "path_params": path, "server": ("h", 80), "scheme": "http"})  # fmt: skip


def document(response: Response) -> Any:
    return json.loads(bytes(response.body))


@pytest.mark.parametrize(
    ("query", "names", "link"),
    [
        ("", 5, None),
        ("n=5", 5, None),
        ("n=2", 2, '</v2/x?n=2&last=inst%2Fmodel-1>; rel="next"'),
        ("n=2&last=inst/model-2", 2, None),
        ("n=0", 0, None),
        (f"n={MAX_PAGE + 5}", 5, None),
    ],
)
async def test_repositories_are_listed_in_pages(scene: Scene, query: str, names: int, link: str | None) -> None:
    answer = await scene.routes.repositories(request(query))
    assert len(document(answer)["repositories"]) == names and answer.headers.get("link") == link


@pytest.mark.parametrize("query", ["n=-1", "n=x", "n=1.5", "n=" + "1" * 13, "n="])
async def test_a_count_that_is_none_is_refused(scene: Scene, query: str) -> None:
    for handler in (scene.routes.repositories, scene.routes.tags):
        with pytest.raises(Malformed):
            await handler(request(query))


async def test_tags_are_the_versions_that_stand_and_the_newest(scene: Scene) -> None:
    assert document(await scene.routes.tags(request())) == {"name": "inst/tiny", "tags": [LATEST, "v1", "v10", "v2"]}
    scene.known = Refs({"v1": "1", "v2": "2"}, None, frozenset({"v2"}))
    assert document(await scene.routes.tags(request()))["tags"] == ["v1"]
    scene.known = Refs({}, None)
    assert document(await scene.routes.tags(request()))["tags"] == []


@pytest.mark.parametrize(
    ("query", "tags", "last"),
    [("n=2", [LATEST, "v1"], "v1"), ("n=2&last=v1", ["v10", "v2"], None), ("n=0", [], None), ("last=zzz", [], None)],
)
async def test_tags_are_listed_in_pages(scene: Scene, query: str, tags: list[str], last: str | None) -> None:
    answer = await scene.routes.tags(request(query))
    assert document(answer)["tags"] == tags
    assert answer.headers.get("link") == (f'</v2/x?n=2&last={last}>; rel="next"' if last else None)


@pytest.mark.parametrize(
    "digest", [f"sha512:{DIGEST}", f"sha256:{DIGEST[:-1]}", f"sha256:{DIGEST.upper()}", "sha256:", ":"]
)
async def test_a_digest_that_is_none_is_refused(scene: Scene, digest: str) -> None:
    calls: list[tuple[Callable[[Request], Any], str]] = [
        (scene.routes.manifest, "reference"), (scene.routes.blob, "digest"), (scene.routes.referrers, "digest"),
    ]  # fmt: skip
    for handler, name in calls:
        with pytest.raises(Malformed) as raised:
            await handler(request("", None, **{name: digest}))
        assert raised.value.code == "OCI-DIGEST"
    assert scene.asked == []


async def test_a_manifest_has_its_digest_and_its_notices_as_warnings(scene: Scene) -> None:
    scene.notices = (("withdrawn", 'by "its" publisher\\\r\nX: é'), ("advisory", "x" * 5_000))
    answer = await scene.routes.manifest(request(reference=f"sha256:{DIGEST}"))
    assert (
        answer.headers["docker-content-digest"] == f"sha256:{DIGEST}" and answer.headers["etag"] == f'"sha256:{DIGEST}"'
    )
    first, second = answer.headers.getlist("warning")
    assert first.startswith("299 - \"withdrawn: by 'its' publisher/") and first.isascii() and "\n" not in first
    assert first.count('"') == 2 and len(second) < MAX_WARNING + 20
    assert "x-comity-continues" not in answer.headers
    scene.continues = SimpleNamespace(header="hf:org/tiny@1")
    answer = await scene.routes.manifest(request(reference=f"sha256:{DIGEST}"))
    assert answer.headers["x-comity-continues"] == "hf:org/tiny@1"


async def test_a_client_of_images_gets_the_tag_and_another_one_a_quantisation(scene: Scene) -> None:
    image = {"accept": f"{IMAGE_MANIFEST}, */*"}
    await scene.routes.manifest(request(headers=image, reference="v1"))
    assert scene.asked == [("inst/tiny", "v1")]
    scene.packed = SimpleNamespace(manifest=None)
    with pytest.raises(NotFound, match="3 files do not fit"):
        await scene.routes.manifest(request(headers=image, reference="v1"))


@pytest.mark.parametrize(("tag", "wanted"), [("v1", ("one", LATEST)), ("q8_0", ("main", "q8_0"))])
async def test_a_tag_of_ollama_is_a_version_or_a_quantisation(scene: Scene, tag: str, wanted: tuple[str, str]) -> None:
    scene.versions = {"v1": "one", "main": "main"}
    await scene.routes.manifest(request(reference=tag))
    assert scene.asked[-1] == wanted


async def test_a_document_is_served_with_its_digest(scene: Scene) -> None:
    answer = await scene.routes.blob(request(digest=f"sha256:{DIGEST}"))
    assert (answer.body, answer.headers["docker-content-digest"]) == (b"{}", f"sha256:{DIGEST}")


@pytest.mark.parametrize(("query", "kind"), [("", None), ("artifactType=", None), ("artifactType=a/b", "a/b")])
async def test_a_filter_is_confirmed(scene: Scene, query: str, kind: str | None) -> None:
    answer = await scene.routes.referrers(request(query, digest=f"sha256:{DIGEST}"))
    assert scene.asked == [("inst/tiny", DIGEST, kind)]
    assert answer.headers.get("oci-filters-applied") == ("artifactType" if kind else None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("x", code="NO-SUCH-REPOSITORY"), "NAME_UNKNOWN"),
        (NotFound("x", code="NO-SUCH-REVISION"), "MANIFEST_UNKNOWN"),
        (NotFound("x", code="NO-SUCH-FILE"), "BLOB_UNKNOWN"),
        (NotFound("x", code="ANOTHER"), "NAME_UNKNOWN"),
        (Malformed("x", code="OCI-DIGEST"), "DIGEST_INVALID"),
        (Malformed("x"), "UNSUPPORTED"),
        (Refused("x", code="NO-TOKEN"), "UNAUTHORIZED"),
        (Refused("x"), "DENIED"),
        (PolicyNotMet("x"), "DENIED"),
        (Unavailable("x", code="RATE"), "TOOMANYREQUESTS"),
        (Unavailable("x"), "UNAVAILABLE"),
    ],
)
def test_an_error_has_the_code_of_the_specification_and_that_of_the_gateway(error: ComityError, code: str) -> None:
    answer = oci_error(error)
    said = document(answer)
    assert said["errors"][0]["code"] == code and said["code"] == error.code
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)


def test_a_long_error_is_cut() -> None:
    said = document(oci_error(OutOfSpace("x" * 10_000)))
    assert len(said["errors"][0]["message"]) == len(said["error"]) == MAX_PAGE
