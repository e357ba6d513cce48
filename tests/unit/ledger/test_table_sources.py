"""Each table of a ledger has a source, and what is made again together."""

from __future__ import annotations

from comity.ledger import name_search
from comity.ledger.schema import metadata
from comity.ledger.table_sources import SOURCES, TableSource, emptied_with, source_of


def test_each_table_has_a_source() -> None:
    assert set(SOURCES) == {*metadata.tables, name_search.TABLE}


def test_tables_that_refer_to_each_other_are_emptied_together() -> None:
    derived = {table for table, source in SOURCES.items() if source is TableSource.ENTRIES}
    assert emptied_with(frozenset({"claimants"})) == derived
    assert emptied_with(frozenset({"publication_words_data"})) == derived
    assert emptied_with(frozenset({"pieces", "tiles"})) == {"pieces", "piece_records", "tiles"}
    assert emptied_with(frozenset({"entries"})) == frozenset()


def test_an_unknown_table_is_made_again_by_nobody() -> None:
    assert source_of("of_a_later_version") is TableSource.HERE
