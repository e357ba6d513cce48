"""The erasure code of bundles on several disks."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from comity.trust.errors import Malformed, NotFound
from comity_client.bundles.erasure import ErasureCode


@pytest.mark.parametrize("total", range(1, 8))
def test_every_choice_of_k_of_n_disks_restores_all_data(total: int) -> None:
    source = random.Random(total)
    for data in range(1, total + 1):
        code = ErasureCode(data, total)
        blocks = [source.randbytes(33) for _ in range(data)]
        every = [*blocks, *code.parity(blocks)]
        for chosen in combinations(range(total), data):
            here = {number: every[number] for number in chosen}
            assert [code.restore(wanted, here) for wanted in range(data)] == blocks


def test_the_largest_code_restores_data_from_parity_alone() -> None:
    code, source = ErasureCode(16, 32), random.Random(7)
    blocks = [source.randbytes(100) for _ in range(16)]
    parity = dict(enumerate(code.parity(blocks), 16))
    assert [code.restore(wanted, parity) for wanted in range(16)] == blocks


def test_a_range_of_a_lost_disk_is_restored_from_the_same_range_of_others() -> None:
    code, source = ErasureCode(3, 5), random.Random(1)
    blocks = [source.randbytes(1000) for _ in range(3)]
    every = [*blocks, *code.parity(blocks)]
    here = {number: every[number][200:300] for number in (0, 3, 4)}
    assert code.restore(1, here) == blocks[1][200:300]


def test_fewer_than_k_disks_restore_nothing() -> None:
    with pytest.raises(NotFound) as raised:
        ErasureCode(3, 5).restore(0, {1: b"a", 4: b"b"})
    assert raised.value.code == "LOST-DISKS"


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "/5", "5/3", "0/2", "3/256", "-1/3", "3/5/6", "٣/5", " 3/5", "100/3", "1/1000"]
)
def test_an_invalid_number_of_disks_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        ErasureCode.parse(text)
