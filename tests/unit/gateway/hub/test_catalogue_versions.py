"""The versions of a repository of the gateway: which ones resolve, and how often its publications are read for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from comity.gateway.hub.catalogue import Repository
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, PolicyNotMet
from comity.trust.resolution import MIRROR, Candidate, Preference, PublisherClaim
from support.candidates import OURS, RIVAL, A, B, candidate

BOUND = Preference(PublisherClaim(OURS.id), "bound")


class Counted(tuple[Candidate, ...]):
    """Candidates; `read` is how often they were read, all or in part."""

    read = 0

    def __iter__(self) -> Iterator[Candidate]:
        type(self).read += 1
        return super().__iter__()


@pytest.mark.parametrize("count", [2, 200])
def test_the_publications_are_read_once_however_many_versions_there_are(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counted, "read", 0)
    made = Counted(candidate(f"v{number}", sha256(b"%d" % number), number) for number in range(count))
    repository = Repository("swiss-ai/tiny", made, BOUND)
    for _ in range(2):
        assert len(repository.versions) == count
    for each in tuple.__iter__(made):
        assert repository.version(each.version) is each
    assert Counted.read == 1


def test_the_versions_are_those_that_resolve() -> None:
    older, newer = candidate("v1", A, 3), candidate("v1", A, 9)
    disputed = [candidate("v2", A, 1), candidate("v2", B, 2)]
    gone, rival = candidate("v0", B, 5, withdrawn=True), candidate("v3", B, 1, by=RIVAL)
    made = Repository("swiss-ai/tiny", (older, newer, *disputed, gone, rival), BOUND)
    assert list(made.versions.items()) == [("v0", gone), ("v1", newer)]
    with pytest.raises(PolicyNotMet):
        made.version("v2")
    with pytest.raises(NotFound):
        made.version("v3")
    assert Repository("swiss-ai/tiny", (older, newer), Preference(MIRROR, "first seen")).versions == {}
