"""The memory that an ingest uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import re, sys
from pathlib import Path
from comity.content.blobs import FolderStore
from comity.content.ingest import ingest

found = ingest(Path(sys.argv[1]), workers=2, on_progress=lambda _count: None)
store = FolderStore(Path(sys.argv[2]))
for entry in found.manifest.files:
    store.admit(found.files[entry.path], entry.sha256, entry.size)
    assert store.verify(entry.sha256)
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_ingesting_2_gib_holds_less_than_250_mb(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with (tmp_path / "model" / "sparse.bin").open("wb") as file:
        file.truncate(2 * 1024**3)
    argv = [sys.executable, "-c", CHILD, str(tmp_path / "model"), str(tmp_path / "store")]
    child = subprocess.run(argv, capture_output=True, text=True, check=True)
    # VmHWM, for ru_maxrss would begin with what the test process held when it forked.
    assert int(child.stdout) * 1024 < 250_000_000
