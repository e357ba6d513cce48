"""Real Ceph S3 gateways while a block lasts: over a one-node cluster in memory, or over SQLite.

The second corrupts multipart uploads and answers OK to all of them, as some real services do. Everything listens on
free ports of the loopback interface, and ends with the block.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port, wait_until_listening
from support.tools import missing, needs, running

UNLOCK = "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common"

CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {folder}
admin_socket =
log_file = {folder}/$name.log
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 1000
ms_bind_ipv6 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
[mon]
mon_data = {folder}/mon
[osd]
osd_data = {folder}/osd
osd_class_dir = {classes}
osd_objectstore = memstore
memstore_device_bytes = 2147483648
[client.rgw]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{rgw_port}
ms_mon_client_mode = crc secure
"""

SQLITE_CONF = """\
[global]
run_dir = {folder}
admin_socket =
log_file = {folder}/$name.log
[client]
rgw_backend_store = dbstore
rgw_config_store = dbstore
dbstore_db_dir = {folder}
dbstore_config_uri = file:{folder}/config.db
rgw_data = {folder}
rgw_frontends = beast endpoint=127.0.0.1:{rgw_port}
"""


@dataclass(frozen=True)
class User:
    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Ceph:
    endpoint: str
    settings: tuple[str, ...]
    """The options by which a Ceph program finds this cluster."""

    def user(self, name: str, *, quota: int | None = None) -> User:
        """A new user with S3 keys, who may store at most `quota` bytes."""
        made = User(f"{name.upper()}ACCESSKEY", f"{name}-secret-key")
        keys = (f"--access-key={made.access_key}", f"--secret={made.secret_key}")
        self._admin("user", "create", f"--uid={name}", f"--display-name={name}", *keys)
        if quota is not None:
            scope = (f"--uid={name}", "--quota-scope=user")
            self._admin("quota", "set", *scope, f"--max-size={quota}")
            self._admin("quota", "enable", *scope)
        return made

    def _admin(self, *words: str) -> None:
        """Over SQLite the tool sometimes hangs beside the gateway: it is started again then."""
        for patience in (20, 40, 120):
            with contextlib.suppress(subprocess.TimeoutExpired):
                run("radosgw-admin", *self.settings, *words, patience=patience)
                return
        raise AssertionError(f"radosgw-admin {words[0]} hangs")


@contextmanager
def ceph(folder: Path) -> Iterator[Ceph]:
    """Start a cluster below `folder`, which is empty. Skips where Ceph is not installed."""
    for program in ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "monmaptool", "ceph"):
        needs(program, unlock=UNLOCK)
    classes = next(Path("/usr").glob("lib*/*/rados-classes"), None) or missing(f"no rados-classes; unlock: {UNLOCK}")
    fsid, mon_port, rgw_port = str(uuid.uuid4()), free_port(), free_port()
    conf = folder / "ceph.conf"
    conf.write_text(CONF.format(fsid=fsid, folder=folder, classes=classes, mon_port=mon_port, rgw_port=rgw_port))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    with ExitStack() as stack:

        def start(name: str, *command: str) -> subprocess.Popen[bytes]:
            foreground = [*command, "--conf", str(conf), "-f"]
            return stack.enter_context(
                running(foreground, folder / f"{name}.out", stop=signal.SIGKILL)
            )  # all in memory

        address = f"[v2:127.0.0.1:{mon_port}]"
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, str(folder / "monmap"))
        run("ceph-mon", "--conf", str(conf), "-i", "a", "--mkfs", "--monmap", str(folder / "monmap"))
        start("mon", "ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        run("ceph", "--conf", str(conf), "osd", "new", osd)
        run("ceph-osd", "--conf", str(conf), "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("osd", "ceph-osd", "-i", "0")
        run("ceph", "--conf", str(conf), "osd", "crush", "add", "osd.0", "1.0", "host=h", "root=default")
        wait_until_up(conf)
        gateway = start("rgw", "radosgw", "-n", "client.rgw")
        wait_until_listening(rgw_port, gateway, patience=90)
        yield Ceph(f"http://127.0.0.1:{rgw_port}", ("--conf", str(conf)))


@contextmanager
def gateway_over_sqlite(folder: Path) -> Iterator[Ceph]:
    """Start a gateway alone, its store below `folder`. Skips where Ceph is not installed."""
    for program in ("radosgw", "radosgw-admin"):
        needs(program, unlock=UNLOCK)
    conf, rgw_port = folder / "ceph.conf", free_port()
    conf.write_text(SQLITE_CONF.format(folder=folder, rgw_port=rgw_port))
    settings = ("--conf", str(conf), "--no-mon-config", "-n", "client.rgw")
    with running(["radosgw", *settings, "-f"], folder / "rgw.out", stop=signal.SIGKILL) as gateway:
        wait_until_listening(rgw_port, gateway, patience=90)
        yield Ceph(f"http://127.0.0.1:{rgw_port}", settings)


def wait_until_up(conf: Path) -> None:
    for _ in range(100):
        if b"1 up" in run("ceph", "--conf", str(conf), "osd", "stat"):
            return
        time.sleep(0.2)
    raise AssertionError("the OSD did not come up")


def run(*command: str, patience: float = 120) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=patience, check=False)
    assert done.returncode == 0, f"{command[0]} {command[-1]}: {done.stderr.decode(errors='replace')[-2000:]}"
    return done.stdout
