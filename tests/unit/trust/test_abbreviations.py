"""Abbreviated ids, as users type them."""

from __future__ import annotations

import pytest
from comity.trust.encoding import Digest, format_id, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.names import MIN_DIGITS, SHOWN, Abbreviation, abbreviated, find_id, is_meant, parse_id
from hypothesis import given
from hypothesis import strategies as st

ID = sha256(b"an identity")
NEAR = Digest(ID[:10] + "e" * 54)
OTHER = sha256(b"another")
KNOWN = {ID: "Lab", NEAR: "Rival", OTHER: ""}


@given(st.binary(min_size=32, max_size=32))
def test_the_grouped_form_reads_back(raw: bytes) -> None:
    digest = Digest(raw.hex())
    for text in (format_id(digest), format_id(digest).lower(), format_id(digest).replace("-", ""), f" {digest} "):
        assert parse_id(text) == digest
    assert parse_id(f"sha256:{digest}") == digest


@pytest.mark.parametrize("at", [0, 8, 30, 54, 61])
def test_a_wrong_digit_of_the_grouped_form_is_refused(at: int) -> None:
    text = format_id(ID)
    wrong = "A" if text[at] != "A" else "B"
    with pytest.raises(Malformed, match="check digits") as caught:
        parse_id(text[:at] + wrong + text[at + 1 :])
    assert caught.value.code == "BAD-ID"


@pytest.mark.parametrize(
    "text", ["", "x", ID[:-1], f"{ID}0", "sha256:", "sha512:" + ID, format_id(ID)[:-1], "…", "1" * 65]
)
def test_an_abbreviated_text_is_no_id(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_id(text)
    assert caught.value.code == "BAD-ID"


@pytest.mark.parametrize(
    "text",
    [ID[:12], f"sha256:{ID[:11]}", short(ID), ID[:11].upper(), f"{ID[:5]}...{ID[-4:]}", f"{ID[:30]}…{ID[-33:]}", ID],
)
def test_enough_digits_find_the_only_id(text: str) -> None:
    assert find_id(text, KNOWN, "publisher", "comity search") == ID


def test_the_first_digits_of_two_ids_are_ambiguous_and_both_are_listed() -> None:
    with pytest.raises(Malformed) as caught:
        find_id(ID[:10], KNOWN, "publisher", "comity search")
    assert caught.value.code == "AMBIGUOUS-ID"
    assert f"{ID} Lab" in caught.value.why and f"{NEAR} Rival" in caught.value.why and OTHER not in caught.value.why


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        (ID[:7], Malformed, "BAD-ID"),
        ("…" + ID[-9:], Malformed, "BAD-ID"),
        (ID[:3] + "…" + ID[-4:], Malformed, "BAD-ID"),
        ("0" * 12, NotFound, "UNKNOWN-ID"),
        ("swiss-ai", Malformed, "BAD-ID"),
    ],
)
def test_other_text_finds_nothing(text: str, kind: type[ComityError], code: str) -> None:
    with pytest.raises(kind) as caught:
        find_id(text, KNOWN, "publisher", "comity search")
    assert caught.value.code == code


def test_an_id_with_all_its_digits_need_not_be_known() -> None:
    unknown = sha256(b"nobody knows it")
    assert find_id(unknown, KNOWN, "publisher", "") == find_id(format_id(unknown), {}, "publisher", "") == unknown


@given(st.text(max_size=80))
def test_any_text_is_a_valid_abbreviation_or_refused(text: str) -> None:
    try:
        found = Abbreviation.parse(text)
    except Malformed as error:
        assert error.code == "BAD-ID"
    else:
        assert found is None or len(found.head + found.tail) >= 8


def test_the_fewest_digits_may_be_at_either_end() -> None:
    head, tail = ID[: MIN_DIGITS - 3], ID[-3:]
    assert Abbreviation.parse(ID[:MIN_DIGITS]) == Abbreviation(ID[:MIN_DIGITS])
    assert Abbreviation.parse(f"{head}…{tail}") == Abbreviation(head, tail)
    for text in (ID[: MIN_DIGITS - 1], f"{head[:-1]}…{tail}"):
        with pytest.raises(Malformed, match=f"{MIN_DIGITS - 1} digits"):
            Abbreviation.parse(text)


@pytest.mark.parametrize("count", [2, SHOWN, SHOWN + 1, SHOWN + 3])
def test_an_ambiguous_abbreviation_lists_its_first_candidates_in_order_and_counts_the_others(count: int) -> None:
    ids = [Digest(f"{ID[:10]}{number:054x}") for number in range(count)]
    with pytest.raises(Malformed) as caught:
        find_id(ID[:10], dict.fromkeys(reversed(ids), "x"), "publisher", "")
    more = f"; and {count - SHOWN} more" if count > SHOWN else ""
    assert caught.value.why == f"{count} publisher ids match: " + "; ".join(f"{each} x" for each in ids[:SHOWN]) + more


@pytest.mark.parametrize(
    "text", [ID, f"sha256:{ID}", format_id(ID), ID[:8], short(ID), f"{ID[:-1]}…", f" {ID[:9].upper()} "]
)
def test_a_text_means_the_id_that_it_gives_or_abbreviates_and_no_other(text: str) -> None:
    assert is_meant(text, ID)
    assert not is_meant(text, OTHER)


@pytest.mark.parametrize("text", ["", "swiss-ai", ID[:7], f"{ID}0"])
def test_a_text_that_is_no_id_means_none(text: str) -> None:
    assert not is_meant(text, ID)


@pytest.mark.parametrize("before", ["", "comity://"])
@pytest.mark.parametrize(
    ("text", "repository", "found"),
    [
        ("9f2c41d0", None, Abbreviation("9f2c41d0")),
        ("9f2c4…e01a", None, Abbreviation("9f2c4", "e01a")),
        ("sha256:9f2c41d0", None, Abbreviation("9f2c41d0")),
        ("a/b@sha256:9f2c41d0", "a/b", Abbreviation("9f2c41d0")),
        ("hf:a/b@sha256:9f2c4...e01a", "hf:a/b", Abbreviation("9f2c4", "e01a")),
    ],
)
def test_an_abbreviated_digest_is_found_in_a_reference(
    before: str, text: str, repository: str | None, found: Abbreviation
) -> None:
    assert abbreviated(before + text) == (repository, found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b",
        "a/b@v1",
        "a/b@9f2c41d0",
        "9f2c41d0/b",
        "9f2c41d",
        "sha256:word",
        ID,
        f"sha256:{ID}",
        f"a/b@sha256:{ID}",
    ],
)
def test_a_reference_without_an_abbreviated_digest_has_none(text: str) -> None:
    """A version may look like a digest: only `sha256:` behind a name says that it is one."""
    assert abbreviated(text) is None


@pytest.mark.parametrize("text", ["sha256:9f2c41d", "a/b@sha256:9f2c", "9f2c…", "b@sha256:9f2c41d0"])
def test_an_abbreviation_with_too_few_digits_or_behind_a_bad_name_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        abbreviated(text)
