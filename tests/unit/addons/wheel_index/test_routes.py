"""Routes of the index of wheels: which pages, in which form, and what installers read of an error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from comity.addons.wheel_index.routes import ANSWERS, YANKED, WheelRoutes
from comity.addons.wheel_index.wheels import HTML, JSON_V1
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound, Refused
from starlette.requests import Request
from starlette.responses import Response

MANIFEST = Manifest.of([FileEntry("wheels/Foo_Bar-1.0-py3-none-any.whl", 1, sha256(b"x"))])


class Scene:
    """A catalogue with one artifact; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.catalogue = self
        self.asked: list[tuple[str, str]] = []
        self.withdrawn = False
        self.made = 0
        anything: Any = self
        self.routes = WheelRoutes(anything, anything, anything)

    def permit(self, request: Request) -> None: ...

    async def snapshot(self, repository: str, revision: str, permit: object) -> Any:
        self.asked.append((repository, revision))
        return SimpleNamespace(
            repository="Inst/Kit",
            own_repository="Inst/Kit",
            artifact=MANIFEST.digest,
            manifest=MANIFEST,
            commit="c" * 40,
        )

    async def is_withdrawn(self, repository: str, artifact: str) -> bool:
        return self.withdrawn

    async def hashing(self, make: Callable[[Manifest], Any], manifest: Manifest) -> Any:
        self.made += 1
        return make(manifest)


@pytest_asyncio.fixture(name="scene")
async def _scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    await scene.routes.close()


def request(*headers: tuple[str, str], **params: str) -> Request:
    path = {"namespace": "inst", "name": "kit", "revision": "v1", **params}
    listed = [(name.encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": listed,
                    "path_params": path})  # fmt: skip


def document(response: Response) -> Any:
    return json.loads(bytes(response.body))


JSON = ("accept", JSON_V1)


async def test_the_index_of_an_artifact_is_made_once(scene: Scene) -> None:
    assert document(await scene.routes.projects(request(JSON)))["projects"] == [{"name": "foo-bar"}]
    page = document(await scene.routes.project(request(JSON, project="foo.bar")))
    assert [file["yanked"] for file in page["files"]] == [False]
    assert scene.asked == [("inst/kit", "v1")] * 2 and scene.made == 1


async def test_a_withdrawn_version_is_marked(scene: Scene) -> None:
    scene.withdrawn = True
    page = document(await scene.routes.project(request(JSON, project="foo-bar")))
    assert [file["yanked"] for file in page["files"]] == [YANKED]


async def test_a_project_without_wheels_is_not_found(scene: Scene) -> None:
    with pytest.raises(NotFound, match="no wheel of 'other'") as refused:
        await scene.routes.project(request(project="other"))
    assert refused.value.code == "NO-SUCH-FILE"


async def test_the_form_follows_all_fields_of_the_request(scene: Scene) -> None:
    plain = await scene.routes.projects(request())
    both = await scene.routes.projects(request(("accept", "text/html;q=0.1"), JSON))
    assert (plain.headers["content-type"], both.headers["content-type"]) == (HTML, JSON_V1)


async def test_a_page_that_the_client_has_is_not_sent_again(scene: Scene) -> None:
    first = await scene.routes.projects(request(JSON))
    again = await scene.routes.projects(request(JSON, ("if-none-match", first.headers["etag"])))
    html = await scene.routes.projects(request(("if-none-match", first.headers["etag"])))
    assert (again.status_code, bytes(again.body), html.status_code) == (304, b"", 200)


@pytest.mark.parametrize(
    ("error", "status", "asks"),
    [
        (Refused("a token of this node is required", code="NO-TOKEN"), 401, 'Basic realm="comity"'),
        (Refused("the token does not cover this repository", code="TOKEN-SCOPE"), 403, None),
        (NotFound("no such version", code="NO-SUCH-REVISION"), 404, None),
    ],
)
async def test_an_installer_is_asked_for_a_password(error: ComityError, status: int, asks: str | None) -> None:
    answer = await ANSWERS.errors(request(), error)
    assert (answer.status_code, answer.headers.get("www-authenticate")) == (status, asks)
