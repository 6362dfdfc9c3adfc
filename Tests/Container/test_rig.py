"""A rig, from the first package to the last purge, in a freshly booted Debian with a made-up machine of four cards.

One story: the tests run in the order in which they stand, on one container.
"""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from container import RUNTIMES, TOP, Container, FakeRig, wait_until

CARDS = range(4)
WORKERS = [f"gpu-worker@{card}.service" for card in CARDS]
CACHES = [f"gpucache@{card}.service" for card in CARDS]
SERVICES = ["nats-server.service", "maestro.service", *CACHES, *WORKERS]
UNITS = "maestro.service gpu-worker@0.service gpucache@0.service gpucache-sync@0.service gpucache-sync@0.timer gpucache-prewarm@0.service gpucache-ask.socket gpucache-ask@0.service maestro-rig.target maestro-nats-sync.service maestro-nats-sync.timer nats-server.service".split()

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: it boots a container")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of the packages, so that one can be upgraded to the other."""
    directory = tmp_path_factory.mktemp("packages")
    for revision in ("1", "2"):
        subprocess.run([TOP / "scripts/make-deb", directory / revision], check=True, env=os.environ | {"DEB_REVISION": revision, "DEB_COMPRESSION": "none"})
    return directory


@pytest.fixture(scope="module")
def rig(packages: Path) -> Iterator[Container]:
    cards = FakeRig()
    container = Container(cards)
    try:
        container.prepare(packages)
        container.boot()
        container.clean_files = container.files()  # type: ignore[attr-defined]
        yield container
    finally:
        container.close()
        cards.close()


def wait_for_leader(rig: Container) -> None:
    """A maestro that was started again leads when the lease of its earlier life has run out."""
    wait_until("a maestro leads", lambda: "leads" in rig.shell("maestroctl status >/dev/null && echo leads", check=False))


def submit(rig: Container, *tasks: dict) -> list[str]:
    """Ids of the jobs."""
    (rig.root / "root/tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return rig.shell("maestroctl submit --from-file /root/tasks.jsonl 2>/dev/null").split()


def wait_for(rig: Container, ids: list[str], deadline: str = "10m") -> list[dict]:
    (rig.root / "root/ids").write_text("\n".join(ids))
    told = rig.run("maestroctl", "wait", "--from-file", "/root/ids", "--deadline", deadline, "--json")
    return [json.loads(line) for line in told.splitlines() if line.startswith("{")]


def runbook(kind: str) -> list[str]:
    """The commands of one kind in docs/OPERATIONS.md; "" is the kind that needs nothing special."""
    text = (TOP / "docs/OPERATIONS.md").read_text()
    blocks = re.findall(rf"^```sh{' ' + kind if kind else ''}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_runbook_installs_a_pool_that_passes_its_smoke_test(rig: Container) -> None:
    environment = "".join(f'{key}="{value}"\n' for key, value in rig.rig.environment.items())
    (rig.root / "etc/default/gpu-worker").write_text(environment)
    # Real nodes stand in /dev; those of the made-up cards stand where the unit may write nothing.
    drop_in = rig.root / "etc/systemd/system/gpu-worker@.service.d/made-up-rig.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nReadWritePaths=/opt/rig0\n")
    for command in runbook("install"):
        told = rig.shell(f"cd /packages/1 && {command}", fake_rig=not command.startswith("apt"))
    print(told)
    assert rig.is_active(*SERVICES), rig.journal(*SERVICES)
    assert rig.shell("findmnt --noheadings --types overlay --output TARGET | grep -c /srv/gpucache/").strip() == "4"
    assert "DevicePolicy=closed" in rig.run("systemctl", "cat", "gpu-worker@2.service")
    status = json.loads(rig.run("gpu-worker-ctl", "status", "--json"))
    assert [worker["state"] for worker in status["workers"]] == ["active"] * 4
    caches = json.loads(rig.run("gpucache-ctl", "status", "--json", fake_rig=True))
    assert [cache["mode"] for cache in caches["caches"]] == ["overlay"] * 4
    for command in ("maestro", "gpu-worker", "maestroctl", "gpucache-ctl", "gpu-worker-ctl", "maestro-keys"):
        rig.run(command, "--help")


def test_units_are_clean_and_walled(rig: Container) -> None:
    told = rig.run("systemd-analyze", "verify", "--man=no", *UNITS)
    assert told.strip() == ""
    scores = {}
    for unit in ("maestro.service", "gpu-worker@0.service", "gpucache@0.service", "nats-server.service"):
        told = rig.run("systemd-analyze", "security", "--no-pager", "--offline=true", f"/lib/systemd/system/{unit.replace('@0', '@')}")
        scores[unit] = float(re.search(r"exposure level for \S+: ([0-9.]+)", told).group(1))  # type: ignore[union-attr]
    print(scores)
    assert scores["maestro.service"] < 3.0
    assert scores["gpu-worker@0.service"] < 4.0


def test_jobs_can_do_in_the_unit_what_compilers_and_runtimes_do(rig: Container) -> None:
    program = "; ".join([
        "import mmap, os, socket, threading, tempfile",
        "m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "t = threading.Thread(target=lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))); t.start(); t.join()",
        "tempfile.TemporaryFile().write(b'x')",
        "open('/proc/cpuinfo').read(), open('/proc/meminfo').read()",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
        "print('all done as', os.getuid())",
    ])
    told = rig.run("maestroctl", "submit", "--wait", "--", "python3", "-c", program)
    assert "all done as" in told
    # And may not do what is not theirs.
    rig.run("maestroctl", "submit", "--wait", "--retries", "0", "--shell", "! touch /etc/x && ! touch /home/x && ! cat /dev/mem && ! mount -t tmpfs x /mnt")


