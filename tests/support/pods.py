"""Runs the containers of a manifest by podman, each with the command, user, rights and mounts that the manifest has.

No image is fetched or built: the root of a container is a folder with the programs of this machine, read-only, and
this installation of Comity where the image of deploy/Dockerfile has it. A container that asks nodes shares the network
of this machine, where the nodes of a test listen; an engine has a network of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.fenced import ROOT
from support.image_offline import RUNTIMES
from support.tools import missing, needs
from support.waiting import PATIENCE

MESSAGE_BYTES: Final = 2048
MESSAGE_LINES: Final = 80
"""Of the log of a container that failed, what its pod shows with `terminationMessagePolicy: FallbackToLogsOnError`."""
INSTALLED: Final = "/opt/comity"
NO_PROGRAM: Final = 127
"""The exit status of podman where the container has no such program: so the runtime works."""

Spec = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """The specification of a pod, and its volumes by their names: folders, and names of images."""

    spec: Spec
    volumes: Mapping[str, Path | str]

    @property
    def containers(self) -> list[Spec]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


@dataclass(frozen=True)
class Ended:
    """How a container ended, and the message that its pod then shows."""

    status: int
    message: str


@dataclass(frozen=True)
class Started:
    """How the init containers of a pod ended, up to the first that failed, and what its engine answered, which starts
    after them; None if it was not started."""

    ended: Ended
    answer: bytes | None = None


def pod_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A volume with the files of a ConfigMap, as the agent of a machine writes it: links to a folder of that time."""
    (folder / "..2026_12_02").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026_12_02")
    for name, data in files.items():
        (folder / "..data" / name).write_bytes(data)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


class Podman:
    """A podman with storage of its own in `folder`. Skips where no container can be run."""

    def __init__(self, folder: Path) -> None:
        needs("runc", unlock="apt-get install runc")
        storage = (
            "--log-level=error",
            "--root",
            str(folder / "root"),
            "--runroot",
            str(folder / "run"),
            "--storage-driver",
            "vfs",
        )
        self._podman: Sequence[str] = (needs("podman", unlock="apt-get install podman"), *storage)
        self._root = folder / "image"
        self._root.mkdir(parents=True)
        for link in ("bin", "lib", "lib64", "sbin"):
            (self._root / link).symlink_to(f"usr/{link}")
        self._podman = (*self._podman, *self._working_runtime())

    def _working_runtime(self) -> Sequence[str]:
        said = ""
        for runtime in RUNTIMES:
            command = (*self._podman, *runtime, "run", "--rm", "--network=none", "--rootfs", str(self._root), "/none")
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
            if done.returncode == NO_PROGRAM:
                return runtime
            said += done.stderr
        missing(f"{said.strip()}; unlock: a machine on which podman runs containers")

    def build(self, folder: Path, image: str) -> None:
        """Make an image that has the files of a folder."""
        recipe = folder.with_name(f"{folder.name}.Containerfile")
        recipe.write_text("FROM scratch\nCOPY . /\n")
        self._run("build", "--timestamp", "0", "--tag", image, "-f", str(recipe), str(folder))

    def start(self, pod: Pod, path: str) -> Started:
        """Run the init containers, then the engine, and ask it for this path at the port that it declares."""
        ended = Ended(0, "")
        for each in pod.spec["initContainers"]:
            ended = self.end(pod, each["name"])
            if ended.status:
                return Started(ended)
        (engine,) = pod.spec["containers"]
        return Started(ended, self._ask(pod, engine, path))

    def end(self, pod: Pod, name: str) -> Ended:
        """Run an init container, or that of a Job, to its end."""
        (container,) = (each for each in pod.containers if each["name"] == name)
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        command = (*self._podman, "run", "--rm", "--network=host", *self._options(pod, container))
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=PATIENCE)
        log = b"".join(done.stdout.splitlines(keepends=True)[-MESSAGE_LINES:])[-MESSAGE_BYTES:]
        return Ended(done.returncode, log.decode(errors="replace") if done.returncode else "")

    def _ask(self, pod: Pod, container: Spec, path: str) -> bytes:
        engine = self._run("run", "--detach", "--network=none", *self._options(pod, container)).decode().strip()
        url = f"http://127.0.0.1:{container['ports'][0]['containerPort']}/{path}"
        program = f"""
import sys, time, urllib.request
for _ in range(200):
    try:
        sys.stdout.buffer.write(urllib.request.urlopen({url!r}).read())
        break
    except urllib.error.URLError as error:
        time.sleep(0.1)
"""
        try:
            return self._run("exec", engine, "/usr/bin/python3", "-c", program)
        finally:
            self._run("rm", "--force", "--time", "1", engine)

    def _run(self, *words: str) -> bytes:
        done = subprocess.run((*self._podman, *words), capture_output=True, check=False, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def _options(self, pod: Pod, container: Spec) -> Iterator[str]:
        """The options of podman for what the manifest says, then the root, the command and its arguments."""
        rights = {**pod.spec.get("securityContext", {}), **container.get("securityContext", {})}
        assert rights["runAsNonRoot"] and rights["runAsUser"]
        yield from ("--user", f"{rights['runAsUser']}:{rights.get('runAsGroup', 0)}", "--workdir", "/")
        yield from (f"--cap-drop={each}" for each in rights["capabilities"]["drop"])
        if not rights["allowPrivilegeEscalation"]:
            yield "--security-opt=no-new-privileges"
        if rights.get("readOnlyRootFilesystem"):
            yield from ("--read-only", "--read-only-tmpfs=false")
        for here in (Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), ROOT):
            yield from ("--volume", f"{here}:{here}:ro")
        yield from ("--volume", f"{sys.prefix}:{INSTALLED}:ro", "--env", f"PATH={INSTALLED}/bin:/usr/bin:/bin")
        for each in container.get("env", ()):
            yield from ("--env", f"{each['name']}={each['value']}")
        for mount in container["volumeMounts"]:
            source, how = pod.volumes[mount["name"]], "ro" if mount.get("readOnly") else "rw"
            if isinstance(source, str):
                yield from ("--mount", f"type=image,source={source},destination={mount['mountPath']}")
            else:
                yield from ("--volume", f"{source}:{mount['mountPath']}:{how}")
        yield from ("--rootfs", str(self._root), *container["command"], *container.get("args", ()))
