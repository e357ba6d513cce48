"""The map of the members, as SVG: one tile for each country, in the rough place of the country.

The tiles are a grid of our own, not the borders of anybody's map. The picture ends a little beyond the members, so a
federation of one continent is not a few tiles on a map of the world. A tile says in text what its colour says. The
style sheet selects colours by class, so the picture follows the colours of the reader and needs no inline style. Text
in it is escaped; the table of the members says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from markupsafe import Markup

from comity.gateway.console.state import FederationState, MemberView
from comity.gateway.console.words import Formats, marked, translations
from comity.trust.frozen import frozen

_GRID: Final = """
.. .. .. .. .. .. .. .. .. .. .. GL .. .. .. .. .. .. .. .. .. .. .. .. .. .. .. ..
.. .. .. .. .. .. .. .. .. .. .. .. IS .. .. NO SE FI .. .. .. .. .. .. .. .. .. ..
.. CA .. .. .. .. .. .. .. .. .. .. IE GB .. DK EE LV LT RU .. .. .. .. .. .. .. ..
.. US .. .. .. .. .. .. .. .. .. .. .. .. NL DE PL BY UA .. KZ .. MN .. .. .. .. ..
.. MX BS .. .. .. .. .. .. .. .. .. .. BE LU CH CZ SK MD GE .. UZ KG CN KP JP .. ..
.. GT BZ CU DO .. .. .. .. .. .. PT ES FR LI AT HU RO BG AM AZ TM TJ .. KR .. .. ..
.. SV HN JM HT .. .. .. .. .. .. .. AD MC IT SI HR RS MK TR IQ IR AF NP BT TW .. ..
.. .. NI CR PA TT .. .. .. .. .. MA DZ TN MT SM BA ME AL GR CY SY PK IN BD MM HK ..
.. .. .. CO VE GY .. .. .. .. EH MR ML LY EG .. .. VA XK LB IL JO KW LK TH LA VN PH
.. .. .. EC BR SR .. .. .. CV SN BF NE TD SD ER .. .. .. PS SA BH QA MV MY KH BN ..
.. .. .. PE BO .. .. .. .. GM GN CI NG CF SS ET DJ .. .. .. YE OM AE .. ID SG TL PG
.. .. .. CL PY UY .. .. .. GW SL GH BJ CM UG KE SO .. .. .. .. .. .. .. .. AU .. FJ
.. .. .. AR .. .. .. .. .. .. LR TG GQ GA CD RW TZ SC .. .. .. .. .. .. .. .. NZ ..
.. .. .. .. .. .. .. .. .. .. .. ST CG AO ZM BI MW KM .. .. .. .. .. .. .. .. .. ..
.. .. .. .. .. .. .. .. .. .. .. .. NA BW ZW MZ MG MU .. .. .. .. .. .. .. .. .. ..
.. .. .. .. .. .. .. .. .. .. .. .. ZA LS SZ .. .. .. .. .. .. .. .. .. .. .. .. ..
"""
PLACES: Final[Mapping[str, tuple[int, int]]] = {
    code: (column, row)
    for row, line in enumerate(_GRID.strip().splitlines())
    for column, code in enumerate(line.split())
    if code != ".."
}
TILE: Final = 34
GAP: Final = 4
LAG: Final = 16
"""Units below the last row, for the text below its tiles."""
MAX_TILES: Final = 200
BESIDE: Final = 2
"""Columns of other countries on both sides of the members; above and below it is one row."""
SPARE: Final = 7
"""Jurisdictions without a place in one row."""

MEMBER_STATES: Final = {
    "here": marked("This node"),
    "up": marked("Answers"),
    "down": marked("Does not answer"),
    "unknown": marked("Not asked yet"),
}
MARKS: Final = {"here": "●", "up": "●", "down": "✕", "unknown": "?"}


@frozen
class MapTile:
    """A jurisdiction with members: its place, the worst state of its members, and lines that describe it."""

    code: str
    column: int
    row: int
    state: str
    lines: tuple[str, ...]
    lag: str


def tiles(
    members: Sequence[MemberView], describe: Mapping[str, tuple[str, ...]], lags: Mapping[str, str]
) -> list[MapTile]:
    """One tile for each jurisdiction. Jurisdictions without a place stand in rows below the others."""
    found, spare = list[MapTile](), 0
    codes = sorted({member.jurisdiction for member in members})[:MAX_TILES]
    places = [PLACES[code] for code in codes if code in PLACES]
    left = min((column for column, _ in places), default=0)
    below = max((row + 3 for _, row in places), default=0)
    for code in codes:
        states = [member.state for member in members if member.jurisdiction == code]
        worst = next(state for state in ("down", "unknown", "up", "here") if state in states)
        if code in PLACES:
            column, row = PLACES[code]
        else:
            column, row = left + spare % SPARE * 2, below + spare // SPARE * 2
            spare += 1
        found.append(MapTile(code, column, row, worst, describe.get(code, ()), lags.get(code, "")))
    return found


def federation_map(state: FederationState, language: str) -> Markup:
    """The map of the members as an SVG element, with texts in this language; empty without members."""
    words = translations(language)
    formats = Formats(words)
    lines: dict[str, tuple[str, ...]] = {}
    lags: dict[str, str] = {}
    for member in state.members:
        text = f"{member.name} ({member.jurisdiction}): {words.gettext(_state(state, member))}"
        lines[member.jurisdiction] = (*lines.get(member.jurisdiction, ()), text)
        if member.state == "up":
            lags[member.jurisdiction] = f"+{member.lag}" if member.lag else "="
        elif member.state == "down" and member.last_seen:
            lags[member.jurisdiction] = formats.span(state.now - member.last_seen)
    return map_image(tiles(state.members, lines, lags), words.gettext(marked("Map of the members")))


def _state(state: FederationState, member: MemberView) -> str:
    if state.front_end and member.state == "unknown":
        return marked("The writer knows")
    return MEMBER_STATES[member.state]


def map_image(shown: Sequence[MapTile], title: str) -> Markup:
    """Tiles as an SVG element, as large as what it shows; empty without tiles."""
    if not shown:
        return Markup("")
    frame, links = MapFrame.around(shown), list(_links(shown))
    x, y = _corner(frame.left, frame.top)
    y = min([y, *(link.peak for link in links)]) - GAP
    width = (frame.right - frame.left + 1) * (TILE + GAP) + GAP
    height = _corner(0, frame.bottom + 1)[1] + LAG - y
    opening = Markup('<svg class="map" width="{}" height="{}" viewBox="{} {} {} {}" role="img" aria-label="{}">')
    return Markup("").join(
        [
            opening.format(width, height, x - GAP, y, width, height, title),
            *_empty_tiles(frame, {tile.code for tile in shown}),
            *(Markup('<path class="link {}" d="{}"/>').format(link.state, link.path) for link in links),
            *map(_tile, shown),
            Markup("</svg>"),
        ]
    )


@frozen
class MapFrame:
    """The columns and rows that the picture shows, the last ones included."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, shown: Sequence[MapTile]) -> MapFrame:
        columns, rows = [tile.column for tile in shown], [tile.row for tile in shown]
        return cls(min(columns) - BESIDE, min(rows) - 1, max(columns) + BESIDE, max(rows) + 1)

    def has(self, column: int, row: int) -> bool:
        return self.left <= column <= self.right and self.top <= row <= self.bottom


