"""The proven tables of a ledger, as values that can be compared between nodes."""

from __future__ import annotations

from comity.ledger import name_search, schema
from comity.ledger.ledger import Ledger
from sqlalchemy import Table, select

Row = tuple[object, ...]

PORTABLE = {
    "include_name": lambda name, kind, parents: kind != "table" or not str(name).startswith(name_search.TABLE),
}
"""The tables to compare with `schema`: without the index of names, which each database has in its own form."""

COMPARED: dict[str, tuple[str, ...]] = {
    "statements": ("statement", "predicate", "by"),
    "subjects": ("digest", "kind"),
    "identities": ("id", "home", "display"),
    "rotations": ("identity", "statement"),
    "nodes": ("id", "key"),
    "publications": ("predicate", "name", "publisher", "version", "repository", "artifact", "kind"),
    "claimants": ("name", "publisher"),
}
"""Columns that do not depend on the order in which a node proved things."""


def tables(ledger: Ledger) -> dict[str, set[Row]]:
    """The proven rows, with the log of each position by its key. `number` and `turn`, which count the order, are left
    out; so is the choice of a position where any of several is correct.
    """
    with ledger._database.reading() as connection:
        logs = {row.id: row.vkey for row in connection.execute(select(schema.logs))}
        found: dict[str, set[Row]] = {}
        for name, columns in COMPARED.items():
            table: Table = schema.metadata.tables[name]
            placed = name in ("statements", "subjects", "publications")
            rows = connection.execute(select(table)).mappings()
            found[name] = {
                (*(row[column] for column in columns), *((logs[row["log_id"]], row["index"]) if placed else ()))
                for row in rows
            }
        return found


def parked(ledger: Ledger) -> set[tuple[str, int]]:
    """The positions of the lines that wait for keys."""
    with ledger._database.reading() as connection:
        logs = {row.id: row.vkey for row in connection.execute(select(schema.logs))}
        return {(logs[row.log_id], row._mapping["index"]) for row in connection.execute(select(schema.parked))}
