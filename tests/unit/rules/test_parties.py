"""Parties as users write them."""

from __future__ import annotations

import pytest
from comity.rules.parties import HOLDING_KINDS, MAX_NAME, PARTY_KINDS, UNNAMED_KINDS, Party, parse_party
from comity.trust.errors import Malformed
from hypothesis import given
from hypothesis import strategies as st


@given(st.sampled_from(list(PARTY_KINDS)), st.text(min_size=1, max_size=MAX_NAME))
def test_a_party_that_is_read_is_written_the_same(kind: str, name: str) -> None:
    text = kind if kind in UNNAMED_KINDS else f"{kind}:{name}"
    try:
        found = parse_party(text)
    except Malformed:
        assert kind not in UNNAMED_KINDS and (not name.isprintable() or name != name.strip())
    else:
        assert (str(found), found.kind) == (text, kind)


def test_a_party_of_one_kind_has_no_name_and_the_others_have_one() -> None:
    assert parse_party("package-index") == Party("package-index", "")
    assert parse_party("hub:https://hub.example:8443") == Party("hub", "https://hub.example:8443")
    for text in (
        "package-index:x",
        "package-index:",
        "reach",
        "reach:",
        "moon:1",
        "",
        "reach: US",
        "cloud:\n",
        "Reach:US",
    ):
        with pytest.raises(Malformed) as failure:
            parse_party(text)
        assert failure.value.code == "PARTY-FORM"
    with pytest.raises(Malformed):
        parse_party("cloud:" + "x" * (MAX_NAME + 1))


def test_every_kind_that_takes_copies_has_a_name() -> None:
    assert set(HOLDING_KINDS) <= set(PARTY_KINDS) - UNNAMED_KINDS
