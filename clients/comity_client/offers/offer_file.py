"""An offer as its provider writes it: a TOML file with comments, checked before it becomes the posted document.

Defaults of missing values are written into the document, so a posted offer implies nothing. Accelerators use SkyPilot's
names; an unknown name is a warning, not an error, since new names appear.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from comity.rules.offers.offer import ACCELERATOR_HOURS, HOUR, MAX_BYTES, NODE_HOURS, SCHEMA, Offer, Window
from comity.trust.encoding import MAX_INTEGER, Digest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.names import parse_id
from comity.trust.node_records import NodeRecord
from comity.trust.statement import parse_entry

from comity_client.node_home import own_inception, read_line

_BY_VENDOR: Final = {
    "NVIDIA": (
        "A10 A10G A16 A30 A40 A100 A100-80GB A800 B100 B200 B300 GB200 GB300 GH200 H20 H100 H100-MEGA H100-SXM H200 "
        "H200-SXM H800 K80 L4 L40 L40S P4 P40 P100 RTX3090 RTX4090 RTX5090 RTX6000 RTX6000-Ada RTXA4000 RTXA5000 "
        "RTXA6000 RTXPRO6000 T4 T4g V100 V100-32GB"
    ),
    "AMD": "MI25 MI50 MI100 MI210 MI250 MI250X MI300A MI300X MI325X MI350X MI355X Radeon-Pro-V520",
    "Intel": "Gaudi Gaudi2 Gaudi3 Max1100 Max1550",
    "AWS": "Inferentia Inferentia2 Trainium Trainium2",
    "Google": "tpu-v4-8 tpu-v5litepod-8 tpu-v5p-8 tpu-v6e-8",
    "Huawei": "Ascend910A Ascend910B Ascend910C",
}
VENDORS: Final = {name: vendor for vendor, names in _BY_VENDOR.items() for name in names.split()}
"""The vendor of each known accelerator."""


def accelerator_warning(vendor: str, accelerator: str) -> str:
    """Warning about an underived accelerator name, with a suggestion; empty if the name is known."""
    if VENDORS.get(accelerator) == vendor or (accelerator.startswith("tpu-") and vendor == "Google"):
        return ""
    if accelerator in VENDORS:
        return f"{accelerator} is made by {VENDORS[accelerator]}, not by {vendor or 'no vendor'}"
    folded = {name.lower().replace("-", ""): name for name in VENDORS}
    close = difflib.get_close_matches(accelerator.lower().replace("-", ""), folded, 1)
    guess = f"; did you mean {folded[close[0]]}?" if close else ""
    return f"{accelerator} is not a known SkyPilot name{guess}"


ACCEPT_HOURS: Final = 72

TEMPLATE: Final = """\
# An offer. `comity offer check FILE` checks it; `comity offer post FILE --node HOME` logs it.
# It is public: no internal addresses, no secrets.

title = "Spare H100 nodes"
# Contact for questions. May be empty.
contact = ""
# Unit of amounts: "accelerator-hours" or "node-hours".
measure = "accelerator-hours"
# Hours that a grantee has to accept a grant before it lapses.
accept_within_hours = 72
# Models stored near the machines, by digest: jobs read them from your node (HF_ENDPOINT).
artifacts = []
# Id of the offer that this one replaces; its grants stay valid.
# supersedes = ""

# When the machines are available. The length must be a multiple of the granularity.
[window]
start = {start}
end = {end}

# Smallest unit of a grant. Every grant is a multiple of it, and begins and ends at such hours.
[granularity]
nodes = 1
hours = 1
amount = 1

# One table for each kind of node: [[slices]] again for the next.
[[slices]]
name = "big"
# SkyPilot's name of the accelerator.
accelerator = "H100"
# Of one node: number of accelerators, GiB of memory of each, their interconnect ("" for none or unknown).
count = 8
memory_gib = 80
interconnect = "NVLink"
cpus = 96
ram_gib = 1000
disk_gib = 4000
# Number of such nodes at every moment, and the network between them.
nodes = 4
fabric = "InfiniBand NDR"
# Total amount that may be granted. Default: all that the nodes give in the window.
# amount = 10000
# Further properties. `strict = true`: readers that do not know every attribute must not use the slice.
# "label/KEY" selects nodes in Kubernetes; "measured/..." comes from `comity offer measure` (--measured SLICE FILE).
attributes = {{}}
strict = false

