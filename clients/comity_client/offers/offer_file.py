"""What SkyPilot calls accelerators, so that everybody's offers say the same. A name that is not here is no error: the
vocabulary grows; whoever writes an offer is told, and may mean it.

An offer as its provider writes it: TOML with comments, checked before it becomes the document that is posted.

What the file leaves out has a default that is written into the document: nothing in a posted offer is implied.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from comity.trust.encoding import MAX_INTEGER, Digest, parse_digest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.offers.offer import ACCELERATOR_HOURS, HOUR, MAX_BYTES, NODE_HOURS, SCHEMA, Offer, Window
from comity.trust.statement import parse_entry
from comity.trust.statements import NodeRecord, parse_node_record
from comity_client.founding import read_line

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


def objection(vendor: str, accelerator: str) -> str:
    """What is unusual about the name, with the one that may be meant; empty where nothing is."""
    if VENDORS.get(accelerator) == vendor or (accelerator.startswith("tpu-") and vendor == "Google"):
        return ""
    if accelerator in VENDORS:
        return f"{accelerator} is made by {VENDORS[accelerator]}, not {vendor or 'nobody'}"
    folded = {name.lower().replace("-", ""): name for name in VENDORS}
    close = difflib.get_close_matches(accelerator.lower().replace("-", ""), folded, 1)
    guess = f"; do you mean {folded[close[0]]}?" if close else ""
    return f"{accelerator} is not a name that SkyPilot is known to use{guess}"


ACCEPT_HOURS: Final = 72

TEMPLATE: Final = """\
# What you lend. `comity offer check FILE` says what is wrong with it; `comity offer post FILE --dir HOME` logs it.
# Everybody may read it: no addresses behind a firewall, no secrets.

title = "Spare H100 nodes"
# Who answers questions, for people. Leave it empty if nobody does.
contact = ""
# What amounts count: "accelerator-hours" or "node-hours".
measure = "accelerator-hours"
# How long a grant waits for its grantee before it lapses.
accept_within_hours = 72
# Models that lie beside the machines, by digest: jobs read them from your node (HF_ENDPOINT), not over the sea.
artifacts = []
# The offer that this one replaces, by its id; what was granted from it stands.
# supersedes = ""

# When the machines are free. The length is a multiple of the granularity.
[window]
start = {start}
end = {end}

# The least that you give out; all that you give out is a multiple of it, and begins and ends on such hours.
[granularity]
nodes = 1
hours = 1
amount = 1

# One table for each kind of node: [[slices]] again for the next.
[[slices]]
name = "big"
# Accelerators are called as SkyPilot calls them.
accelerator = "H100"
# Of one node: accelerators, GiB of memory of each, what joins them ("" if nothing, or you do not say).
count = 8
memory_gib = 80
interconnect = "NVLink"
cpus = 96
ram_gib = 1000
disk_gib = 4000
# How many such nodes there are at every moment, and what joins them.
nodes = 4
fabric = "InfiniBand NDR"
# How much may be given out altogether; without it, all that the nodes give in the window.
# amount = 10000
# Anything else. `strict = true`: whoever does not understand every attribute is not to use the slice.
# "label/KEY" chooses nodes in Kubernetes.
attributes = {{}}
strict = false

# Where they stand, who runs them, and whose courts can order the operator or its parent. Your own words, and public.
# The operator has to be named.
[location]
jurisdiction = "{jurisdiction}"
operator = ""
cloud_parent = ""
legal_reach = ["{jurisdiction}"]

# Who may ask: "members" of the federation, "anyone", or "listed" by identity. Jurisdictions narrow it to members there.
[eligibility]
who = "members"
identities = []
jurisdictions = []

# "grant" for nothing, "reciprocal" counts in your balance with the other member,
# "price" with price = 250 (smallest unit of the currency, for each unit of the measure) and currency = "CHF".
[terms]
kind = "grant"
text = ""

