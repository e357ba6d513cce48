"""A changed byte of a page is found from the sum that the page had."""

from __future__ import annotations

import random
import zlib

import pytest
from comity.ledger.changed_byte import changed_byte

PAGE = 4096


@pytest.mark.parametrize("offset", [0, 1, 2048, PAGE - 2, PAGE - 1])
@pytest.mark.parametrize("bits", [0x01, 0x80, 0xA5, 0xFF])
def test_the_changed_byte_is_found(offset: int, bits: int) -> None:
    page = bytearray(random.Random(offset * 256 + bits).randbytes(PAGE))
    before = zlib.crc32(page, 17)
    page[offset] ^= bits
    assert changed_byte(PAGE, before ^ zlib.crc32(page, 17)) == (offset, bits)


def test_two_changed_bytes_are_not_taken_for_one_of_them() -> None:
    chance = random.Random(31)
    explained = 0
    for _ in range(50):
        page = bytearray(chance.randbytes(PAGE))
        before = zlib.crc32(page)
        one, other = chance.sample(range(PAGE), 2)
        page[one] ^= chance.randrange(1, 256)
        page[other] ^= chance.randrange(1, 256)
        explained += changed_byte(PAGE, before ^ zlib.crc32(page)) is not None
    assert explained == 0
