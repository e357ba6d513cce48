"""What every upstream checks of a listing before a file is requested."""

from __future__ import annotations

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from comity.trust.upstream import HTTPS_LIST, Upstream
from comity.upstream.listed_files import MAX_TOTAL, ListedFile, RepositoryListing, RevisionInfo

REVISION = RevisionInfo(Upstream("https://a.example", "a.example/tiny", "1f" * 20, "main", HTTPS_LIST), "", "")


def listing(*files: ListedFile) -> RepositoryListing:
    return RepositoryListing.of(REVISION, {file.path: file for file in files}, {"sub": "2e" * 20})


def test_files_are_listed_by_path() -> None:
    files = [ListedFile("b", 2, lfs=sha256(b"b")), ListedFile("a", MAX_TOTAL - 2)]
    made = listing(*files)
    assert (made.files, made.size, made.folders) == ((files[1], files[0]), MAX_TOTAL, {"sub": "2e" * 20})


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([], "EMPTY"),
        ([ListedFile("a", MAX_TOTAL), ListedFile("b", 1)], "UPSTREAM-ANSWER"),
        ([ListedFile("../a", 1)], "BAD-PATH"),
        ([ListedFile("a", 1), ListedFile("A", 1)], "BAD-PATH"),
    ],
)
def test_what_no_manifest_may_hold_is_refused(files: list[ListedFile], code: str) -> None:
    with pytest.raises(ComityError) as caught:
        listing(*files)
    assert caught.value.code == code
