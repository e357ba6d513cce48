"""Files of a bounded size, read whole. Nothing else is loaded for this, so that a light command starts soon."""

from __future__ import annotations

from pathlib import Path

from comity.trust.errors import Malformed, NotFound


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a file. Raises NotFound, and Malformed if it has more than `limit` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except OSError as error:
        raise NotFound(f"cannot read {path}", why=error.strerror or str(error)) from error
    if len(data) > limit:
        raise Malformed(f"{path.name} is too large", why=f"more than {limit} bytes")
    return data
