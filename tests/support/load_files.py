"""Loads files as their users load them, each in a process of its own, and prints which of them executed.

A program for an environment with the loaders: it reads JSON lines of {"name", "file", "loader", "needs"} from stdin and
prints, for each, a JSON line {"name", "ran", "said"}. `ran` is true if loading created the file `MARKER`, which is the
program's argument. `ran` is null where the package in `needs` is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

SECONDS = 60


def main() -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    marker = Path(sys.argv[1])
    wanted = [json.loads(line) for line in sys.stdin]
    for package in sorted({each["needs"] for each in wanted} - {""}):
        if importlib.util.find_spec(package):
            importlib.import_module(package)  # once, before the processes are forked
    for each in wanted:
        print(json.dumps({"name": each["name"], **_loaded(each, marker)}), flush=True)


def _loaded(each: dict[str, Any], marker: Path) -> dict[str, Any]:
    if each["needs"] and not importlib.util.find_spec(each["needs"]):
        return {"ran": None, "said": f"{each['needs']} is missing"}
    with contextlib.suppress(OSError):
        marker.rmdir() if marker.is_dir() else marker.unlink()
    log = marker.with_name("said")
    child = os.fork()
    if child == 0:
        _load(each, marker, log)
    os.waitpid(child, 0)
    said = log.read_text(errors="replace").strip().splitlines()
    return {"ran": marker.exists(), "said": said[-1] if said else ""}


def _load(each: dict[str, Any], marker: Path, log: Path) -> None:
    output = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(Path(each["file"]).parent)
    signal.alarm(SECONDS)
    try:
        exec(each["loader"], {"FILE": each["file"], "MARKER": str(marker)})
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
