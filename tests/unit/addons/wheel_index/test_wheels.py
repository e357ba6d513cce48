"""Which files of a manifest are wheels, what the pages of their index say, and in which form."""

from __future__ import annotations

import html.parser
import json
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from comity.addons.wheel_index import wheels
from comity.addons.wheel_index.wheels import (
    HTML,
    HTML_V1,
    JSON_V1,
    PagePlace,
    WheelIndex,
    choose_form,
    index_wheels,
    normalised,
    project_page,
    projects_page,
)
from comity.trust.artifact import FileEntry, Manifest, check_path
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

COMMIT = "3b18" * 10
PLACE = PagePlace("swiss-ai/chat-kit", COMMIT)
PAGE = "https://models.example.org/hub/-/wheels/swiss-ai/chat-kit/v1/simple/numpy/"
PIP = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"


def manifest(*paths: str) -> Manifest:
    return Manifest.of(FileEntry(path, len(path), sha256(path.encode())) for path in paths)


class Links(html.parser.HTMLParser):
    """The links of a page, as a client reads it: address, text and attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self.found.append((str(dict(attrs)["href"]), dict(attrs)))


def listed(index: WheelIndex) -> dict[str, list[str]]:
    return {name: [wheel.file.path for wheel in found] for name, found in index.projects.items()}


def test_wheels_in_any_folder_are_listed_by_the_normalised_name_of_their_project() -> None:
    found = index_wheels(
        manifest(
            "wheels/Foo.Bar-1.0-py3-none-any.whl",
            "wheels/foo_bar-1.1-2build-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "other/torch-2.0+cpu-cp311-cp311-linux_x86_64.whl",
            "epoch-1!2.0-py3-none-any.whl",
            "wheels/source-1.0.tar.gz",
            "kit.json",
        )
    )
    assert listed(found) == {
        "epoch": ["epoch-1!2.0-py3-none-any.whl"],
        "foo-bar": [
            "wheels/Foo.Bar-1.0-py3-none-any.whl",
            "wheels/foo_bar-1.1-2build-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        ],
        "torch": ["other/torch-2.0+cpu-cp311-cp311-linux_x86_64.whl"],
    }
    assert [wheel.version for wheel in found.projects["foo-bar"]] == ["1.0", "1.1"]
    assert normalised("Foo.-_Bar") == "foo-bar"


@pytest.mark.parametrize(
    "name",
    [
        "<script>-1.0-py3-none-any.whl",
        'x"onload="-1.0-py3-none-any.whl',
        "a b-1.0-py3-none-any.whl",
        "été-1.0-py3-none-any.whl",
        "x-1.0-py3-none.whl",
        "x-py3-none-any.whl",
        "-1.0-py3-none-any.whl",
        ".-1.0-py3-none-any.whl",
        "x-1.0-py3-none-any.WHL",
        "x-1.0-py3-none-any.whl.txt",
        f"{'x' * 300}-1.0-py3-none-any.whl",
    ],
)
def test_a_file_whose_name_is_not_that_of_a_wheel_is_not_listed(name: str) -> None:
    assert listed(index_wheels(manifest(name, "good-1.0-py3-none-any.whl"))) == {"good": ["good-1.0-py3-none-any.whl"]}


def test_a_path_upwards_is_in_no_manifest() -> None:
    with pytest.raises(Malformed):
        check_path("../x-1.0-py3-none-any.whl")


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ((), "none of its files is a wheel"),
        (("a/x-1.0-py3-none-any.whl", "b/x-1.0-py3-none-any.whl"), "other files with one name"),
        (("a/x-1.0-py3-none-any.whl", "b/X-1.0-py3-none-any.whl"), "other files with one name"),
        (tuple(f"x-{number}-py3-none-any.whl" for number in range(4)), "more than 3 wheels"),
    ],
)
def test_an_artifact_without_an_unambiguous_index_is_refused(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[str, ...], why: str
) -> None:
    monkeypatch.setattr(wheels, "MAX_WHEELS", 3)
    with pytest.raises(NotFound, match=why) as refused:
        index_wheels(manifest("README.md", *paths))
    assert refused.value.code == "WHEEL-INDEX"


def test_the_same_bytes_under_one_name_in_two_folders_are_one_wheel() -> None:
    name, digest = "x-1.0-py3-none-any.whl", sha256(b"x")
    same = Manifest.of([FileEntry(f"a/{name}", 1, digest), FileEntry(f"b/{name}", 1, digest)])
    assert listed(index_wheels(same)) == {"x": [f"a/{name}"]}


@pytest.mark.parametrize("yanked", ["", "bad <\"&'> one"])
def test_both_forms_of_a_page_name_the_address_and_hash_of_each_wheel(yanked: str) -> None:
    path = "whéels & <more>/numpy-1.0+cpu-py3-none-any.whl"
    index, place = index_wheels(manifest(path)), PagePlace(PLACE.repository, COMMIT, yanked)
    (wheel,) = index.projects["numpy"]
    ((href, attributes),) = Links(project_page("numpy", [wheel], place, HTML)).found
    address, fragment = urldefrag(urljoin(PAGE, href))
    assert unquote(address) == f"https://models.example.org/hub/swiss-ai/chat-kit/resolve/{COMMIT}/{path}"
    assert fragment == f"sha256={wheel.file.sha256}" and attributes.get("data-yanked", "") == yanked
    document = json.loads(project_page("numpy", [wheel], place, JSON_V1))
    assert document == {
        "meta": {"api-version": "1.1"},
        "name": "numpy",
        "versions": ["1.0+cpu"],
        "files": [
            {
                "filename": "numpy-1.0+cpu-py3-none-any.whl",
                "url": href.partition("#")[0],
                "hashes": {"sha256": wheel.file.sha256},
                "size": wheel.file.size,
                "yanked": yanked or False,
            }
        ],
    }


def test_the_list_of_projects_is_the_same_in_both_forms() -> None:
    index = index_wheels(manifest("b-1-py3-none-any.whl", "A.c-1-py3-none-any.whl"))
    assert [href for href, _ in Links(projects_page(index, HTML_V1)).found] == ["a-c/", "b/"]
    document = json.loads(projects_page(index, JSON_V1))
    assert [project["name"] for project in document["projects"]] == ["a-c", "b"]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), max_size=4), st.text(max_size=12))
@pytest.mark.parametrize("form", [HTML, JSON_V1])
@settings(max_examples=examples(60))
def test_no_path_of_a_manifest_puts_more_than_links_into_a_page(form: str, folders: list[str], yanked: str) -> None:
    path = "/".join([*folders, "x-1.0-py3-none-any.whl"])
    try:
        check_path(path)
    except Malformed:
        return
    (wheel,) = index_wheels(manifest(path)).projects["x"]
    place = PagePlace(PLACE.repository, COMMIT, yanked)
    page = project_page("x", [wheel], place, form)
    if form == HTML:
        links = Links(page)
        assert set(links.tags) == {"html", "head", "meta", "title", "body", "a", "br"}
        ((href, _),) = links.found
    else:
        ((href),) = [each["url"] for each in json.loads(page)["files"]]
    resolved = unquote(urldefrag(urljoin(PAGE, href))[0])
    assert resolved == f"https://models.example.org/hub/swiss-ai/chat-kit/resolve/{COMMIT}/{path}"


@pytest.mark.parametrize(
    ("accepted", "form"),
    [
        ("", HTML),
        ("*/*", HTML),
        ("text/html,application/xhtml+xml,*/*;q=0.8", HTML),
        (PIP, JSON_V1),
        ("application/vnd.pypi.simple.v1+html, text/html;q=0.2", HTML_V1),
        ("application/vnd.pypi.simple.latest+json", JSON_V1),
        ("application/vnd.pypi.simple.v1+json;q=0, text/html", HTML),
        ("application/vnd.pypi.simple.v1+json;q=zero", HTML),
        ("application/vnd.pypi.simple.v1+json;q=7", HTML),
        ("application/vnd.pypi.simple.v1+json;q=nan", HTML),
        ("APPLICATION/vnd.pypi.simple.v1+JSON ; Q=0.5", JSON_V1),
        ("application/vnd.pypi.simple.v2+json", HTML),
        (";;;,,,=", HTML),
    ],
)
def test_the_form_of_the_answer_is_what_the_client_prefers(accepted: str, form: str) -> None:
    assert choose_form(accepted) == form


def test_the_pages_name_nothing_that_is_not_in_the_manifest() -> None:
    page = json.loads(project_page("numpy", [], PLACE, JSON_V1))
    assert (page["files"], page["versions"]) == ([], [])
