"""Others that do a similar thing, each set up as its own documentation advises for throughput, with real /bin/true.

Each has four jobs at a time where it lets one say so, and keeps its queue on disk where it can. A peer that cannot run
here raises ``Unavailable`` with the reason; the table then says so.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import memory_mb
from ours import free_port

HERE = Path(__file__).resolve().parent
DEADLINE = 120.0


class Unavailable(Exception):
    """Why a peer was not measured."""


def wait_until(probe: Any, what: str, deadline: float = DEADLINE, pause: float = 0.02) -> Any:
    """Of programs that tell nobody: asks again and again."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        found = probe()
        if found:
            return found
        time.sleep(pause)
    raise Unavailable(f"{what} did not come in {deadline:.0f} s")


def need(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Unavailable(f"{program} is not installed")
    return path


class Peer:
    """A peer with its own processes, in a directory of its own."""

    name = "?"

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.daemons: dict[str, subprocess.Popen] = {}
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        raise NotImplementedError

    def daemon(self, name: str, *command: Any, **settings: str) -> subprocess.Popen:
        log = (self.directory / f"{name}.log").open("ab")
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   cwd=self.directory, env=os.environ | {"PYTHONPATH": str(HERE)} | settings)
        log.close()
        self.daemons[name] = process
        return process

    def client(self, mode: str, count: int, **settings: str) -> dict:
        """The peer's Python client in a process of its own: `python -m peer_clients PEER MODE COUNT`."""
        ended = subprocess.run([sys.executable, "-m", "peer_clients", self.name, mode, str(count)], text=True,
                               capture_output=True, timeout=600, cwd=self.directory,
                               env=os.environ | {"PYTHONPATH": str(HERE)} | self.environment | settings)
        if ended.returncode != 0:
            raise Unavailable(f"its client ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-1:]}")
        return json.loads(ended.stdout)

    environment: dict[str, str] = {}

    def throughput(self, count: int) -> dict:
        return self.client("throughput", count)

    def latency(self, count: int) -> dict:
        return self.client("latency", count)

    def footprint(self) -> dict:
        from measure import children

        return {name: [memory_mb(pid)["resident_mb"] for pid in children(process.pid)]
                for name, process in self.daemons.items() if process.poll() is None}

    def close(self) -> None:
        for process in reversed(self.daemons.values()):
            process.terminate()
        for process in self.daemons.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class RedisPeer(Peer):
    """With Redis as the queue: append-only file, synced each second (Redis' own advice)."""

    def start(self) -> None:
        port = free_port()
        self.environment = {"BENCH_REDIS_PORT": str(port)}
        self.daemon("redis", need("redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", self.directory,
                    "--appendonly", "yes", "--save", "")

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, "redis-server", 10)
        self.start_workers()

    def start_workers(self) -> None:
        raise NotImplementedError


class Celery(RedisPeer):
    """Celery 5 with two worker processes, acknowledging late (or a job is lost with its worker)."""

    name = "celery"

    def start_workers(self) -> None:
        self.daemon("celery", sys.executable, "-m", "celery", "-A", "peer_clients.celery_app", "worker", "--concurrency", "2",
                    "--loglevel", "WARNING", "--without-gossip", "--without-mingle", **self.environment)
        self.client("latency", 1)


class RQ(RedisPeer):
    """RQ with two workers, which fork for each job."""

    name = "rq"

    def start_workers(self) -> None:
        for number in range(2):
            self.daemon(f"rq-{number}", sys.executable, "-m", "rq.cli", "worker", "--url",
                        f"redis://127.0.0.1:{self.environment['BENCH_REDIS_PORT']}/0", "--quiet", **self.environment)
        self.client("latency", 1)


class NatsPy(Peer):
    """The obvious Python version of this system: two nats-py workers on a JetStream work queue, two jobs each."""

    name = "nats-py"

    def start(self) -> None:
        port = free_port()
        config = self.directory / "server.conf"
        config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{self.directory}/store" }}\n')
        self.environment = {"BENCH_NATS_URL": f"nats://127.0.0.1:{port}"}
        self.daemon("nats-server", os.environ.get("NATS_SERVER", need("nats-server")), "-c", config)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, "nats-server", 10)
        self.client("prepare", 1)
        for number in range(2):
            self.daemon(f"worker-{number}", sys.executable, "-m", "peer_clients", "nats-py", "worker", "2",
                        **self.environment)
        self.client("latency", 1)


