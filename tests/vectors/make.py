"""Writes the test vectors that the project publishes: `python tests/vectors/make.py`.

Each is one JSON file beside this script, made from keys with fixed seeds by the functions registered here, so that an
implementation in another language can check itself. Bytes are in hex under names that end in `_hex`. `about` describes
the content of each file. ML-DSA signatures are randomised: they are under names that begin with `randomised_`, verify,
and differ each time the script runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from vectors import audit, charter, model_signing, rotation, transparency_log  # noqa: E402

VECTORS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "audit.json": audit.hashes,
    "charter-certificate.json": charter.certificates,
    "charter-reading.json": charter.readings,
    "checkpoint.json": transparency_log.checkpoints,
    "cosignature.json": transparency_log.cosignatures,
    "growth.json": rotation.growth,
    "merkle.json": transparency_log.merkle,
    "model-sig.json": model_signing.bundles,
    "note.json": transparency_log.notes,
    "rotation.json": rotation.rotations,
    "tiles.json": transparency_log.tiles,
    "tlog-policy.json": transparency_log.policies,
    "tlog-proof.json": transparency_log.proofs,
}


def stable(value: Any) -> Any:
    """`value` without the parts that differ from run to run."""
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if not key.startswith("randomised_")}
    return [stable(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    for name, make in VECTORS.items():
        path = HERE / name
        made = make()
        if path.exists() and stable(json.loads(path.read_text("utf-8"))) == stable(made):
            continue
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
