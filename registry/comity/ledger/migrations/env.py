"""Alembic's entry: runs the scripts on the connection that `comity.ledger.database` hands over."""

from __future__ import annotations

from alembic import context
from comity.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
