"""The exit status says what is worst of what was found, and the document has all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity_cli.identified import IdentifiedDocument, exit_status
from comity_client.identify.identify import Identified
from comity_client.identify.match import MatchedFiles
from support.identified import BAD, GOOD, identified

FOUND = identified("mine")
NOTHING = MatchedFiles((), (), (), {})
(WHOLE, CHANGED), ELSEWHERE = FOUND.matched.folders, FOUND.matched.files
ACCEPTED = {GOOD: FOUND.artifacts[GOOD]}


def of(matched: MatchedFiles, **more: object) -> Identified:
    values = {"artifacts": ACCEPTED, "unsure": (), "unread": (), **more}
    return replace(FOUND, matched=matched, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (of(replace(NOTHING, folders=(WHOLE,))), 0),
        (of(replace(NOTHING, folders=(replace(WHOLE, in_archive=True),))), 8),
        (of(replace(NOTHING, folders=(replace(WHOLE, missing=("a",)),))), 8),
        (of(replace(NOTHING, files=ELSEWHERE)), 8),
        (of(replace(NOTHING, folders=(WHOLE,)), unread=FOUND.unread), 5),
        (of(replace(NOTHING, folders=(WHOLE,)), unsure=FOUND.unsure), 5),
        (of(NOTHING, files=0), 5),
        (of(replace(NOTHING, unknown=FOUND.matched.unknown), unread=FOUND.unread), 9),
        (of(replace(NOTHING, unknown=FOUND.matched.unknown), artifacts=FOUND.artifacts), 4),
        (of(replace(NOTHING, folders=(CHANGED,)), artifacts=FOUND.artifacts), 3),
    ],
)
def test_the_exit_status_is_that_of_the_worst(found: Identified, status: int) -> None:
    assert exit_status(found) == status


def test_the_document_has_everything_that_was_found() -> None:
    made = IdentifiedDocument.of(FOUND)
    assert [(each.artifact, each.accepted, each.exit_status) for each in made.artifacts] == [
        (GOOD, None, 0),
        (BAD, None, 4),
    ]
    assert [(each.state, each.or_any_of) for each in made.folders] == [("complete", ()), ("changed", (GOOD,))]
    assert [(str(each.file), each.path) for each in made.files] == [("blobs/1", "model.bin")]
    assert [str(each.file) for each in (*made.unknown, *made.unsure)] == ["mine", "undecided"]
    assert [each.problem for each in made.unread] == [FOUND.unread[0].problem]
    assert [(each.same, each.tensors, each.renamed.names) for each in made.tensors] == [(8, 9, ("x = a",))]
    assert [(each.node, each.complete) for each in made.nodes] == [("one.example", True), ("two.example", False)]
    assert made.exit_status == 3