def _empty_tiles(frame: MapFrame, taken: Iterable[str]) -> Iterator[Markup]:
    for code in sorted(PLACES.keys() - set(taken)):
        if frame.has(*PLACES[code]):
            x, y = _corner(*PLACES[code])
            yield Markup('<rect class="land" x="{}" y="{}" width="{}" height="{}" rx="3"/>').format(x, y, TILE, TILE)


@frozen
class MapLink:
    """A line between two tiles, and its highest point."""

    state: str
    path: str
    peak: int


def _links(shown: Sequence[MapTile]) -> Iterator[MapLink]:
    """Lines from the tile of this node to those of the others."""
    here = next((tile for tile in shown if tile.state == "here"), None)
    for tile in shown:
        if here is None or tile is here:
            continue
        from_x, from_y = _center(here)
        to_x, to_y = _center(tile)
        bend = min(from_y, to_y) - abs(to_x - from_x) // 6
        path = f"M{from_x} {from_y}Q{(from_x + to_x) // 2} {bend} {to_x} {to_y}"
        peak = (from_y * to_y - bend * bend) // (from_y + to_y - 2 * bend)
        yield MapLink(tile.state, path, peak)


def _tile(tile: MapTile) -> Markup:
    x, y = _corner(tile.column, tile.row)
    middle = x + TILE // 2
    code = tile.code if len(tile.code) <= 4 else f"{tile.code[:3]}…"
    return Markup(
        '<g><title>{}</title><rect class="tile {}" x="{}" y="{}" width="{}" height="{}" rx="4"/>'
        '<text class="code {}" x="{}" y="{}">{}</text><text class="mark {}" x="{}" y="{}">{}</text>'
        '<text class="lag" x="{}" y="{}">{}</text></g>'
    ).format(
        "\n".join(tile.lines),
        *(tile.state, x, y, TILE, TILE),
        *(tile.state, middle, y + 16, code),
        *(tile.state, middle, y + 29, MARKS[tile.state]),
        *(middle, y + TILE + 13, tile.lag),
    )


def _corner(column: int, row: int) -> tuple[int, int]:
    return column * (TILE + GAP), row * (TILE + GAP)


def _center(tile: MapTile) -> tuple[int, int]:
    x, y = _corner(tile.column, tile.row)
    return x + TILE // 2, y + TILE // 2
