"""Child process of `comity_client.scan` that runs picklescan on untrusted files: request on stdin, findings on stdout.

The process limits its memory, CPU time and file writes before it reads anything, and keeps no right but reading the
folder, where the kernel can take the others.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from pathlib import Path
from typing import Any

from comity.content.confinement import confine

MEMORY = 2 * 1024**3
CPU_SECONDS = 240


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no writes to disk
    logging.disable(logging.CRITICAL)
    request = json.load(sys.stdin)
    folder = Path(request["folder"]).resolve()
    import picklescan.scanner  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401

    confine([folder, *map(Path, {sys.prefix, sys.base_prefix})])
    json.dump([_scan(Path(request["folder"]), path) for path in request["paths"]], sys.stdout)


def _scan(folder: Path, path: str) -> dict[str, Any]:
    from picklescan.scanner import scan_file_path  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        found = scan_file_path(str(folder / path))
    except Exception as error:  # any exception for a hostile file is a finding about the file
        return {"path": path, "imports": [], "failed": f"{type(error).__name__}: {error}"[:200]}
    imports = sorted({(item.module, item.name, item.safety.value) for item in found.globals})[:1000]
    failed = "picklescan could not read the whole file" if found.scan_err else ""
    listed = [{"module": module[:200], "name": name[:200], "level": level} for module, name, level in imports]
    return {"path": path, "imports": listed, "failed": failed}


if __name__ == "__main__":
    main()
