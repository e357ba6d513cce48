"""What is said of an answer that rests on an earlier pull."""

from __future__ import annotations

import pytest
from comity_client.cache_basis import CacheBasis


@pytest.mark.parametrize(("answered", "nodes"), [(False, "no node answered"), (True, "no node that answered knows it")])
def test_nodes_that_answer_without_the_name_are_not_called_silent(answered: bool, nodes: str) -> None:
    assert CacheBasis("why", None, answered).text == f"{nodes}: this rests on the copy that was pulled before"
