"""A node's context of which a test has only some parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from comity.node.context import NodeContext


def node_context(**parts: Any) -> NodeContext:
    """A context with these parts. The others are missing: a test that reads one fails."""
    return cast(NodeContext, SimpleNamespace(**parts))
