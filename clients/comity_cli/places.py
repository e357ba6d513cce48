"""The options with which a member declares where its node's machines are, and how declarations are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from comity.trust.places import MAX_TEXT, Place, Reach, check_new_jurisdiction

F = TypeVar("F", bound=Callable[..., Any])


def place_options(function: F) -> F:
    """Decorator: `--operator`, `--cloud` and `--reach`, as the arguments `operator`, `cloud` and `reach`."""
    for option in (
        click.option(
            "--reach", multiple=True, metavar="CODE", help="A further jurisdiction whose law reaches the machines."
        ),
        click.option("--cloud", default="", help="The parent company of the cloud; none for own machines."),
        click.option("--operator", default="", help="Who runs the machines. Default: the institution."),
    ):
        function = option(function)
    return function


def declared_place(operator: str, cloud: str, reach: Iterable[str]) -> Place:
    """Raises Malformed (BAD-JURISDICTION, PLACE)."""
    codes = tuple(sorted({check_new_jurisdiction(code) for code in reach}))
    for name, value in (("--operator", operator), ("--cloud", cloud)):
        if len(value) > MAX_TEXT or not value.isprintable():
            raise click.UsageError(f"{name} needs printable text of at most {MAX_TEXT} characters")
    return Place(operator, cloud, codes)


def reach_text(reach: Reach) -> str:
    """`CH, US`; `undeclared` where nothing is declared."""
    return ", ".join(reach) or "undeclared"
