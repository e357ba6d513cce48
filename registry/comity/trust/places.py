"""Where a node's bytes lie, as its member declares it: who operates the machines, which cloud, whose law reaches them.

    {"cloud":"Example Cloud Inc.","operator":"Example Hosting AG","reach":["CH","US"]}

A declaration is a claim: nobody verifies it. It is used in one direction only. A member that declares that the law of
US reaches its machines is counted as within reach of US; a member that declares nothing is within no known reach,
and what asks for copies *outside* a jurisdiction does not count it.

The number of *reaches* of some copies is the smallest number of jurisdictions that together reach every one of them: 1
if one legal order could have all of them removed. Three copies in three countries on one foreign cloud have one reach.

Jurisdictions that a user types, and those of new members, are checked against the country codes of ISO 3166-1. Signed
statements are not, when they are verified: countries change, and a verdict must not depend on the version of the
software.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable
from typing import Annotated, Final

from comity.trust.codec import JsonItems, JsonObject, JsonRead, JsonText
from comity.trust.encoding import Fields
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.identity import check_jurisdiction

_ALPHA_2_AND_3: Final = """
AF AFG AX ALA AL ALB DZ DZA AS ASM AD AND AO AGO AI AIA AQ ATA AG ATG AR ARG AM ARM AW ABW AU AUS AT AUT AZ AZE BS BHS
BH BHR BD BGD BB BRB BY BLR BE BEL BZ BLZ BJ BEN BM BMU BT BTN BO BOL BQ BES BA BIH BW BWA BV BVT BR BRA IO IOT BN BRN
BG BGR BF BFA BI BDI CV CPV KH KHM CM CMR CA CAN KY CYM CF CAF TD TCD CL CHL CN CHN CX CXR CC CCK CO COL KM COM CG COG
CD COD CK COK CR CRI CI CIV HR HRV CU CUB CW CUW CY CYP CZ CZE DK DNK DJ DJI DM DMA DO DOM EC ECU EG EGY SV SLV GQ GNQ
ER ERI EE EST SZ SWZ ET ETH FK FLK FO FRO FJ FJI FI FIN FR FRA GF GUF PF PYF TF ATF GA GAB GM GMB GE GEO DE DEU GH GHA
GI GIB GR GRC GL GRL GD GRD GP GLP GU GUM GT GTM GG GGY GN GIN GW GNB GY GUY HT HTI HM HMD VA VAT HN HND HK HKG HU HUN
IS ISL IN IND ID IDN IR IRN IQ IRQ IE IRL IM IMN IL ISR IT ITA JM JAM JP JPN JE JEY JO JOR KZ KAZ KE KEN KI KIR KP PRK
KR KOR KW KWT KG KGZ LA LAO LV LVA LB LBN LS LSO LR LBR LY LBY LI LIE LT LTU LU LUX MO MAC MG MDG MW MWI MY MYS MV MDV
ML MLI MT MLT MH MHL MQ MTQ MR MRT MU MUS YT MYT MX MEX FM FSM MD MDA MC MCO MN MNG ME MNE MS MSR MA MAR MZ MOZ MM MMR
NA NAM NR NRU NP NPL NL NLD NC NCL NZ NZL NI NIC NE NER NG NGA NU NIU NF NFK MK MKD MP MNP NO NOR OM OMN PK PAK PW PLW
PS PSE PA PAN PG PNG PY PRY PE PER PH PHL PN PCN PL POL PT PRT PR PRI QA QAT RE REU RO ROU RU RUS RW RWA BL BLM SH SHN
KN KNA LC LCA MF MAF PM SPM VC VCT WS WSM SM SMR ST STP SA SAU SN SEN RS SRB SC SYC SL SLE SG SGP SX SXM SK SVK SI SVN
SB SLB SO SOM ZA ZAF GS SGS SS SSD ES ESP LK LKA SD SDN SR SUR SJ SJM SE SWE CH CHE SY SYR TW TWN TJ TJK TZ TZA TH THA
TL TLS TG TGO TK TKL TO TON TT TTO TN TUN TR TUR TM TKM TC TCA TV TUV UG UGA UA UKR AE ARE GB GBR US USA UM UMI UY URY
UZ UZB VU VUT VE VEN VN VNM VG VGB VI VIR WF WLF EH ESH YE YEM ZM ZMB ZW ZWE
"""
_PAIRS: Final = tuple(_ALPHA_2_AND_3.split())
COUNTRIES: Final = frozenset(_PAIRS[::2])
_ALIASES: Final = {
    "uk": "GB", "britain": "GB", "great-britain": "GB", "united-kingdom": "GB", "england": "GB", "america": "US",
    "united-states": "US", "el": "GR", "greece": "GR", "switzerland": "CH", "germany": "DE", "france": "FR",
    "spain": "ES", "italy": "IT", "china": "CN", "japan": "JP", "korea": "KR", "south-korea": "KR", "india": "IN",
    "brazil": "BR", "canada": "CA", "singapore": "SG", "russia": "RU", "australia": "AU", "netherlands": "NL",
    **dict(zip((code.lower() for code in _PAIRS[1::2]), _PAIRS[::2], strict=True)),
    **{code.lower(): code for code in _PAIRS[::2]},
}  # fmt: skip
MAX_REACH: Final = 8
MAX_TEXT: Final = 100
MOST_REACHES: Final = 4
"""The largest number of reaches that is counted: more is shown as this number."""

Reach = tuple[str, ...]
"""Jurisdictions whose law reaches something, in order; empty where it is not declared."""


def check_new_jurisdiction(code: str) -> str:
    """Return `code` if a new member may have it: a country code, or the lower-case name of another jurisdiction. Raises
    Malformed (BAD-JURISDICTION), with the code that is probably meant as the hint."""
    if code in COUNTRIES or (code.islower() and code not in _ALIASES):
        return code
    guess = suggest_jurisdiction(code)
    raise Malformed(
        f"{code[:40]!r} is not a jurisdiction",
        why="it is not a country code of ISO 3166-1",
        hint=f'write "{guess}"' if guess else 'write two capital letters, such as "CH", or a longer lower-case name',
        code="BAD-JURISDICTION",
    )


def suggest_jurisdiction(code: str, names: Iterable[str] = ()) -> str | None:
    """The most likely jurisdiction for the unknown `code`: a country code, or one of `names`; None without a match."""
    key = code.strip().lower().replace(" ", "-").replace("_", "-").replace(".", "")
    if key in _ALIASES:
        return _ALIASES[key]
    return next(iter(difflib.get_close_matches(key, tuple(names), 1)), None)


class _Codes(JsonItems):
    """Texts, of which `Place` says more, with an error of its own."""

    def read(self, fields: Fields, name: str) -> Reach:
        items = fields.items(name, most=self.most, least=self.least)
        codes = tuple(code for code in items if isinstance(code, str))
        if len(codes) != len(items):
            raise Malformed("the declared place is malformed", why="a jurisdiction must be text", code="PLACE")
        return codes


@frozen
class Place(JsonObject):
    """`operator` runs the machines; `cloud` is the parent company whose platform they are, empty for the operator's
    own machines; `reach` are the jurisdictions whose law reaches any of these, sorted, at least one."""

    operator: Annotated[str, JsonText(MAX_TEXT), "Who runs the machines."]
    cloud: Annotated[str, JsonText(MAX_TEXT, 0), "The parent company of the platform; empty for own machines."]
    reach: Annotated[
        Reach,
        _Codes(MAX_REACH, 1, of=JsonRead(check_jurisdiction, "jurisdiction"), once=True),
        "The jurisdictions whose law reaches any of these, sorted.",
    ]

    def __post_init__(self) -> None:
        for code in self.reach:
            check_jurisdiction(code)
        if not 1 <= len(self.reach) <= MAX_REACH or list(self.reach) != sorted(set(self.reach)):
            why = f"'reach' needs 1 to {MAX_REACH} jurisdictions, in order, each once"
            raise Malformed("the declared place is malformed", why=why, code="PLACE")


def declared_reach(jurisdiction: str, place: Place | None) -> Reach:
    """The jurisdictions whose law reaches a copy of a member in `jurisdiction`: the declared ones and its own. Empty
    where nothing is declared."""
    return tuple(sorted({jurisdiction, *place.reach})) if place else ()


def is_outside(jurisdiction: str, reach: Reach, excluded: Collection[str]) -> bool:
    """Whether a copy is outside the jurisdictions `excluded`, by its member's seat and by its declared reach. One
    without a declaration is not."""
    return jurisdiction not in excluded and bool(reach) and excluded_reach(reach, excluded) == ()


def excluded_reach(reach: Reach, excluded: Collection[str]) -> Reach:
    """The jurisdictions of `excluded` that reach it, as declared."""
    return tuple(code for code in reach if code in excluded)


def count_reaches(reaches: Iterable[Reach]) -> int:
    """The smallest number of jurisdictions that together reach everything declared, at most MOST_REACHES. What is not
    declared is not counted: it could be within any of them."""
    return _smallest(frozenset(reach for reach in reaches if reach))


@functools.lru_cache(maxsize=16_384)
def _smallest(reaches: frozenset[Reach]) -> int:
    return next((most for most in range(MOST_REACHES) if _covered(reaches, most)), MOST_REACHES)


def _covered(reaches: frozenset[Reach], most: int) -> bool:
    """Whether `most` jurisdictions can reach all of them. One of the first one's jurisdictions has to be among them, so
    that at most MAX_REACH + 1 to the power of `most` cases are tried."""
    if not reaches or most == 0:
        return not reaches
    first = min(reaches, key=len)
    return any(_covered(frozenset(reach for reach in reaches if code not in reach), most - 1) for code in first)
