"""Licences as publishers type them, and their SPDX spelling."""

from __future__ import annotations

import pytest
from comity.trust.errors import Malformed
from comity_client.licences import canonical_licence, is_listed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("  MIT ", "MIT"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("Apache-2.0 OR MIT", "Apache-2.0 OR MIT"),
        ("mit and (bsd-3-clause or isc)", "MIT AND (BSD-3-Clause OR ISC)"),
        ("gpl-2.0-only with classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("apache-2.0+", "Apache-2.0+"),
        ("lgpl-3.0+", "LGPL-3.0-or-later"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("LicenseRef-Gemma-Terms", "LicenseRef-Gemma-Terms"),
        ("licenseref-Gemma or mit", "LicenseRef-Gemma OR MIT"),
        ("documentref-x:licenseref-y", "DocumentRef-x:LicenseRef-y"),
        ("Other", "other"),
    ],
)
def test_a_licence_is_written_in_its_spdx_spelling(typed: str, written: str) -> None:
    assert canonical_licence(typed) == written
    assert canonical_licence(written) == written


@pytest.mark.parametrize(
    "typed",
    [
        *("Apache2", "MIT/Apache-2.0", "MIT Apache-2.0", "MIT OR", "((MIT", "MIT WITH Apache-2.0", "WITH", "NONE"),
        *("llama3", "Classpath-exception-2.0", "LicenseRef-", "nothing+", "Apache License 2.0"),
        "(" * 99 + "x" + ")" * 99,
    ],
)
def test_an_invalid_expression_is_refused_unless_it_is_marked(typed: str) -> None:
    with pytest.raises(Malformed) as caught:
        canonical_licence(typed)
    assert caught.value.code == "BAD-LICENCE"
    assert "--unlisted-licence" in caught.value.hint
    assert canonical_licence(typed, unlisted=True) == typed
    assert not is_listed(typed)


@pytest.mark.parametrize("typed", ["", "  ", "a\nb", "MIT\x1b[0m", "x" * 201])
def test_text_that_no_statement_can_hold_is_refused_in_any_case(typed: str) -> None:
    with pytest.raises(Malformed, match="licence"):
        canonical_licence(typed, unlisted=True)


def test_a_licence_that_was_mistyped_is_guessed() -> None:
    with pytest.raises(Malformed) as caught:
        canonical_licence("Apache2")
    assert caught.value.hint.startswith("--licence Apache-2.0, or ")


TOKENS = [
    "MIT",
    "apache-2.0",
    "LicenseRef-x",
    "AND",
    "or",
    "WITH",
    "Classpath-exception-2.0",
    "(",
    ")",
    "+",
    "/",
    "é",
    "x",
]


@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=9).map(" ".join) | st.text(max_size=60))
def test_any_text_is_converted_or_refused(text: str) -> None:
    try:
        written = canonical_licence(text)
    except Malformed as error:
        assert error.code == "BAD-LICENCE"
    else:
        assert canonical_licence(written) == written
