"""How a folder is like the artifact that its files are of."""

from __future__ import annotations

from typing import Literal, TypeAlias

State: TypeAlias = Literal["complete", "complete, with other files", "partial", "changed"]
