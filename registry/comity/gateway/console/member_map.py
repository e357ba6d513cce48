"""The map of the members, as SVG: one tile for each country, in the rough place of the country.

The tiles are a grid of our own, not the borders of anybody's map. A tile says in text what its colour says. The
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
MAX_TILES: Final = 200

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
    """One tile for each jurisdiction. Jurisdictions without a place stand in a row below the map."""
    found, spare = list[MapTile](), 0
    height = max(row for _, row in PLACES.values()) + 2
    for code in sorted({member.jurisdiction for member in members})[:MAX_TILES]:
        states = [member.state for member in members if member.jurisdiction == code]
        worst = next(state for state in ("down", "unknown", "up", "here") if state in states)
        if code in PLACES:
            column, row = PLACES[code]
        else:
            column, row = spare % 14 * 2, height + spare // 14
            spare += 1
        found.append(MapTile(code, column, row, worst, describe.get(code, ()), lags.get(code, "")))
    return found


def federation_map(state: FederationState, language: str) -> Markup:
    """The map of the members as an SVG element, with texts in this language."""
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
    """Tiles as an SVG element."""
    step = TILE + GAP
    columns = [place[0] for place in PLACES.values()]
    bottom = max([row for _, row in PLACES.values()] + [tile.row for tile in shown])
    width, height = (max(columns) + 1) * step - GAP, (bottom + 1) * step + 16
    return Markup("").join(
        [
            Markup('<svg class="map" viewBox="-4 -4 {} {}" role="img" aria-label="{}">').format(
                width + 8, height + 8, title
            ),
            *_empty_tiles({tile.code for tile in shown}),
            *_links(shown),
            *map(_tile, shown),
            Markup("</svg>"),
        ]
    )


def _empty_tiles(taken: Iterable[str]) -> Iterator[Markup]:
    for code in PLACES.keys() - set(taken):
        x, y = _corner(*PLACES[code])
        yield Markup('<rect class="land" x="{}" y="{}" width="{}" height="{}" rx="3"/>').format(x, y, TILE, TILE)


def _links(shown: Sequence[MapTile]) -> Iterator[Markup]:
    """Lines from the tile of this node to those of the others."""
    here = next((tile for tile in shown if tile.state == "here"), None)
    for tile in shown:
        if here is None or tile is here:
            continue
        from_x, from_y = _center(here)
        to_x, to_y = _center(tile)
        bend = min(from_y, to_y) - abs(to_x - from_x) // 6
        path = f"M{from_x} {from_y}Q{(from_x + to_x) // 2} {bend} {to_x} {to_y}"
        yield Markup('<path class="link {}" d="{}"/>').format(tile.state, path)


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
