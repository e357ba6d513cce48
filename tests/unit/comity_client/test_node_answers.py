"""One error for the errors of many nodes: its kind, and each reason once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable
from comity_client.session import Answers


class Node:
    def __init__(self, name: str) -> None:
        self.name = name


def answers(errors: Mapping[str, ComityError]) -> Answers[None]:
    failed: Any = {Node(name): error for name, error in errors.items()}
    return Answers({}, failed)


def test_a_reason_that_many_nodes_give_is_named_once() -> None:
    unknown = {f"node-{number}": NotFound("no claim to a/b is known") for number in (2, 1)}
    failure = answers(unknown).failure("a/b is not known", otherwise="comity search b")
    assert isinstance(failure, NotFound)
    assert (failure.why, failure.hint) == ("node-1, node-2: no claim to a/b is known", "comity search b")


@pytest.mark.parametrize("other", [Refused("come later"), Unavailable("no answer")])
def test_reasons_that_differ_name_their_nodes_and_the_kind_is_unavailable(other: ComityError) -> None:
    failure = answers({"node-1": NotFound("not here"), "node-2": other, "node-3": NotFound("not here")}).failure("a/b")
    assert isinstance(failure, Unavailable)
    assert failure.why == f"node-1, node-3: not here; node-2: {other}"