ASK = """
import json, socket, sys
subject, payload = sys.argv[1], sys.argv[2].encode()
bus = socket.create_connection(("127.0.0.1", 4222), timeout=60)
lines = bus.makefile("rwb")
lines.readline()
lines.write(b'CONNECT {"verbose":false}\\r\\nSUB answer 1\\r\\n')
lines.write(f"PUB {subject} answer {len(payload)}\\r\\n".encode() + payload + b"\\r\\n")
lines.flush()
while not lines.readline().startswith(b"MSG answer"):
    pass
print(lines.readline().decode())
"""


def test_a_cache_is_saved_and_warmed_when_somebody_asks_on_the_bus(rig: Container) -> None:
    rig.shell("echo asked >/srv/gpucache/gpu1/asked")
    for verb in ("sync", "prewarm"):
        answer = json.loads(rig.run("python3", "-c", ASK, f"gpu.cache.{verb}", json.dumps({"gpu": 1})))
        assert answer["ok"], f"{answer}\n{rig.journal('gpucache-ask@*.service', 'gpu-worker@1.service')}"
    assert rig.shell("cat /data/gpucache/gpu1.snapshots/current/asked").strip() == "asked"
    assert rig.is_active("gpucache-ask.socket")
    # A job, which runs as the same user, can ask for no more than that.
    told = rig.run("maestroctl", "submit", "--wait", "--gpu", "1", "--", "python3", "-c", "; ".join([
        "import socket", "s = socket.socket(socket.AF_UNIX)", "s.connect('/run/gpucache/ask.sock')",
        "s.sendall(b'unmount 1\\n')", "print(s.makefile().read())",
    ]))
    assert "this is no request" in told
    rig.run("maestroctl", "submit", "--wait", "--retries", "0", "--shell", "! cat /data/gpucache/gpu1.snapshots/current/asked")


@contextlib.contextmanager
def without_card(rig: Container, card: int) -> Iterator[str]:
    """A worker that sees the container's real /sys, where no card is: the made-up machine hides the cgroups."""
    unit = f"gpu-worker@{card}.service"
    own = rig.root / f"etc/default/gpu-worker@{card}"
    own.write_text("".join(f"{key}=\n" for key in rig.rig.environment))
    rig.run("systemctl", "restart", unit)
    try:
        yield unit
    finally:
        own.unlink()
        rig.run("systemctl", "restart", unit)