# Location, operator, and jurisdictions whose courts can order the operator or its parent. Stated by you, public.
# The operator is required.
[location]
jurisdiction = "{jurisdiction}"
operator = {operator}
cloud_parent = ""
legal_reach = ["{jurisdiction}"]

# Who may request: "members" of the federation, "anyone", or "listed" identities.
# Jurisdictions restrict it to members of these.
[eligibility]
who = "members"
identities = []
jurisdictions = []

# "grant" is free, "reciprocal" counts in your balance with the other member,
# "price" with price = 250 (smallest unit of the currency, for each unit of the measure) and currency = "CHF".
[terms]
kind = "grant"
text = ""

# Engine that runs the jobs: "slurm", "kubernetes", "skypilot" or "ssh", and its target there (such as a partition).
[engine]
kind = "slurm"
target = ""
"""


def template(jurisdiction: str, now: int, operator: str = "") -> str:
    """A commented offer to fill in, for the next calendar month. It parses as an offer once the operator is set."""
    today = datetime.fromtimestamp(now, UTC)
    start = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)
    end = datetime(start.year + start.month // 12, start.month % 12 + 1, 1, tzinfo=UTC)
    quoted = json.dumps(operator, ensure_ascii=False)  # a text of JSON is one of TOML
    return TEMPLATE.format(start=_toml(start), end=_toml(end), jurisdiction=jurisdiction, operator=quoted)


def read_offer(data: bytes, record: NodeRecord) -> Offer:
    """The offer in a file, by the member of node `record`, to be granted in that node's log.

    Raises Malformed (OFFER-FILE) with the reason.
    """
    if len(data) > MAX_BYTES:
        raise _refused(f"it has {len(data)} bytes, at most {MAX_BYTES} are allowed")
    try:
        return Offer.from_json(_document(tomllib.loads(data.decode()), record))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(f"not TOML: {error}") from error
    except ComityError as error:
        raise _refused(error.why if error.code == "OFFER-FILE" else f"{error.what}: {error.why}") from error


def own_node_record(home: Path) -> NodeRecord:
    """The record of the node with this home. Raises NotFound (NO-HOME), Malformed."""
    if not (home / "node-record.line").exists():
        why, hint = "node-record.line is missing", "give the home of the node that lends: --node HOME"
        raise NotFound(f"{home.absolute()} is not the home of a node", why=why, hint=hint, code="NO-HOME")
    return NodeRecord.parse(parse_entry(read_line(home / "node-record.line")).statement)


def own_location(home: Path) -> tuple[str, str]:
    """Who runs the machines of the node with this home, and where: what its record declares, else its member. Raises as
    `own_node_record`."""
    place, member = own_node_record(home).place, own_inception(home)
    return place.operator if place else member.label, member.jurisdiction


def offer_warnings(offer: Offer, now: int) -> tuple[str, ...]:
    """Warnings about underived values of a valid offer."""
    found = [why for part in offer.slices if part.count and (why := accelerator_warning(part.vendor, part.accelerator))]
    if offer.window.end <= now:
        found.append("its window is over")
    if offer.location.jurisdiction not in offer.location.legal_reach:
        found.append(f"its legal reach does not contain {offer.location.jurisdiction}, the location of the machines")
    if not offer.artifacts:
        found.append("it names no model near the machines: grantees must bring the weights")
    if any(part.nodes > 1 and not part.fabric for part in offer.slices):
        found.append("it names no fabric: a model that needs more than one node is reported as not fitting")
    return tuple(found)


def _document(given: dict[str, Any], record: NodeRecord) -> Any:
    measure = given.setdefault("measure", ACCELERATOR_HOURS)
    window, accept = _window(given.pop("window", None)), _hours(given.pop("accept_within_hours", ACCEPT_HOURS))
    location = _table(given, "location")
    location.setdefault("legal_reach", [location.get("jurisdiction", "")])
    return {
        "schema": SCHEMA,
        "provider": record.member,
        "log": str(record.log),
        "contact": "",
        **given,
        "slices": [_slice(part, measure, window) for part in _tables(given, "slices")],
        "window": window.to_json(),
        "granularity": _granularity(_table(given, "granularity")),
        "location": {"cloud_parent": "", **location, "legal_reach": _sorted(location, "legal_reach")},
        "eligibility": _eligibility(_table(given, "eligibility")),
        "terms": {"kind": "grant", "price": 0, "currency": "", "text": "", **_table(given, "terms")},
        "engine": {"target": "", **_table(given, "engine")},
        "accept_seconds": accept,
        "artifacts": sorted(_digest(item) for item in _list(given, "artifacts")),
        "supersedes": _digest(given["supersedes"]) if given.get("supersedes") else None,
    }


def _slice(given: dict[str, Any], measure: object, window: Window) -> dict[str, Any]:
    accelerator = given.get("accelerator", "")
    count = given.setdefault("count", 1 if accelerator else 0)
    nodes, counted = given.get("nodes"), count if measure == ACCELERATOR_HOURS else 1
    derived: dict[str, Any] = {"vendor": VENDORS.get(accelerator, "Google" if accelerator[:4] == "tpu-" else "")}
    if isinstance(nodes, int) and isinstance(counted, int) and measure in (ACCELERATOR_HOURS, NODE_HOURS):
        derived["amount"] = nodes * counted * (window.end - window.start) // HOUR
    defaults = {"accelerator": "", "memory_gib": 0, "interconnect": "", "fabric": "", "cpus": 0, "ram_gib": 0,
             "disk_gib": 0, "attributes": {}, "strict": False}  # fmt: skip
    return defaults | derived | given


def _window(given: object) -> Window:
    if not isinstance(given, dict) or set(given) != {"start", "end"}:
        raise _refused("[window] needs exactly a start and an end")
    return Window(_seconds(given["start"]), _seconds(given["end"]))


def _seconds(given: object) -> int:
    if not isinstance(given, datetime) or given.tzinfo is None or given.microsecond:
        raise _refused(
            f"{str(given)[:40]} is not a time with a time zone, in whole seconds: write 2027-01-01T00:00:00Z"
        )
    return int(given.timestamp())


def _granularity(given: dict[str, Any]) -> dict[str, Any]:
    made = {"nodes": 1, "hours": 1, "amount": 1, **given}
    return {**{name: value for name, value in made.items() if name != "hours"}, "seconds": _hours(made["hours"])}


def _eligibility(given: dict[str, Any]) -> dict[str, Any]:
    made = {"who": "members", **given}
    identities = sorted(_digest(item) for item in _list(given, "identities"))
    return {**made, "identities": identities, "jurisdictions": _sorted(given, "jurisdictions")}


def _hours(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= MAX_INTEGER // HOUR:
        raise _refused(f"{str(given)[:40]} is not a whole number of hours")
    return given * HOUR


def _digest(given: object) -> Digest:
    if not isinstance(given, str):
        raise _refused(f"{str(given)[:40]} is not a digest")
    return parse_id(given)


def _list(given: Mapping[str, Any], name: str) -> list[Any]:
    found = given.get(name, [])
    if not isinstance(found, list):
        raise _refused(f"{name} is not a list")
    return found


def _sorted(given: Mapping[str, Any], name: str) -> list[str]:
    found = _list(given, name)
    if not all(isinstance(item, str) for item in found):
        raise _refused(f"{name} is not a list of texts")
    return sorted(set(found))


def _table(given: dict[str, Any], name: str) -> dict[str, Any]:
    found = given.get(name, {})
    if not isinstance(found, dict):
        raise _refused(f"{name} is not a table: write [{name}]")
    return found


def _tables(given: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = _list(given, name)
    if not all(isinstance(item, dict) for item in found):
        raise _refused(f"{name} are not tables: write [[{name}]]")
    return found


def _toml(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _refused(why: str) -> Malformed:
    return Malformed(
        "not a valid offer file", why=why, hint="correct the file, then: comity offer check FILE", code="OFFER-FILE"
    )
