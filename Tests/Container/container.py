"""A Debian 12 with systemd, booted in a container of its own, with a made-up machine of graphics cards in it."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BIN_DIR = Path(os.environ.get("BIN_DIR", TOP / ".build/release"))
MIRROR = "http://deb.debian.org/debian"
# What the packages stand on, so that what they themselves bring and take can be told apart.
BASE_PACKAGES = [
    "ca-certificates", "curl", "dbus", "iproute2", "procps", "python3", "systemd", "systemd-sysv", "umockdev",
]
# With TEST_RUNTIMES set, half a gigabyte more is downloaded, so that real compute runs inside the unit.
RUNTIMES = ["pocl-opencl-icd", "python3-numba", "python3-pyopencl", "python3-torch"] if os.environ.get("TEST_RUNTIMES") else []
DEADLINE = float(os.environ.get("TEST_DEADLINE_SEC", "120"))


def call(*command: object, **options: object) -> str:
    """Runs a command on this machine; its output."""
    done = subprocess.run(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def wait_until(what: str, condition: Callable[[], object], deadline: float = DEADLINE) -> object:
    """Asks again and again, since nothing outside a container hears what happens within."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"after {deadline:.0f} s still not: {what}"
        time.sleep(0.2)


class FakeRig:
    """Four cards. Inside, what is made up lies in /opt: the units of the workers have a /tmp of their own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [BIN_DIR / "fake-rig", "4xrx580"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        made: dict[str, str] = json.loads(self.process.stdout.readline())["environment"]
        self.directories = [Path(made["UMOCKDEV_DIR"]), Path(made["LD_PRELOAD"].split()[0]).parent]
        self.environment = made
        self.binds: list[str] = []
        for number, directory in enumerate(self.directories):
            # The workers' user opens the cards' nodes for writing, as it may by its groups on a real machine.
            call("chmod", "-R", "a+rwX", directory)
            self.binds.append(f"--bind={directory}:/opt/rig{number}")
            self.environment = {
                key: value.replace(str(directory), f"/opt/rig{number}") for key, value in self.environment.items()
            }

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


class Container:
    def __init__(self, rig: FakeRig) -> None:
        self.rig = rig
        self.root = Path(tempfile.mkdtemp(prefix="maestro-container-"))
        self.root.chmod(0o755)
        self.console = self.root.with_suffix(".log")
        self.process: subprocess.Popen | None = None
        self.leader = 0

    # ------------------------------------------------------------------------------------------------- the root

    def prepare(self, packages: Path) -> None:
        """Unpacks a base system, and downloads what the packages will need: inside there is no network."""
        self._unpack_base()
        self._use_mirrors_of_this_machine()
        call("cp", "-r", packages, self.root / "packages")
        debs = [f"/packages/1/{path.name}" for path in sorted((packages / "1").glob("*.deb"))]
        call("chroot", self.root, "apt-get", "-q", "update")
        call("chroot", self.root, "apt-get", "-q", "install", "-y", "--download-only", "nats-server", *debs)

    def _unpack_base(self) -> None:
        wanted = hashlib.sha256(" ".join(BASE_PACKAGES + RUNTIMES).encode()).hexdigest()[:12]
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "maestro"
        base = cache / f"debian-12-systemd-{wanted}.tar"
        if base.exists():
            call("tar", "-C", self.root, "-xf", base)
            return
        cache.mkdir(parents=True, exist_ok=True)
        call("debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", "bookworm", self.root, MIRROR)
        self._use_mirrors_of_this_machine()
        if RUNTIMES:
            call("chroot", self.root, "apt-get", "-q", "update")
            call("chroot", self.root, "apt-get", "-q", "install", "-y", "--no-install-recommends", *RUNTIMES)
        call("chroot", self.root, "apt-get", "clean")
        part = base.with_suffix(f".{os.getpid()}")
        call("tar", "-C", self.root, "--one-file-system", "-cf", part, ".")
        part.rename(base)

    def _use_mirrors_of_this_machine(self) -> None:
        (self.root / "etc/apt/sources.list").unlink(missing_ok=True)
        for setting in [
            "etc/apt/sources.list", "etc/apt/sources.list.d/debian.sources", "etc/apt/apt.conf.d", "etc/resolv.conf",
            "etc/hosts", "usr/local/share/ca-certificates",
        ]:
            if (Path("/") / setting).exists():
                (self.root / setting).parent.mkdir(parents=True, exist_ok=True)
                call("cp", "-rL", "--no-target-directory", f"/{setting}", self.root / setting)
        call("chroot", self.root, "update-ca-certificates")

    # ------------------------------------------------------------------------------------------------- its life

    def boot(self) -> None:
        command = [
            "systemd-nspawn", "--quiet", f"--directory={self.root}", "--register=no", "--keep-unit", "--boot",
            "--private-network", "--console=pipe", *self.rig.binds,
        ]
        # One tree of cgroups v2, as Debian has it; this machine's own may be another.
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self.console.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        self.leader = int(str(wait_until("the container has a first process", self._find_leader)))
        wait_until("systemd is up", lambda: self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"))

    def _find_leader(self) -> int:
        assert self.process and self.process.poll() is None, self.console.read_text()[-2000:]
        for child in subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return 0

    def run(self, *command: object, check: bool = True, fake_rig: bool = False) -> str:
        """Runs a command inside; its output."""
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        environment |= {"DEBIAN_FRONTEND": "noninteractive"}
        if fake_rig:
            environment |= self.rig.environment
        assigned = [f"{key}={value}" for key, value in environment.items()]
        whole = ["nsenter", f"--target={self.leader}", "--all", "env", "-i", *assigned, *map(str, command)]
        done = subprocess.run(whole, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-6000:]}"
        return done.stdout

    def shell(self, line: str, check: bool = True, fake_rig: bool = False) -> str:
        return self.run("bash", "-c", line, check=check, fake_rig=fake_rig)

    def shut_down(self) -> None:
        """In order, as by a person."""
        assert self.process
        self.run("systemctl", "poweroff", check=False)
        self.process.wait(180)

    def lose_power(self) -> None:
        """Every process of it is gone at once."""
        assert self.process
        os.kill(self.leader, signal.SIGKILL)
        self.process.wait(60)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.lose_power()
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        assert not [place for place in mounts if place.startswith(f"{self.root}/")], "something is mounted in the container's root"
        shutil.rmtree(self.root)
        self.console.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ its units

    def is_active(self, *units: str) -> bool:
        return set(self.run("systemctl", "is-active", *units, check=False).split()) == {"active"}

    def main_process(self, unit: str) -> int:
        return int(self.run("systemctl", "show", "--property=MainPID", "--value", unit).strip())

    def journal(self, *units: str) -> str:
        return self.run("journalctl", "--no-pager", "--lines=40", *[f"--unit={unit}" for unit in units], check=False)

    def files(self) -> set[str]:
        """Every path that a package could have left; not what apt, dpkg and the journal keep about all packages."""
        kept = "var/lib/dpkg var/lib/apt var/cache var/log/apt var/log/journal packages proc sys dev tmp run/systemd run/udev run/log run/user var/tmp var/lib/systemd".split()
        prune = " -o ".join(f"-path /{place}" for place in kept)
        return set(self.shell(f"find / \\( {prune} -o -path '/opt/rig*' \\) -prune -o -print").splitlines())
