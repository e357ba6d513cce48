"""Click path types for files and folders, and the `--out` option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FILE: Final = click.Path(dir_okay=False, path_type=Path)
NEW_FOLDER: Final = click.Path(file_okay=False, path_type=Path)


def out_option(default: str) -> Callable[[F], F]:
    """Decorator: `--out FILE` for a command that writes one document."""
    return click.option(
        "--out", "target", type=NEW_FILE, default=Path(default), show_default=True, help="The file to write."
    )