class TaskSpooler(Peer):
    """task-spooler: no network, no durability, a queue in the memory of one process."""

    name = "task-spooler"

    def start(self) -> None:
        need("tsp")
        self.environment = {"TS_SOCKET": str(self.directory / "socket"), "TS_MAXFINISHED": "10"}
        self.tsp("-S", "4")

    def tsp(self, *arguments: str) -> str:
        return subprocess.run(["tsp", *arguments], check=True, capture_output=True, text=True,
                              env=os.environ | self.environment, timeout=300).stdout

    def throughput(self, count: int) -> dict:
        # Its server takes about a thousand at a time.
        count = min(count, 900)
        began = time.monotonic()
        for _ in range(count - 1):
            self.tsp("-n", "/bin/true")
        submitted = time.monotonic() - began
        self.tsp("-nf", "/bin/true")  # stays until its job, the last of the queue, has ended
        return {"jobs": count, "per_second": count / (time.monotonic() - began), "submitted_per_second": count / submitted}

    def latency(self, count: int) -> dict:
        from measure import percentile

        seconds = []
        for _ in range(count):
            began = time.monotonic()
            self.tsp("-nf", "/bin/true")
            seconds.append(1e3 * (time.monotonic() - began))
        return {"jobs": count, "p50_ms": percentile(seconds, 0.5), "p99_ms": percentile(seconds, 0.99)}

    def close(self) -> None:
        if self.environment:
            subprocess.run(["tsp", "-K"], env=os.environ | self.environment, capture_output=True)
        super().close()


class Slurm(Peer):
    """Slurm on one node, for throughput as its high-throughput guide says.

    It fills free processors once a second, so it is told that there are 256: with four it would reach four jobs a second.
    """

    name = "slurm"

    def start(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable("slurmd must be started as root")
        munge = self.directory / "munge"
        munge.mkdir(mode=0o700)
        # Without -H the key goes where nobody looks for it; munged refuses directories that others may enter.
        key = munge / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        socket_path = munge / "socket"
        self.daemon("munged", need("munged"), "--foreground", "--force", "--key-file", key, "--socket", socket_path,
                    "--pid-file", munge / "pid", "--log-file", munge / "log", "--seed-file", munge / "seed")
        wait_until(socket_path.exists, "munged", 10)
        self.environment = {"SLURM_CONF": str(self.write_config(socket_path))}
        (self.directory / "state").mkdir()
        (self.directory / "spool").mkdir()
        self.daemon("slurmctld", need("slurmctld"), "-D", "-c", **self.environment)
        self.daemon("slurmd", need("slurmd"), "-D", "-c", "-N", "bench", **self.environment)
        wait_until(lambda: "idle" in self.slurm("sinfo", "-h", "-o", "%T", check=False), "an idle node of Slurm", 40, 0.2)

    def write_config(self, munge_socket: Path) -> Path:
        config = self.directory / "slurm.conf"
        here = self.directory
        config.write_text(f"""\
ClusterName=bench
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge_socket}
CredType=cred/munge
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,sched_max_job_start=0,partition_job_depth=0,default_queue_depth=1000,max_rpc_cnt=0
SlurmdParameters=config_overrides
MaxJobCount=100000
MaxArraySize=50001
MinJobAge=2
MailProg=/bin/true
ReturnToService=2
SlurmctldDebug=error
SlurmdDebug=error
NodeName=bench NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 CPUs=256 State=UNKNOWN
PartitionName=all Nodes=bench Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
""")
        return config

    def slurm(self, *command: str, check: bool = True) -> str:
        ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | self.environment, timeout=300,
                               cwd=self.directory)
        if check and ended.returncode != 0:
            raise Unavailable(f"{command[0]} ended with {ended.returncode}: {ended.stderr.strip()}")
        return ended.stdout

    def throughput(self, count: int) -> dict:
        began = time.monotonic()
        self.slurm("sbatch", "-n1", "-o", "/dev/null", f"--array=1-{count}", "--wrap", "/bin/true")
        submitted = time.monotonic() - began
        wait_until(lambda: not self.slurm("squeue", "-h", "-o", "%i").strip(), "the end of Slurm's jobs", 300, 0.05)
        return {"jobs": count, "per_second": count / (time.monotonic() - began), "submitted_per_second": count / submitted}

    def latency(self, count: int) -> dict:
        from measure import percentile

        seconds = []
        for _ in range(count):
            began = time.monotonic()
            self.slurm("srun", "-n1", "/bin/true")
            seconds.append(1e3 * (time.monotonic() - began))
        return {"jobs": count, "p50_ms": percentile(seconds, 0.5), "p99_ms": percentile(seconds, 0.99)}


# Quick ones first; how many jobs a round has is divided by the number, since some are slow.
PEERS: dict[str, tuple[type[Peer], int]] = {
    "celery": (Celery, 1), "rq": (RQ, 10), "nats-py": (NatsPy, 2), "slurm": (Slurm, 10), "task-spooler": (TaskSpooler, 2),
}
