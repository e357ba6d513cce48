"""Routes that declare who may ask them. A route checks its declaration before its handler runs, and answers every error
in the form of its clients; one without a declaration is refused to everybody, and the gateway does not start with a
route that has no place for one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import field
from typing import Final, Literal, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from comity.gateway.http import on_error
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.wire.access import undeclared

Who = Literal["everybody", "readers", "readers of the repository", "holders of a token", "viewers", "operators"]
"""Readers are everybody at a public gateway, else holders of a token of this node, and at the console also people who
signed in. A viewer and an operator are people who signed in; an operator may do what a viewer may."""
Handler = Callable[[Request], Awaitable[Response]]


class RouteAccess(Protocol):
    """Who may ask a route."""

    @property
    def who(self) -> Who: ...

    @property
    def form(self) -> bool:
        """Whether the route takes a form of the console, which only a page of this node may send."""

    async def require(self, request: Request) -> None:
        """Raise Refused unless the request may be answered; NotFound and Malformed if its address or form names
        nothing."""


@frozen
class Everybody:
    """The handler may ask for more: which checkpoints are taken depends on their signatures."""

    who: Who = "everybody"
    form: bool = False

    async def require(self, request: Request) -> None:
        """Nothing is required."""


EVERYBODY: Final = Everybody()


@frozen
class RouteAnswers:
    """How the answers of a family of routes look to its clients: `errors` makes the answer to an error, and each answer
    gets `headers`. `below` is the path below which no other family has a route: the errors of addresses that do not
    exist have the same form there."""

    errors: Callable[[Request, ComityError], Awaitable[Response]] = on_error
    headers: Mapping[str, str] = field(default_factory=dict)
    below: str = ""


PLAIN: Final = RouteAnswers()


class DeclaredRoute(Route):
    """A route with its declaration. `access` is read at each request."""

    def __init__(
        self,
        path: str,
        handler: Handler,
        access: RouteAccess,
        *,
        answers: RouteAnswers = PLAIN,
        methods: Collection[str] = ("GET",),
    ) -> None:
        self.access: RouteAccess | None = access
        self.answers = answers

        async def answer(request: Request) -> Response:
            try:
                if self.access is None:
                    raise undeclared(f"ask {path}")
                await self.access.require(request)
                response = await handler(request)
            except ComityError as error:
                response = await answers.errors(request, error)
            response.headers.update(answers.headers)
            return response

        super().__init__(path, answer, methods=methods)


def require_declared(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """Return the routes. Raises Refused (ACCESS-UNDECLARED) if one has no declaration."""
    found = list(routes)
    for route in found:
        if not isinstance(route, DeclaredRoute) or route.access is None:
            raise undeclared(f"ask {getattr(route, 'path', type(route).__name__)}")
    return found


def answers_below(routes: Iterable[BaseRoute], path: str) -> RouteAnswers:
    """How errors look at an address that no route has."""
    families = (route.answers for route in routes if isinstance(route, DeclaredRoute))
    return next((family for family in families if family.below and path.startswith(family.below)), PLAIN)