def test_each_job_is_a_cgroup_of_its_own_and_ends_as_one(rig: Container) -> None:
    with without_card(rig, 1) as unit:
        hide = (
            "(env -i setsid sh -c 'trap \"\" TERM; while :; do sleep 4711; done' </dev/null >/dev/null 2>&1 &); "
            "cat /proc/self/cgroup; sleep 1"
        )
        told = rig.run("maestroctl", "submit", "--wait", "--gpu", "1", "--shell", hide)
        assert re.search(rf"0::/maestro.slice/{unit}/job-\w+$", told, re.MULTILINE), told + rig.journal(unit)
        assert rig.run("pgrep", "-f", "sleep 4711", check=False) == ""
        assert rig.shell(f"ls /sys/fs/cgroup/maestro.slice/{unit} | grep -c ^job-", check=False).strip() == "0"
        worker = rig.main_process(unit)
        assert f"0::/maestro.slice/{unit}/worker" in rig.run("cat", f"/proc/{worker}/cgroup").split()
        # Of the tree a job sees all, and may write where its own worker may.
        rig.run(
            "maestroctl", "submit", "--wait", "--gpu", "1", "--retries", "0", "--shell",
            "! mkdir /sys/fs/cgroup/x && ! mkdir /sys/fs/cgroup/maestro.slice/gpu-worker@2.service/x "
            "&& ! unshare --user true && ! unshare --net true",
        )


def test_jobs_run_as_another_user_when_told(rig: Container) -> None:
    drop_in = "/etc/systemd/system/gpu-worker@3.service.d/job-user.conf"
    rig.shell(f"install -D -m 644 /usr/share/maestro/job-user.conf {drop_in}; systemctl daemon-reload")
    with without_card(rig, 3) as unit:
        worker = rig.main_process(unit)
        script = (
            "id -un; stat -c %U $TASK_DIR; touch $TASK_DIR/mine $GPU_CACHE_DIR/ours && echo wrote; "
            f"kill -0 {worker} 2>/dev/null || echo no kill; cat /proc/{worker}/environ 2>/dev/null || echo no look; "
            "mkdir /sys/fs/cgroup$(grep -o '/maestro.slice.*' /proc/self/cgroup)/x 2>/dev/null || echo no cgroup; "
            "grep CapEff /proc/self/status; grep -o '/job-' /proc/self/cgroup"
        )
        told = rig.run("maestroctl", "submit", "--wait", "--gpu", "3", "--retries", "0", "--shell", script)
        for line in ["gpu-job", "wrote", "no kill", "no look", "no cgroup", "CapEff:\\s0000000000000000", "/job-"]:
            assert re.search(rf"^\s*{line}$", told, re.MULTILINE), (line, told, rig.journal(unit))
        rig.shell(f"rm {drop_in}; systemctl daemon-reload")


NUMBA = """
import numba, numpy
@numba.njit(parallel=True)
def total(values):
    result = 0.0
    for index in numba.prange(len(values)):
        result += values[index]
    return result
assert total(numpy.ones(100000)) == 100000
"""
POCL = """
import numpy, pyopencl, pyopencl.array
context = pyopencl.create_some_context(interactive=False)
queue = pyopencl.CommandQueue(context)
program = pyopencl.Program(context, "__kernel void twice(__global float *v) { v[get_global_id(0)] *= 2; }").build()
values = pyopencl.array.to_device(queue, numpy.ones(1000, numpy.float32))
program.twice(queue, values.shape, None, values.data)
assert values.get().sum() == 2000
"""
TORCH = """
import torch
weights = torch.ones(64, 64, requires_grad=True)
(torch.nn.functional.conv2d(torch.ones(8, 3, 32, 32), torch.ones(4, 3, 3, 3)).sum() + (weights @ weights).sum()).backward()
assert weights.grad.sum() > 0
loader = torch.utils.data.DataLoader(torch.arange(100), batch_size=10, num_workers=2)
assert sum(int(batch.sum()) for batch in loader) == 4950
"""


