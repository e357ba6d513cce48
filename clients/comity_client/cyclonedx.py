"""Documents in CycloneDX 1.7: what all of ours have in common.

A document has no time, and its serial number is derived from what it describes: the same content gives the same bytes.
Source: CycloneDX 1.7 (ECMA-424), JSON schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import comity
from comity.trust.encoding import Digest

from comity_client.licences import is_listed

SPEC: Final = "1.7"
_NAMESPACE: Final = uuid.UUID("8c6f0f0e-4f1d-5a5e-9d0f-6a2b8f3c7d10")

Component = dict[str, Any]


def bom_text(seed: str, metadata: Component, components: Sequence[Component], **others: Any) -> str:
    """Return a document as JSON. Its serial number is derived from `seed`; `others` are further members."""
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, seed)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "comity", "version": comity.__version__}]},
            **metadata,
        },
        "components": components,
        **others,
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def comity_property(name: str, value: str) -> Mapping[str, str]:
    return {"name": f"comity:{name}", "value": value}


def licence_item(licence: str) -> Component:
    """The licence of a component, as an expression of SPDX or, if it is none, by its name."""
    if is_listed(licence):
        return {"expression": licence, "acknowledgement": "declared"}
    return {"license": {"name": licence, "acknowledgement": "declared"}}


def sha256_hashes(digest: Digest) -> list[Mapping[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]
