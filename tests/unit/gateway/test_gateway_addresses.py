"""Raw paths of the Hub's routes: what each asks for."""

from __future__ import annotations

import pytest
from comity.gateway.hub.views import read_api, read_resolve
from comity.trust.errors import Malformed, NotFound


@pytest.mark.parametrize(
    ("raw", "view", "repository", "revision", "path"),
    (
        ("/api/models/ns/name", "", "ns/name", "main", ""),
        ("/api/models/gpt2", "", "gpt2", "main", ""),
        ("/api/datasets/ns/name/revision/v1", "revision", "ns/name", "v1", ""),
        ("/api/models/gpt2/revision/v1", "revision", "gpt2", "v1", ""),
        ("/api/models/ns/name/revision/refs%2Fpr%2F1", "revision", "ns/name", "refs/pr/1", ""),
        ("/api/models/ns/name/tree/main/a%2Fb", "tree", "ns/name", "main", "a/b"),
        ("/api/models/ns/name/tree/main/a/b/", "tree", "ns/name", "main", "a/b"),
        ("/api/models/ns/name/tree/main", "tree", "ns/name", "main", ""),
        ("/api/models/ns/name/refs", "refs", "ns/name", "main", ""),
        ("/api/models/ns/refs/refs", "refs", "ns/refs", "main", ""),
        ("/api/models/ns%2Fx/name", "", "ns/x/name", "main", ""),
    ),
)
def test_an_api_path_is_read_raw(raw: str, view: str, repository: str, revision: str, path: str) -> None:
    address = read_api(raw)
    assert (address.view, address.repository, address.revision, address.path) == (view, repository, revision, path)


@pytest.mark.parametrize(
    ("raw", "repository", "revision", "path"),
    (
        ("/ns/name/resolve/main/a/b.json", "ns/name", "main", "a/b.json"),
        ("/datasets/ns/name/resolve/v1/a.json", "ns/name", "v1", "a.json"),
        ("/gpt2/resolve/main/config.json", "gpt2", "main", "config.json"),
        ("/spaces/gpt2/resolve/main/config.json", "gpt2", "main", "config.json"),
        ("/ns/resolve/resolve/main/x", "ns/resolve", "main", "x"),
        ("/ns/name/raw/v1/README.md", "ns/name", "v1", "README.md"),
        ("/ns/raw/resolve/main/x", "ns/raw", "main", "x"),
        ("/ns/name/resolve/HEAD/config.json", "ns/name", "main", "config.json"),
        ("/ns/name/resolve/refs%2Fpr%2F1/a%20b", "ns/name", "refs/pr/1", "a b"),
        ("/ns/name/resolve/main/%2e%2e/%2e%2e/etc/passwd", "ns/name", "main", "../../etc/passwd"),
    ),
)
def test_a_resolve_path_is_read_raw(raw: str, repository: str, revision: str, path: str) -> None:
    address = read_resolve(raw)
    assert (address.repository, address.revision, address.path) == (repository, revision, path)


@pytest.mark.parametrize(
    "raw", ("/", "/x", "/ns/name", "/ns/name/resolve", "/ns/name/resolve/main", "/a/b/c/resolve/d/e")
)
def test_an_invalid_path_of_a_repository_is_not_found(raw: str) -> None:
    with pytest.raises(NotFound):
        read_resolve(raw)


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Malformed):
        read_resolve("/ns/name/resolve/main/%ff")


@pytest.mark.parametrize(
    "raw", ("/api/models/old/tree/main/a%20b", "/datasets/old/resolve/v1/a%2Fb", "/old/raw/HEAD/a", "/api/models/old")
)
def test_a_redirect_changes_the_name_and_nothing_else(raw: str) -> None:
    address = (read_api if raw.startswith("/api") else read_resolve)(raw)
    assert address.renamed("ns/new") == raw.replace("old", "ns/new")
