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

set_forkserver_preload([])
log, program = Path(sys.argv[1]), "print('up', flush=True)\\nimport time\\ntime.sleep(600)"
process = start_forked(exec, program, environ=os.environ, log=log)
while "up" not in log.read_text():
    time.sleep(0.01)
print(process.pid, flush=True)
time.sleep(600)
"""


def test_a_forked_process_ends_when_the_tests_that_started_it_are_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-c", PROGRAM, str(log)]
    paths = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE) as tests:
        assert tests.stdout is not None
        forked = os.pidfd_open(int(tests.stdout.readline()))
        try:
            tests.kill()
            ended, _, _ = select.select([forked], [], [], PATIENCE)
            assert ended
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(forked, signal.SIGKILL)
            os.close(forked)