@pytest.mark.skipif(not RUNTIMES, reason="TEST_RUNTIMES is not set: half a gigabyte is not downloaded")
@pytest.mark.parametrize("program", [NUMBA, POCL, TORCH], ids=["numba", "pocl", "torch"])
def test_real_runtimes_compute_in_the_unit(rig: Container, program: str) -> None:
    told = rig.run("maestroctl", "submit", "--wait", "--retries", "0", "--timeout", "5m", "--", "python3", "-c", program)
    print(told)


@pytest.mark.parametrize("unit", ["nats-server.service", "maestro.service", *WORKERS])
def test_anything_that_is_killed_comes_back(rig: Container, unit: str) -> None:
    ids = submit(rig, *[{"type": "shell", "shell": "sleep 0.5; echo done"} for _ in range(12)])
    process = rig.main_process(unit)
    rig.run("kill", "-KILL", process)
    wait_until(f"{unit} lives again", lambda: rig.is_active(unit) and rig.main_process(unit) not in (0, process))
    assert {record["state"] for record in wait_for(rig, ids)} == {"done"}
    assert rig.is_active(*SERVICES), rig.journal(*SERVICES)


@pytest.mark.parametrize("unit", ["maestro.service", "gpu-worker@2.service"])
def test_what_is_stuck_is_started_again(rig: Container, unit: str) -> None:
    drop_in = f"/run/systemd/system/{unit}.d/watch.conf"
    lines = "[Service]\\nWatchdogSec=6\\nTimeoutAbortSec=1\\nEnvironment=HEARTBEAT_SEC=1\\n"
    rig.shell(f"mkdir -p $(dirname {drop_in}); printf '{lines}' >{drop_in}; systemctl daemon-reload; systemctl restart {unit}")
    process = rig.main_process(unit)
    # Idle, and alive for longer than the watchdog waits: it is fed.
    wait_until("it has lived for 15 seconds", lambda: int(rig.run("ps", "-o", "etimes=", "-p", process, check=False) or 99) > 15)
    assert rig.main_process(unit) == process, rig.journal(unit)
    rig.run("kill", "-STOP", process)
    wait_until(f"{unit} lives again", lambda: rig.is_active(unit) and rig.main_process(unit) not in (0, process))
    rig.shell(f"rm -r $(dirname {drop_in}); systemctl daemon-reload; systemctl restart {unit}")
    wait_for_leader(rig)


def test_a_wrong_configuration_ends_it_for_good(rig: Container) -> None:
    drop_in = "/run/systemd/system/maestro.service.d/wrong.conf"
    rig.shell(f"mkdir -p $(dirname {drop_in}); printf '[Service]\\nEnvironment=MAX_TEMP_C=9000\\n' >{drop_in}; systemctl daemon-reload")
    rig.run("systemctl", "restart", "maestro.service", check=False)
    wait_until("it has failed", lambda: "failed" in rig.run("systemctl", "is-active", "maestro.service", check=False))
    shown = rig.run("systemctl", "show", "--property=NRestarts,ExecMainStatus", "maestro.service")
    assert "NRestarts=0" in shown and "ExecMainStatus=78" in shown
    rig.shell(f"rm {drop_in}; systemctl daemon-reload; systemctl reset-failed maestro.service; systemctl start maestro.service")


@pytest.mark.parametrize("how", ["shut_down", "lose_power"])
def test_a_reboot_brings_everything_back_and_finishes_the_queue(rig: Container, how: str) -> None:
    for card in CARDS:
        rig.shell(f"echo kept-{how} >/srv/gpucache/gpu{card}/kept")
    rig.run("gpucache-ctl", "sync", fake_rig=True)
    ids = submit(rig, *[{"type": "shell", "shell": "sleep 1; echo done"} for _ in range(60)])
    getattr(rig, how)()
    rig.boot()
    wait_until("all services run", lambda: rig.is_active(*SERVICES))
    for card in CARDS:
        assert rig.shell(f"cat /srv/gpucache/gpu{card}/kept").strip() == f"kept-{how}"
    assert {record["state"] for record in wait_for(rig, ids)} == {"done"}


