"""The Python API: one object, synchronous, thin. Each method opens a session, awaits one function of its room, and
returns plain values. Errors are those of `comity.trust.errors`, each with the next step as its hint."""

from __future__ import annotations

from pathlib import Path

from comity.trust.errors import NotFound

from comity_client.api.mirroring import Mirroring
from comity_client.api.publishing import Publishing
from comity_client.api.reporting import Reporting
from comity_client.api.trusting import Trusting
from comity_client.compute import models
from comity_client.compute.fitting import Model
from comity_client.compute.market import Market
from comity_client.governance.chamber import Chamber
from comity_client.nodes.session import Session
from comity_client.pulling.held import reference_of
from comity_client.pulling.hub_cache import cached, default_cache


class Client(Trusting, Mirroring, Reporting, Publishing):
    """A user's client.

    Args:
        home: where it remembers; `Home.default()` where not given.
        limits: patience and bounds of transfers.
    """

    def chamber(self, federation: str = "") -> Chamber:
        """Governance of a pinned federation: of the one whose id begins with `federation`, or of the only one.
        Raises NotFound."""
        pins = [pin for pin in self._trust().pins() if pin.id.startswith(federation)]
        if len(pins) != 1:
            why = f"{len(pins)} pinned federations are meant"
            raise NotFound("which federation?", why=why, hint="comity trust show", code="WHICH-FEDERATION")
        return Chamber(pins[0].federation, self._with)

    def market(self) -> Market:
        """Offers, requests and grants, by all pinned federations."""
        return Market(tuple(pin.federation for pin in self._trust().pins()), self._with)

    def model(self, what: Path | str, pattern: str = "", hub_cache: Path | None = None) -> Model:
        """How much memory a model takes, for `compute.fitting.fit`: of a folder, of the copy in a Hub cache, or of what
        nodes have, of which headers alone are fetched. Raises as `resolve` does; NotFound without weights, Malformed
        (WHICH-WEIGHTS) where `pattern` has to choose one of several models."""
        folder = Path(what)
        if isinstance(what, str) and not folder.is_dir():
            try:
                folder = cached(hub_cache or default_cache(), reference_of(what))
            except NotFound:
                return self._with(lambda session: self._model(session, what, pattern))
        return models.model_in(folder, pattern)

    async def _model(self, session: Session, reference: str, pattern: str) -> Model:
        return await models.model_of(session, await self._resolve(session, reference, self.policy()), pattern)