# What a grant is handed to: "slurm", "kubernetes", "skypilot" or "ssh", and what it is called there (a partition).
[engine]
kind = "slurm"
target = ""
"""


def template(jurisdiction: str, now: int) -> str:
    """A commented offer to be filled in; it begins on the first day of next month. Reads back as an offer."""
    today = datetime.fromtimestamp(now, UTC)
    start = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)
    end = datetime(start.year + start.month // 12, start.month % 12 + 1, 1, tzinfo=UTC)
    return TEMPLATE.format(start=_toml(start), end=_toml(end), jurisdiction=jurisdiction)


def read_offer(data: bytes, record: NodeRecord) -> Offer:
    """The offer that a file makes, of the member whose node `record` is, to be granted by that node's log.

    Raises Malformed (OFFER-FILE) with what is wrong.
    """
    if len(data) > MAX_BYTES:
        raise _refused(f"it has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        return Offer.from_json(_document(tomllib.loads(data.decode()), record))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(f"not TOML: {error}") from error
    except ComityError as error:
        raise _refused(error.why if error.code == "OFFER-FILE" else f"{error.what}: {error.why}") from error


def own_record(home: Path) -> NodeRecord:
    """The node whose home this is, by its own record. Raises NotFound (NO-HOME), Malformed."""
    if not (home / "node-record.line").exists():
        why, hint = "node-record.line is missing", "name the home of the node that lends: --dir HOME"
        raise NotFound(f"{home.absolute()} is no node's home", why=why, hint=hint, code="NO-HOME")
    return parse_node_record(parse_entry(read_line(home / "node-record.line")))


def remarks(offer: Offer, now: int) -> tuple[str, ...]:
    """What a careful reader would ask about an offer that is well-formed."""
    found = [why for part in offer.slices if part.count and (why := objection(part.vendor, part.accelerator))]
    if offer.window.end <= now:
        found.append("its window is over")
    if offer.location.jurisdiction not in offer.location.legal_reach:
        found.append(f"its legal reach does not name {offer.location.jurisdiction}, where the machines stand")
    if not offer.artifacts:
        found.append("it names no model beside the machines: whoever comes brings the weights along")
    if any(part.nodes > 1 and not part.fabric for part in offer.slices):
        found.append("it names no fabric: a model that takes more than one node will not be said to fit")
    return tuple(found)


def _document(said: dict[str, Any], record: NodeRecord) -> Any:
    measure = said.setdefault("measure", ACCELERATOR_HOURS)
    window, accept = _window(said.pop("window", None)), _hours(said.pop("accept_within_hours", ACCEPT_HOURS))
    location = _table(said, "location")
    location.setdefault("legal_reach", [location.get("jurisdiction", "")])
    return {
        "schema": SCHEMA,
        "provider": record.member,
        "log": str(record.log),
        "contact": "",
        **said,
        "slices": [_slice(part, measure, window) for part in _tables(said, "slices")],
        "window": window.to_json(),
        "granularity": _granularity(_table(said, "granularity")),
        "location": {"cloud_parent": "", **location, "legal_reach": _sorted(location, "legal_reach")},
        "eligibility": _eligibility(_table(said, "eligibility")),
        "terms": {"kind": "grant", "price": 0, "currency": "", "text": "", **_table(said, "terms")},
        "engine": {"target": "", **_table(said, "engine")},
        "accept_seconds": accept,
        "artifacts": sorted(_digest(item) for item in _list(said, "artifacts")),
        "supersedes": _digest(said["supersedes"]) if said.get("supersedes") else None,
    }


def _slice(said: dict[str, Any], measure: object, window: Window) -> dict[str, Any]:
    accelerator = said.get("accelerator", "")
    count = said.setdefault("count", 1 if accelerator else 0)
    nodes, counted = said.get("nodes"), count if measure == ACCELERATOR_HOURS else 1
    usual: dict[str, Any] = {"vendor": VENDORS.get(accelerator, "Google" if accelerator[:4] == "tpu-" else "")}
    if isinstance(nodes, int) and isinstance(counted, int) and measure in (ACCELERATOR_HOURS, NODE_HOURS):
        usual["amount"] = nodes * counted * (window.end - window.start) // HOUR
    plain = {"accelerator": "", "memory_gib": 0, "interconnect": "", "fabric": "", "cpus": 0, "ram_gib": 0,
             "disk_gib": 0, "attributes": {}, "strict": False}  # fmt: skip
    return plain | usual | said


def _window(said: object) -> Window:
    if not isinstance(said, dict) or set(said) != {"start", "end"}:
        raise _refused("[window] has a start and an end, and nothing else")
    return Window(_seconds(said["start"]), _seconds(said["end"]))


def _seconds(said: object) -> int:
    if not isinstance(said, datetime) or said.tzinfo is None or said.microsecond:
        raise _refused(f"{str(said)[:40]} is not a time with a time zone, in whole seconds: write 2027-01-01T00:00:00Z")
    return int(said.timestamp())


def _granularity(said: dict[str, Any]) -> dict[str, Any]:
    made = {"nodes": 1, "hours": 1, "amount": 1, **said}
    return {**{name: value for name, value in made.items() if name != "hours"}, "seconds": _hours(made["hours"])}


def _eligibility(said: dict[str, Any]) -> dict[str, Any]:
    made = {"who": "members", **said}
    identities = sorted(_digest(item) for item in _list(said, "identities"))
    return {**made, "identities": identities, "jurisdictions": _sorted(said, "jurisdictions")}


def _hours(said: object) -> int:
    if not isinstance(said, int) or isinstance(said, bool) or not 1 <= said <= MAX_INTEGER // HOUR:
        raise _refused(f"{str(said)[:40]} is not a whole number of hours")
    return said * HOUR


def _digest(said: object) -> Digest:
    if not isinstance(said, str):
        raise _refused(f"{str(said)[:40]} is not a digest")
    return parse_digest(said)


def _list(said: Mapping[str, Any], name: str) -> list[Any]:
    found = said.get(name, [])
    if not isinstance(found, list):
        raise _refused(f"{name} is not a list")
    return found


def _sorted(said: Mapping[str, Any], name: str) -> list[str]:
    found = _list(said, name)
    if not all(isinstance(item, str) for item in found):
        raise _refused(f"{name} is not a list of texts")
    return sorted(set(found))


def _table(said: dict[str, Any], name: str) -> dict[str, Any]:
    found = said.get(name, {})
    if not isinstance(found, dict):
        raise _refused(f"{name} is not a table: write [{name}]")
    return found


def _tables(said: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = _list(said, name)
    if not all(isinstance(item, dict) for item in found):
        raise _refused(f"{name} are not tables: write [[{name}]]")
    return found


def _toml(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _refused(why: str) -> Malformed:
    return Malformed(
        "this is no offer", why=why, hint="correct the file, then: comity offer check FILE", code="OFFER-FILE"
    )
