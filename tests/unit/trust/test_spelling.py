"""Ids as people read them: groups, checksums, syllables, printable text."""

from __future__ import annotations

import base64
import re
import zlib

import pytest
from comity.trust.encoding import SYLLABLE_BITS, Digest, format_id, printable, sha256, syllables

ID = sha256(b"an identity")


@pytest.mark.parametrize("number", range(8))
def test_the_grouped_form_is_the_id_in_base32_and_a_checksum(number: int) -> None:
    identifier = sha256(b"%d" % number)
    text = format_id(identifier)
    assert re.fullmatch(r"[A-Z2-7]{7}(-[A-Z2-7]{7}){7}", text)
    digits = text.replace("-", "")
    assert base64.b32decode(digits[:52] + "====") == bytes.fromhex(identifier)
    check = 0
    for digit in digits[52:]:
        check = check * 32 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".index(digit)
    assert check == zlib.crc32(bytes.fromhex(identifier)) % 2**20


@pytest.mark.parametrize("at", range(0, 64, 7))
def test_one_wrong_digit_changes_the_checksum(at: int) -> None:
    other = Digest(ID[:at] + format(int(ID[at], 16) ^ 1, "x") + ID[at + 1 :])
    assert format_id(other)[-4:] != format_id(ID)[-4:]


def test_syllables_are_four_pronounceable_words() -> None:
    assert re.fullmatch(r"([bdfghjklmnprstvz][aiou]){2}[bdfghjklmnprstvz](-\w{5}){3}", syllables(ID))


def test_plain_text_is_one_printable_line() -> None:
    assert printable("a\nb\x1b[0m\u202ec\udcff é") == "a\\nb\\x1b[0m\\u202ec\\udcff é"
    assert printable("Institute 日本 …") == "Institute 日本 …"


def test_syllables_encode_the_first_bits_only() -> None:
    assert syllables(Digest(ID[: SYLLABLE_BITS // 4] + "0" * 48)) == syllables(ID)
    assert syllables(Digest("0" * 64)) == "-".join(["babab"] * 4)
    assert syllables(Digest("f" * 64)) == "-".join(["zuzuz"] * 4)
    words = {syllables(Digest(format(value, "04x") + "0" * 60)) for value in range(65_536)}
    assert len(words) == 65_536
