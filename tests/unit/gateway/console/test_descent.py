"""The page of descent: counted in the background and never for a page, drawn so that no colour alone says anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.gateway.console import descent as module
from comity.gateway.console.descent import CountedDescent, DescentKeeper, share_bars
from comity.gateway.console.languages import LANGUAGES
from comity.rules.descent import NOWHERE, DescentCount, DescentQuestion, LineageRoot
from comity.rules.descent_shares import DescentFolder, DescentShares, KnownLaws
from comity.wire.descent import DescentPage
from support.console import read_page

ALICE = "a" * 64
LAWS = KnownLaws({ALICE: "CH"}, {"hf:google": "US"}, {})
COUNTS = (
    DescentCount((LineageRoot("hf:google", "mirrored"),), True, 6, 60, 0, 0, 0),
    DescentCount((LineageRoot("hf:google", "claimed"), LineageRoot(ALICE, "signed")), True, 3, 30, 0, 0, 0),
    DescentCount((NOWHERE,), True, 1, 10, 0, 0, 0),
)


def shares(*counts: DescentCount) -> DescentShares:
    folder = DescentFolder(LAWS)
    folder.add(counts)
    return folder.shares("node", 0, 13)


class Counter:
    """Two pages, and how often the first was asked for."""

    def __init__(self) -> None:
        self.counts = 0

    async def page(self, question: DescentQuestion, after: int) -> DescentPage:
        assert question == DescentQuestion()
        self.counts += after == 0
        return DescentPage(0, COUNTS[:1], 7, 13) if after == 0 else DescentPage(2, COUNTS[1:], 0, 13)


def keeper(laws: Path | None = None, times: Iterator[float] | None = None) -> tuple[DescentKeeper, Counter]:
    async def now(work: Any, *given: Any) -> Any:
        return work(*given)

    counter = Counter()
    home: Any = SimpleNamespace(
        membership=SimpleNamespace(body=None, own_node=SimpleNamespace(record=SimpleNamespace(name="node-ch"))),
        config=SimpleNamespace(gateway=SimpleNamespace(laws_file=laws)),
        pools=SimpleNamespace(files=now),
        clock=lambda: 5.0,
    )
    given: Any = counter
    passing = times or itertools.count()
    return DescentKeeper(home, given, lambda: float(next(passing))), counter


def kept(made: DescentKeeper) -> CountedDescent:
    assert made.last is not None
    return made.last


async def test_all_pages_of_the_node_are_counted_once_at_the_start() -> None:
    made, counter = keeper()
    await made.step()
    await made.step()
    found = kept(made)
    assert (found.shares.source, found.shares.total.artifacts, found.shares.unread, found.at) == ("node-ch", 10, 2, 5.0)
    assert (counter.counts, found.problem) == (1, "")


async def test_it_counts_again_when_a_page_was_asked_for_and_not_sooner_than_its_cost_allows() -> None:
    made, counter = keeper(times=iter((0.0, 2.0, 199.0, 203.0, 204.0)))
    await made.step()  # it takes two seconds: the next count is at 202 or later
    await made.step()  # nobody asked: the time is not looked at
    made.want()
    await made.step()
    assert counter.counts == 1
    await made.step()
    assert counter.counts == 2
    await made.step()
    assert counter.counts == 2


async def test_laws_come_from_the_file_of_the_operator_and_without_it_the_page_says_why(tmp_path: Path) -> None:
    file = tmp_path / "laws.toml"
    file.write_text('[laws]\n"hf:google" = "US"\n')
    made, _ = keeper(file)
    await made.step()
    assert [share.law.code for share in kept(made).shares.laws][:1] == ["US"]
    file.write_text("[laws")
    made, _ = keeper(file)
    await made.step()
    assert "malformed" in kept(made).problem and kept(made).shares.total.artifacts == 10


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_part_of_a_bar_has_a_sign_and_a_name_and_its_share_is_written(language: str) -> None:
    picture = read_page(str(share_bars(shares(*COUNTS), language)))
    drawn = [each for each in picture.found("rect") if each["class"] != "empty"]
    assert [each["class"] for each in drawn] == ["mirrored", "claimed", "signed", "unknown"]
    assert len(picture.found("title")) == 3 + 4
    assert [sign for sign in ("90 %", "30 %", "10 %", "US", "CH", "=", "“", "✓", "?") if sign not in picture.text] == []


def test_each_part_of_a_bar_begins_where_the_part_before_it_ends() -> None:
    picture = read_page(str(share_bars(shares(*COUNTS), "en")))
    first, second, *_ = [each for each in picture.found("rect") if each["class"] != "empty"]
    assert int(first["x"]) + int(first["width"]) == int(second["x"])
    assert int(second["x"]) + int(second["width"]) == module.LABEL + round(module.BAR * 0.9)


def test_nothing_is_drawn_of_nothing_and_a_bounded_number_of_laws_otherwise() -> None:
    assert share_bars(shares(), "en") == ""
    codes = [f"{first}{second}" for first in "ABCD" for second in "EFGH"]
    laws = KnownLaws({}, {f"hf:{code}": code for code in codes}, {})
    folder = DescentFolder(laws)
    folder.add(DescentCount((LineageRoot(f"hf:{code}", "mirrored"),), True, 1, 1, 0, 0, 0) for code in codes)
    assert str(share_bars(folder.shares("node", 0, 13), "en")).count("<g>") == module.BARS
