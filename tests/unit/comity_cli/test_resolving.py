"""Commands that only show something advise no pull where a name does not resolve."""

from __future__ import annotations

import pytest
from comity.trust.errors import NotFound
from comity_cli.command import resolving

WITHDRAWN = "comity pull swiss-ai/tiny@v1"


@pytest.mark.parametrize(
    ("hint", "by_node", "told"),
    [
        (WITHDRAWN, False, "comity show swiss-ai/tiny@v1"),
        ("comity search tiny", False, "comity search tiny"),
        (WITHDRAWN, True, WITHDRAWN),
    ],
)
def test_a_version_to_name_is_named_to_the_command_that_was_typed(hint: str, by_node: bool, told: str) -> None:
    error = NotFound("swiss-ai/tiny has only withdrawn versions", hint=hint)
    error.by_node = by_node
    with pytest.raises(NotFound) as caught, resolving("show"):
        raise error
    assert caught.value.hint == told
