"""Processes that tests fork end with the tests, also when these were killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from support.fenced import ROOT

PATIENCE = 60
PROGRAM = """
import os, sys, time
from multiprocessing.forkserver import set_forkserver_preload
from pathlib import Path
from support.forked import start_forked

set_forkserver_preload(["support.ports"])
log = Path(sys.argv[1])
program = "import sys, time\\nprint('up', 'support.ports' in sys.modules, flush=True)\\ntime.sleep(600)"
process = start_forked(exec, program, environ=os.environ, log=log)
while not log.read_text().endswith("\\n"):
    time.sleep(0.01)
print(process.pid, *log.read_text().split(), flush=True)
time.sleep(600)
"""


def test_a_forked_process_has_what_the_server_imported_and_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    paths = f"import sys; sys.path = {[str(ROOT / 'tests'), *sys.path]!r}"  # as pytest has them: not by the environment
    command = [sys.executable, "-c", paths + PROGRAM, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tests:
        assert tests.stdout is not None
        process, *said = tests.stdout.readline().decode().split()
        forked = os.pidfd_open(int(process))
        try:
            assert said == ["up", "True"]
            tests.kill()
            ended, _, _ = select.select([forked], [], [], PATIENCE)
            assert ended
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(forked, signal.SIGKILL)
            os.close(forked)
