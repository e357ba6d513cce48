"""The options with which a member declares where its node's machines are, and how declarations are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click
from comity.trust.frozen import frozen
from comity.trust.places import MAX_TEXT, Place, Reach, check_new_jurisdiction

from comity_cli.command import options_as

R = TypeVar("R")


@frozen
class PlaceOptions:
    """Who runs the machines of a node, on which cloud, and the further jurisdictions whose law reaches them."""

    operator: str
    cloud: str
    reach: tuple[str, ...]

    @property
    def given(self) -> bool:
        return bool(self.operator or self.cloud or self.reach)

    def declared_by(self, organisation: str, jurisdiction: str) -> Place:
        """Raises Malformed (BAD-JURISDICTION, PLACE)."""
        codes = tuple(sorted({check_new_jurisdiction(code) for code in (jurisdiction, *self.reach)}))
        operator = self.operator or organisation
        for name, value in (("--operator", operator), ("--cloud", self.cloud)):
            if len(value) > MAX_TEXT or not value.isprintable():
                raise click.UsageError(f"{name} needs printable text of at most {MAX_TEXT} characters")
        return Place(operator, self.cloud, codes)


def place_options(function: Callable[..., R]) -> Callable[..., R]:
    """Decorator: `--operator`, `--cloud` and `--reach`, as the argument `declared`."""
    function = options_as("declared", PlaceOptions)(function)
    for option in (
        click.option(
            "--reach", multiple=True, metavar="CODE", help="A further jurisdiction whose law reaches the machines."
        ),
        click.option("--cloud", default="", help="The parent company of the cloud; none for own machines."),
        click.option("--operator", default="", help="Who runs the machines. Default: the institution."),
    ):
        function = option(function)
    return function


def reach_text(reach: Reach) -> str:
    """`CH, US`; `undeclared` where nothing is declared."""
    return ", ".join(reach) or "undeclared"
