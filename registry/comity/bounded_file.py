"""Files of a bounded size, read whole. Nothing else is loaded for this, so that a light command starts soon."""

from __future__ import annotations

from pathlib import Path

from comity.trust.errors import Malformed, NotFound, Unavailable


def read_bounded(path: Path, limit: int, *, hint: str = "", code: str | None = None) -> bytes:
    """Read a file. Raises NotFound with `hint`, Unavailable, and Malformed with `code` if it has more than `limit`
    bytes."""
    data = read_at_most(path, limit + 1, hint=hint)
    if len(data) > limit:
        raise Malformed(f"{path.name} is too large", why=f"more than {limit} bytes", code=code)
    return data


def read_at_most(path: Path, limit: int, *, hint: str = "") -> bytes:
    """Read the first `limit` bytes of a file. Raises NotFound with `hint` if there is none, and Unavailable."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}", hint=hint) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read", why=error.strerror or str(error)) from error
