"""The scheduler alone under measurement: its core, a real maestro with simulated workers, and one with many waiting jobs."""

import json
import subprocess
import time
from pathlib import Path

from client import Client
from limits import Limits
from measure import memory_mb
from ours import BIN_DIR, Daemon, Maestro

# Twelve cards are a rig; so many are a pool that nobody should outgrow.
RIG, REGION = 12, 10_000
SECONDS_OF_LIFE = 15


def tool(*arguments: object) -> dict:
    command = [str(part) for part in (BIN_DIR / "maestro-bench", *arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if ended.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)} ended with {ended.returncode}: {ended.stderr.strip()}")
    return json.loads(ended.stdout)


def dispatch(limits: Limits, directory: Path, cards: int, jobs: int) -> dict:
    """Jobs per second with simulated workers, beside what the same server stores when nothing else is asked of it."""
    ours = Maestro(directory, limits, workers=0)
    try:
        async_per_second = limits.jetstream(ours.url, 20 * jobs)["async_per_second"]
        figures = tool("dispatch", "--url", ours.url, "--cards", cards, "--jobs", jobs,
                       "--watch", f"maestro={ours.pids['maestro']}", "--watch", f"nats-server={ours.pids['nats-server']}")
        possible = async_per_second / figures["writes_per_job"]
        return figures | {"async_per_second": async_per_second, "share": figures["per_second"] / possible}
    finally:
        ours.close()


def fleet(limits: Limits, directory: Path) -> dict:
    """What the heartbeats and readings of very many workers cost maestro."""
    ours = Maestro(directory, limits, workers=0)
    try:
        return tool("fleet", "--url", ours.url, "--cards", REGION, "--seconds", SECONDS_OF_LIFE,
                    "--watch", f"maestro={ours.pids['maestro']}")
    finally:
        ours.close()


def waiting(limits: Limits, directory: Path, jobs: int) -> dict:
    """Memory of a maestro with that many waiting jobs, and how long after a restart it knows all of them; after a crash the
    lease of the one before has to end first."""
    client = Client(directory, limits)
    try:
        client.submit_file("waiting", jobs)
        client.wait_admitted(jobs)
        figures = {"jobs": jobs} | memory_mb(client.ours.pids["maestro"])
        pool = client.ours.pool
        for name, end in (("restart_seconds", Daemon.terminate), ("crash_seconds", Daemon.kill)):
            end(pool.maestros[-1])
            began = time.monotonic()
            pool.start_maestro(leading=False, MAX_QUEUE=2_000_000)
            client.wait_admitted(jobs)
            figures[name] = time.monotonic() - began
        return figures
    finally:
        client.close()


def measure_scheduler(limits: Limits, directory: Path, jobs: int, waiting_jobs: int) -> dict:
    directory.mkdir()
    core = tool("core", "--cards", f"{RIG},{REGION}", "--jobs", waiting_jobs)["core"]
    return {
        "core": {str(one["cards"]): one for one in core},
        "dispatch": {str(cards): dispatch(limits, directory / f"dispatch-{cards}", cards, jobs) for cards in (RIG, REGION)},
        "fleet": fleet(limits, directory / "fleet"),
        "waiting": waiting(limits, directory / "waiting", waiting_jobs),
    }
