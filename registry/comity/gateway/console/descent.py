"""The page of descent: under whose law the roots of the catalogue are, as a picture and as tables.

Counting all artifacts takes seconds of CPU for a hundred thousand of them, so no page counts. A background task counts
once at the start, and again when a page was asked for since and what was counted is `LEAST_AGE` old; and counting takes
at most a hundredth of the time: after a count of `d` seconds it waits for `100 · d`. A page shows the last count with
its age.

Seats of members are in the charter; the law of anybody else is what the operator states in the file of
`[gateway] laws_file`. Not thread-safe: call from the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from comity.bounded_file import read_bounded
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.page import PREFIX, PageMaker, Reader
from comity.gateway.console.state import StateReader
from comity.gateway.console.words import Formats, marked, translations
from comity.gateway.declared_routes import DeclaredRoute
from comity.node.home import ServedHome
from comity.node.services.descent import DescentCounter
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Clock
from comity.rules.descent import BASES, DescentQuestion
from comity.rules.descent_shares import (
    MAX_LAWS_BYTES,
    STATED,
    DescentFolder,
    DescentShares,
    KnownLaws,
    LawShare,
    parse_laws,
    percent,
)
from comity.trust.encoding import short
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen

DESCENT: Final = f"{PREFIX}/descent"
LOOKS: Final = LoopTiming(interval=5.0, deadline=86_400.0)
LEAST_AGE: Final = 60.0
"""Seconds for which a count is kept at least."""
SHARE: Final = 100
"""Counting takes at most one in so many seconds."""
SHOWN_LAWS: Final = 50
SHOWN_ROOTS: Final = 25
BARS: Final = 12
"""Laws in the picture."""
BASIS_WORDS: Final = {
    "signed": marked("Signed"),
    "own": marked("Own"),
    "mirrored": marked("Mirrored"),
    "claimed": marked("Claimed"),
    "unknown": marked("Unknown"),
}
MARKS: Final = {"signed": "✓", "own": "○", "mirrored": "=", "claimed": "“", "unknown": "?"}
"""A sign for each basis, so that no colour alone tells them apart."""


@frozen
class CountedDescent:
    """What was counted last, when (POSIX seconds), and why laws that the operator states are not in it, or empty."""

    shares: DescentShares
    at: float
    problem: str


class DescentKeeper:
    """Counts in the background. `last` is None until it has counted once."""

    def __init__(self, home: ServedHome, counter: DescentCounter, timer: Clock) -> None:
        """`timer`: seconds that never go back."""
        self._home = home
        self._counter = counter
        self._timer = timer
        self._wanted = True
        self._not_before = float("-inf")
        self.last: CountedDescent | None = None

    def want(self) -> None:
        """A page was asked for: count again, once that may be done."""
        self._wanted = True

    async def step(self) -> None:
        """Count, if a page wants it and the last count is old enough."""
        if not self._wanted or (began := self._timer()) < self._not_before:
            return
        self._wanted = False
        self.last = await self._count()
        ended = self._timer()
        self._not_before = ended + max(LEAST_AGE, SHARE * (ended - began))

    async def _count(self) -> CountedDescent:
        membership, stated, problem = self._home.membership, dict[str, str](), ""
        try:
            stated |= await self._home.pools.files(_stated, self._home.config.gateway.laws_file)
        except ComityError as error:
            problem = str(error)
        folder = DescentFolder(KnownLaws.of([membership.body] if membership.body else [], stated))
        after = 0
        while True:
            page = await self._counter.page(DescentQuestion(), after)
            folder.add(page.counts, page.requiring)
            if not page.next:
                break
            after = page.next
        shares = folder.shares(membership.own_node.record.name, page.unread, page.weeks)
        return CountedDescent(shares, self._home.clock(), problem)


def _stated(file: Path | None) -> Mapping[str, str]:
    """Blocking. Raises NotFound, Malformed (LAWS-FILE), Unavailable."""
    return {} if file is None else parse_laws(read_bounded(file, MAX_LAWS_BYTES))


class DescentPages:
    """A page for everybody who may read. At a front end `counter` is None: its writer counts."""

    def __init__(
        self,
        home: ServedHome,
        counter: DescentCounter | None,
        states: StateReader,
        access: GatewayAccess,
        maker: PageMaker,
    ) -> None:
        self._keeper = DescentKeeper(home, counter, time.monotonic) if counter is not None else None
        self._states = states
        self._access = access
        self._maker = maker

    def begin(self, supervisor: Supervisor) -> None:
        if self._keeper is not None:
            supervisor.loop("descent counts", self._keeper.step, LOOKS)

    def routes(self) -> list[DeclaredRoute]:
        return [self._maker.route(DESCENT, self.show, self._access.for_readers())]

    async def show(self, reader: Reader) -> Response:
        state, counted = await self._states.now(), None
        if self._keeper is not None:
            self._keeper.want()
            counted = self._keeper.last
        return self._maker.render(
            reader,
            "descent.html",
            state,
            counted=counted,
            shares=counted.shares if counted else None,
            picture=share_bars(counted.shares, reader.language) if counted else "",
            percent=percent,
            stated=STATED,
            bases=BASES,
            basis_words=BASIS_WORDS,
            marks=MARKS,
            shown_laws=SHOWN_LAWS,
            shown_roots=SHOWN_ROOTS,
            root_name=lambda root: root.name or (root.author if ":" in root.author else short(root.author)),
        )


LABEL: Final = 160
"""Units of the picture: the width of a label, of a whole bar, and of the number behind it; and the height of a row."""
BAR: Final = 150
NUMBER: Final = 46
ROW: Final = 26
THICK: Final = 18
LEAST_MARK: Final = 10
"""Width of a part from which on its sign fits into it."""


def share_bars(shares: DescentShares, language: str) -> Markup:
    """One bar for each law, as long as its share of the artifacts, in parts by how the roots are known; empty without
    artifacts."""
    laws = shares.laws[:BARS]
    if not laws or not shares.total.artifacts:
        return Markup("")
    words = translations(language)
    title = words.gettext(marked("Shares of the artifacts by the law of their roots"))
    width, height = LABEL + BAR + NUMBER, len(laws) * ROW
    opening = Markup('<svg class="bars" width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    rows = (_row(share, shares.total.artifacts, number * ROW, language) for number, share in enumerate(laws))
    return Markup("").join([opening.format(width, height, width, height, title), *rows, Markup("</svg>")])


def law_text(share: LawShare) -> str:
    """The law of a share; a message where it is not known."""
    if share.law.code:
        return share.law.code
    return marked("law not known") if share.lineage_known else marked("ancestors not known")


def _row(share: LawShare, total: int, top: int, language: str) -> Markup:
    words = translations(language)
    middle = top + ROW // 2 + 4
    label = Markup('<text class="label" x="{}" y="{}">{}</text>').format(
        LABEL - 8, middle, words.gettext(law_text(share))
    )
    empty = Markup('<rect class="empty" x="{}" y="{}" width="{}" height="{}"/>').format(
        LABEL, top + (ROW - THICK) // 2, BAR, THICK
    )
    number = Markup('<text class="share" x="{}" y="{}">{}</text>').format(
        LABEL + BAR + 8, middle, percent(share.amounts.artifacts, total)
    )
    spoken = f"{words.gettext(law_text(share))}: {percent(share.amounts.artifacts, total)}"
    parts = _parts(share, total, top, language)
    return Markup("<g><title>{}</title>{}{}{}{}</g>").format(spoken, label, empty, Markup("").join(parts), number)


def _parts(share: LawShare, total: int, top: int, language: str) -> Iterator[Markup]:
    """The parts of a bar, the best known first. Their ends are rounded, not their widths, so that they meet."""
    words, formats, before = translations(language), Formats(translations(language)), 0
    for basis in BASES:
        count = share.known_by(basis)
        if not count:
            continue
        left, right = (LABEL + round(BAR * each / total) for each in (before, before + count))
        before += count
        text = f"{words.gettext(BASIS_WORDS[basis])}: {formats.count(count)}"
        y = top + (ROW - THICK) // 2
        yield Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
            basis, left, y, max(1, right - left), THICK, text
        )
        if right - left >= LEAST_MARK:
            yield Markup('<text class="mark {}" x="{}" y="{}">{}</text>').format(
                basis, (left + right) // 2, y + THICK - 5, MARKS[basis]
            )
