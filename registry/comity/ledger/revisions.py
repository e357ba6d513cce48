"""The revision of the tables of a ledger. A module of its own: a check of a ledger's file needs no database library."""

from __future__ import annotations

from typing import Final

NEWEST: Final = "0024"
"""The revision of the newest migration."""
