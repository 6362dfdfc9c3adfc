#!/usr/bin/env python3
"""Eight hours' worth of load squeezed into half an hour: nothing of ours may grow.

    soak.py [--minutes 30] [--rate 100] [--out FILE]

Jobs are submitted at a steady rate (100 a second is three million a day, more than a rig does): most succeed, some fail
and are retried, some write output, some are cancelled. Workers keep few finished attempts, so that they prune all the time.
Records of ended jobs are kept for a day at least (ID_HORIZON_SEC), so ORG_JOBS grows with the jobs, and must by no more
than the bytes of a record each, as what maestro knows of each record by no more than some dozens. Every few seconds the
memory, the descriptors and the threads of each process and the size of each stream are written down; at the end the last
third of the run is compared with the one before it, and every job is checked: one terminal record, one result.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from measure import memory_mb
from ours import Maestro
from limits import Limits

HERE = Path(__file__).resolve().parent
STREAMS = ("ORG_WQ", "ORG_RUN", "ORG_JOBS", "ORG_CTL", "ORG_EVENTS", "ORG_LOGS")
# A record of a job that wrote little, with its headers; tails of the output come on top.
RECORD_BYTES = 2048
# What maestro keeps of an ended job as long as its record is kept: the place, the times, its entry in the list of the newest.
ENDED_BYTES = 64
# What may grow between the thirds before it counts: a heap's breathing, a few descriptors in flight.
ROOM = {"anonymous_mb": (1.15, 1.0), "descriptors": (1.0, 8), "threads": (1.0, 8)}


def task(number: int, chance: random.Random) -> dict:
    """Of a hundred jobs: eighty do nothing, ten write, five fail at first, five fail for good."""
    one: dict = {"task_id": f"soak-{number:08}", "max_retries": 0}
    kind = chance.random()
    if kind < 0.8:
        return one | {"cmd": ["/bin/true"]}
    if kind < 0.9:
        return one | {"type": "shell", "shell": "seq 1 400; seq 1 50 >&2"}
    if kind < 0.95:
        return one | {"type": "shell", "shell": 'test "$TASK_ATTEMPT" -gt 1', "max_retries": 2}
    return one | {"cmd": ["/bin/false"]}


def process_sample(pid: int) -> dict:
    return {"anonymous_mb": memory_mb(pid)["anonymous_mb"], "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
            "threads": len(list(Path(f"/proc/{pid}/task").iterdir()))}


class Soak:
    def __init__(self, directory: Path, chosen: argparse.Namespace):
        self.chosen = chosen
        self.chance = random.Random(7)
        self.ours = Maestro(directory, Limits(directory), RETRY_BACKOFF_SEC=0.1, KEEP_TASKS=200)
        # A bus that has seen nothing yet: the one of the pool is closed for the sake of benchmarks.
        from harness import Bus

        self.bus = Bus(self.ours.url)
        self.results: Counter[str] = Counter()
        self.results_seen = self.bus.subscribe("gpu.task.result.*")
        self.submitted: list[str] = []
        self.cancelled = 0
        self.samples: list[dict] = []

    def sample(self, elapsed: float) -> None:
        self.samples.append({
            "at": elapsed, "jobs": len(self.submitted), "processes": {name: process_sample(pid) for name, pid in self.ours.pids.items()},
            "streams": {name: self.bus.api(f"STREAM.INFO.{name}")["state"]["bytes"] for name in STREAMS},
        })

    def submit(self, count: int) -> None:
        tasks = [task(len(self.submitted) + index, self.chance) for index in range(count)]
        self.bus.store_all("gpu.task.enqueue", tasks, [f"sub:{one['task_id']}" for one in tasks])
        self.submitted += [one["task_id"] for one in tasks]
        if self.chance.random() < 0.2:
            self.bus.request("maestro.api.cancel", {"task_id": self.submitted[-1], "reason": "soak"})
            self.cancelled += 1

    def run(self) -> None:
        began = time.monotonic()
        until = began + 60 * self.chosen.minutes
        next_sample = began
        batch = max(1, self.chosen.rate // 4)
        turn = began
        while (now := time.monotonic()) < until:
            if now >= next_sample:
                self.sample(now - began)
                next_sample = now + self.chosen.interval
            # No deeper backlog than some seconds' worth: a busy machine gets fewer jobs, not a longer queue.
            if len(self.submitted) - len(self.results_seen.all()) < 10 * self.chosen.rate:
                self.submit(batch)
            turn = max(turn + 0.25, now)
            time.sleep(max(0.0, turn - time.monotonic()))  # the pace of the load, not a wait for an event
        self.results_seen.wait_for_count(len(self.submitted), 300)
        self.sample(time.monotonic() - began)

    def check_jobs(self) -> list[str]:
        """Each job has ended once. Records of old jobs may have been removed: their result events tell."""
        seen = Counter(message.json["task_id"] for message in self.results_seen.all())
        problems = [f"{name}: {seen[name]} results" for name in self.submitted if seen[name] != 1]
        for message in self.bus.every("ORG_JOBS", "gpu.task.state.*"):
            if message.json["state"] not in ("done", "failed", "cancelled", "rejected"):
                problems.append(f"{message.json['task_id']} is {message.json['state']} at the end")
        for name in ("ORG_WQ", "ORG_RUN"):
            if self.bus.count(name):
                problems.append(f"{name} still holds {self.bus.count(name)} messages")
        return problems

    def growth(self) -> list[str]:
        """What is larger in the last third than in the one before."""
        problems = []
        third = len(self.samples) // 3
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        jobs = statistics.median(one["jobs"] for one in last) - statistics.median(one["jobs"] for one in middle)
        for name in self.ours.pids:
            if name == "nats-server":
                continue  # its caches are its own affair
            for key, (factor, room) in ROOM.items():
                before = statistics.median(one["processes"][name][key] for one in middle)
                after = statistics.median(one["processes"][name][key] for one in last)
                kept = jobs * ENDED_BYTES / 1e6 if (name, key) == ("maestro", "anonymous_mb") else 0
                if after > before * factor + room + kept:
                    problems.append(f"{key} of {name} grew from {before:.1f} to {after:.1f}")
        per_job = self.samples[-1]["streams"]["ORG_JOBS"] / max(1, len(self.submitted))
        if per_job > RECORD_BYTES:
            problems.append(f"ORG_JOBS holds {per_job:.0f} bytes for each job")
        for name in ("ORG_WQ", "ORG_RUN", "ORG_CTL"):
            before = max(one["streams"][name] for one in middle)
            after = max(one["streams"][name] for one in last)
            if after > before * 1.25 + (1 << 20):
                problems.append(f"{name} grew from {before} to {after} bytes")
        return problems

    def close(self) -> None:
        self.bus.close()
        self.ours.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=100, help="jobs a second that are submitted at most")
    parser.add_argument("--interval", type=float, default=5, help="seconds between samples")
    parser.add_argument("--out", type=Path, default=HERE.parent / ".build/bench/soak.json")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="maestro-soak.") as name:
        soak = Soak(Path(name), chosen)
        try:
            soak.run()
            problems = soak.check_jobs() + soak.growth()
        finally:
            soak.close()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"jobs": len(soak.submitted), "samples": soak.samples, "problems": problems}) + "\n",
                          encoding="utf-8")
    first, last = soak.samples[len(soak.samples) // 3], soak.samples[-1]
    for title in last["processes"]:
        line = ", ".join(f"{key} {first['processes'][title][key]:.1f} -> {last['processes'][title][key]:.1f}" for key in ROOM)
        print(f"{title:14} {line}")
    for title in STREAMS:
        print(f"{title:14} {first['streams'][title]} -> {last['streams'][title]} bytes")
    print(f"soak: {len(soak.submitted)} jobs ({soak.cancelled} asked to be cancelled) in {chosen.minutes:g} minutes; "
          + ("all ended once, nothing grew" if not problems else f"{len(problems)} problems:"))
    for problem in problems[:20]:
        print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
