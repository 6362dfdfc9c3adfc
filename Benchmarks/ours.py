"""Maestro under measurement: a whole pool with real processes, and a client in C that costs next to nothing."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Tests/System"))
from harness import BIN_DIR, Bus, Daemon, Pool, free_port  # noqa: E402  (found by the line above)
from limits import Limits  # noqa: E402
from measure import cpu_seconds, idle_share, memory_mb  # noqa: E402

__all__ = ["BIN_DIR", "Daemon", "Maestro", "free_port"]


class Maestro:
    """nats-server, maestro, and two workers with two slots each, as their users run them: nothing is turned off."""

    name = "maestro"

    def __init__(self, directory: Path, limits: Limits, workers: int = 2, slots: int = 2, **settings: Any):
        self.limits = limits
        self.pool = Pool(directory, **({"HEARTBEAT_SEC": 5, "METRICS_SEC": 5, "HEARTBEAT_TTL_SEC": 15, "LEASE_SEC": 5} | settings))
        self.pool.start_maestro()
        for number in range(workers):
            self.pool.start_worker(number, SLOTS=slots)
        # The pool's own client listens to every message, and Python is slow.
        self.pool.bus.close()
        self.rounds = 0

    @property
    def url(self) -> str:
        return self.pool.server.url

    @property
    def pids(self) -> dict[str, int]:
        pids = {"maestro": self.pool.maestros[0].pid}
        if self.pool.server.daemon:
            pids["nats-server"] = self.pool.server.daemon.pid
        return pids | {f"gpu-worker@{name}": daemon.pid for name, daemon in self.pool.workers.items()}

    def throughput(self, count: int) -> dict:
        """All at once; and what our own processes paid for one job."""
        self.rounds += 1
        before = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        figures = self.limits.run("jobs", self.url, f"all{self.rounds}", "throughput", count)
        time.sleep(0.3)  # the last acks and closes are still under way when the last result is there
        figures["cpu_us_per_job"] = {
            name: 1e6 * (cpu_seconds(pid) - before[name]) / count for name, pid in self.pids.items()
        }
        return figures

    def latency(self, count: int) -> dict:
        self.rounds += 1
        return self.limits.run("jobs", self.url, f"one{self.rounds}", "latency", count)

    def footprint(self, seconds: float) -> dict:
        """Memory after the work, and the processor time that is taken while nothing happens."""
        shares = idle_share(list(self.pids.values()), seconds)
        return {name: memory_mb(pid) | {"idle_cpu_percent": 100 * shares[pid]} for name, pid in self.pids.items()}

    def start_to_ready(self, gpu: int) -> float:
        """Milliseconds from the start of one more worker until it has told the bus that it is there."""
        bus = Bus(self.url)
        try:
            self.pool.events = bus.subscribe("gpu.worker.up")
            began = time.monotonic()
            worker = self.pool.start_worker(gpu, SLOTS=2)
            elapsed = time.monotonic() - began
            worker.terminate()
            del self.pool.workers[str(gpu)]
            return 1e3 * elapsed
        finally:
            bus.close()

    def close(self) -> None:
        self.pool.close()
