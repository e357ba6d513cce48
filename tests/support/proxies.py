"""nginx and HAProxy in front of gateways, with the settings of docs/operations/grow.md."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.fenced import ROOT
from support.ports import wait_until_listening
from support.tools import needs, running

PAGE = ROOT / "docs" / "operations" / "grow.md"


def settings(program: str, instead: Mapping[str, str]) -> str:
    """The settings of a program on the page, with other addresses and folders `instead`: each occurs there."""
    (text,) = re.findall(rf"^```{program}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for shown, used in instead.items():
        assert shown in text, shown
        text = text.replace(shown, used)
    return str(text)


@contextmanager
def nginx(folder: Path, port: int, http: str) -> Iterator[str]:
    """Run nginx with a block of its `http` settings, which listens at `port`, while the block lasts; yields its URL."""
    program = needs("nginx", unlock="apt-get install nginx-light")
    folder.mkdir()
    paths = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} worker_processes 1; daemon off; pid {folder}/pid;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {paths}\n{http}\n}}\n"
    )
    command = [program, "-c", str(file), "-e", str(folder / "error.log")]
    with running(command, folder / "output.log") as process:
        wait_until_listening(port, process)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def haproxy(folder: Path, ports: tuple[int, ...], text: str) -> Iterator[None]:
    """Run HAProxy, which listens at `ports`, while the block lasts."""
    program = needs("haproxy", unlock="apt-get install haproxy")
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(text)
    with running([program, "-db", "-f", str(folder / "haproxy.cfg")], folder / "output.log") as process:
        for port in ports:
            wait_until_listening(port, process)
        yield