def test_an_upgrade_while_jobs_run_loses_none_and_repeats_none(rig: Container) -> None:
    tasks = [{"task_id": f"up-{number}", "type": "shell", "shell": f"echo up-{number} >>$GPU_CACHE_DIR/ran; sleep 0.3"} for number in range(500)]
    ids = submit(rig, *tasks)
    wait_until("jobs run", lambda: rig.shell("cat /srv/gpucache/gpu*/ran 2>/dev/null | wc -l").strip() not in ("0", ""))
    rig.shell("dpkg -i /packages/2/*.deb")
    left = rig.run("maestroctl", "list", "--state", "enqueued", "--limit", "0", "--json")
    assert len(left.splitlines()) > 20, "the queue was done before the upgrade"
    records = wait_for(rig, ids)
    assert len(records) == 500 and {record["state"] for record in records} == {"done"}
    ran = rig.shell("cat /srv/gpucache/gpu*/ran").split()
    assert len(ran) == len(set(ran)) == 500
    assert rig.shell("dpkg-query -W -f '${Version}' maestro").endswith("-2")
    assert rig.is_active(*SERVICES), rig.journal(*SERVICES)


def test_configuration_of_the_owner_is_kept_on_upgrade(rig: Container) -> None:
    rig.shell("echo MAX_TEMP_C=70 >>/etc/maestro/maestro.conf; dpkg -i /packages/1/maestro_*.deb")
    assert "MAX_TEMP_C=70" in (rig.root / "etc/maestro/maestro.conf").read_text()
    wait_for_leader(rig)
    rig.run("maestroctl", "smoke")


def test_every_command_of_the_runbook_works(rig: Container) -> None:
    commands = runbook("")
    assert len(commands) > 50
    for command in commands:
        print("$", command)
        if command.startswith("maestroctl"):
            wait_for_leader(rig)
        rig.shell(f"set -o pipefail; {command}", fake_rig=True)
    wait_until("all services run", lambda: rig.is_active(*SERVICES))


def test_the_runbook_gives_everybody_a_key(rig: Container) -> None:
    for command in runbook("secure"):
        if command.startswith("maestroctl"):
            wait_until("a maestro leads", lambda: "leads" in rig.shell(
                "maestroctl status --config /root/maestro.conf >/dev/null && echo leads", check=False))
        rig.shell(command, fake_rig=True)
    assert rig.is_active(*SERVICES), rig.journal(*SERVICES)
    # Without a key nobody comes in, and jobs cannot read the worker's.
    told = rig.shell("MAESTRO_CONF=/dev/null maestroctl status --server tls://localhost:4222 || echo exit $?", check=False)
    assert re.search("exit (69|77)", told), told
    rig.shell("maestroctl submit --config /root/maestro.conf --wait --retries 0 --shell '! cat /etc/maestro/keys/admin.nk'")


def test_a_purge_leaves_nothing(rig: Container) -> None:
    rig.shell("rm -rf /etc/default/gpu-worker /root/* /root/.local /data/nats-js.before /var/backups/nats-js.tgz")
    for command in runbook("remove"):
        rig.run("bash", "-c", command)
    left = sorted(rig.files() - rig.clean_files)  # type: ignore[attr-defined]
    # adduser, which Debian's nats-server calls, keeps the former state of its files.
    left = [path for path in left if not re.fullmatch(r"/etc/(passwd|shadow|group|gshadow|subuid|subgid)-", path)]
    assert left == []
    accounts = rig.shell("cat /etc/passwd /etc/group")
    assert "maestro" not in accounts and "gpu-worker" not in accounts and "gpu-job" not in accounts
