"""maestroctl under measurement, against a maestro with jobs that wait and no worker to run them."""

import json
import subprocess
import time
from pathlib import Path

from limits import Limits
from ours import BIN_DIR, Maestro


class Client:
    def __init__(self, directory: Path, limits: Limits):
        self.directory = directory
        self.ours = Maestro(directory, limits, workers=0, MAX_QUEUE=2_000_000)

    def run(self, *arguments: str) -> tuple[float, str]:
        """Seconds from before its start until it has ended, and what it printed."""
        began = time.monotonic()
        ended = subprocess.run([BIN_DIR / "maestroctl", *arguments], capture_output=True, text=True, timeout=600,
                               env=self.ours.pool.environment())
        elapsed = time.monotonic() - began
        if ended.returncode != 0:
            raise SystemExit(f"bench: maestroctl {' '.join(arguments)} ended with {ended.returncode}: {ended.stderr.strip()}")
        return elapsed, ended.stdout

    def submit_file(self, prefix: str, count: int) -> float:
        """Jobs per second of a file, every one acked, start included."""
        path = self.directory / f"{prefix}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number in range(count):
                file.write(json.dumps({"task_id": f"{prefix}-{number:07}", "cmd": ["/bin/true"]}) + "\n")
        elapsed, _ = self.run("submit", "--from-file", str(path))
        return count / elapsed

    def wait_admitted(self, count: int) -> None:
        """Until maestro has admitted that many, or tells that it knows of them."""
        until = time.monotonic() + 600
        while time.monotonic() < until:
            ended = subprocess.run([BIN_DIR / "maestroctl", "status", "--json"], capture_output=True, text=True, timeout=60,
                                   env=self.ours.pool.environment())
            # 69: nobody leads yet.
            if ended.returncode not in (0, 69):
                raise SystemExit(f"bench: maestroctl status ended with {ended.returncode}: {ended.stderr.strip()}")
            leader = json.loads(ended.stdout).get("maestro") if ended.stdout else None
            if leader and leader["qsize"] >= count:
                return
            time.sleep(0.1)
        raise SystemExit(f"bench: maestro has not admitted {count} jobs in ten minutes")

    def measure(self, waiting: int, file_jobs: int, rounds: int) -> dict:
        self.submit_file("waiting", waiting)
        self.wait_admitted(waiting)
        figures: dict[str, list[float]] = {"show_ms": [], "list_ms": [], "help_ms": []}
        for _ in range(max(5, rounds)):
            figures["help_ms"].append(1e3 * self.run("--version")[0])
            figures["show_ms"].append(1e3 * self.run("show", "waiting-0000001")[0])
            figures["list_ms"].append(1e3 * self.run("list", "--limit", "50")[0])
        # Last, since maestro is busy with admitting them for a while.
        submitted = [self.submit_file(f"file{number}", file_jobs) for number in range(rounds)]
        return figures | {"waiting": waiting, "file_jobs": file_jobs, "submit_per_second": submitted}

    def close(self) -> None:
        self.ours.close()
