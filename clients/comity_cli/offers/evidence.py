"""What commands show of the appraisal of hardware evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comity.trust.encoding import short

if TYPE_CHECKING:
    from comity_client.offers.attestation import OfferAttestation, OfferHardware
    from comity_client.offers.views import ChainView

    from comity_cli.output import Output

SIGNS: Final = {"pass": "PASS", "fail": "FAIL", "unknown": "UNKN"}


def show_hardware(out: Output, hardware: OfferHardware) -> None:
    """Print how much of the offer is attested, the newest attestation row by row, and how many older ones there are."""
    from comity_client.offers.attestation import STATES

    if not hardware.attestations:
        out.fact("hardware", STATES[hardware.state])
        return
    newest = hardware.attestations[0]
    where = f"entry {newest.index} of {newest.attested.challenge.origin}"
    out.fact("hardware", f"{STATES[hardware.state]}, {hardware.coverage} attested, {where}")
    out.fact("statement", f"sha256:{newest.line}")
    out.fact("evidence", f"sha256:{newest.attested.evidence.digest}, {newest.attested.evidence.size} bytes")
    out.say(f"  {SIGNS[newest.order.state]}  {newest.order.name:14}{newest.order.text}")
    if newest.missing:
        out.say(f"  UNKN  evidence      {newest.missing}")
    for device in newest.devices:
        name = short(device.device) if device.device else "not read"
        facts = ", ".join(f"{fact} {value}" for fact, value in device.facts if len(value) <= 24)
        out.say(f"  {device.kind} {name}" + (f": {facts}" if facts else ""))
        for row in device.findings:
            out.say(f"    {SIGNS[row.state]}  {row.name:14}{row.text}")
    if len(hardware.attestations) > 1:
        out.say(f"  {len(hardware.attestations) - 1} older evidence is logged")


def write_page(path: Path, view: ChainView, hardware: OfferHardware, at: int) -> None:
    """Write the appraisal of an offer's evidence, made at `at`, as a page. Raises OutOfSpace, Unavailable."""
    from comity.content import durable
    from comity_client.offers.attestation import render_attestations

    provider = view.identities.name(view.offer.provider) if view.provider else "none"
    text = render_attestations(view.state.offer.id, provider, hardware, at)
    durable.write_file(path, text.encode(), mode=0o644, point="page")


def attestation_json(found: OfferAttestation) -> dict[str, Any]:
    """An attestation with everything that its appraisal says; `facts` are its rows with basis and digest."""
    from comity_client.offers.attestation import attestation_rows

    return {
        "facts": [row.to_json() for row in attestation_rows(found)],
        "line": found.line,
        "index": found.index,
        "state": found.state,
        "challenge": found.attested.challenge.to_json(),
        "evidence": found.attested.evidence.digest,
        "order": {"state": found.order.state, "text": found.order.text},
        "missing": found.missing,
        "also_in": list(found.also_in),
        "devices": [
            {
                "kind": device.kind,
                "device": device.device,
                "model": device.model,
                "state": device.state,
                "facts": dict(device.facts),
                "rows": [{"name": r.name, "state": r.state, "text": r.text} for r in device.findings],
            }
            for device in found.devices
        ],
    }
