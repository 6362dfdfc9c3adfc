#!/usr/bin/env python3
"""Thousands of jobs while everything is killed, hung and healed at random; then a judge looks at all that is left.

    chaos.py [--scenario NAME]... [--jobs 10000] [--workers 4] [--seed N] [--faults NAME,NAME] [--one-at-a-time]
             [--striking SECONDS] [--directory D]

Scenarios, all of them unless told otherwise:
    old        one server, the one that NATS_SERVER names (Debian's 2.9 by default)
    recent     one server, the recent one
    cluster    three recent servers that keep three copies of everything

A fault strikes at least every two seconds, whether or not the pool has got over the one before. Two maestros run, and four
workers (or --workers) of two slots each. Faults strike until all jobs are handed in, or for --striking seconds. With
--one-at-a-time the next fault waits until the pool has got over the one before, and half of the slots are free, so that the
times are those of each alone.
Every run ends with what the judge found (judge.py) and a table of the times to recovery.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from faults import Faults
from harness import NATS_SERVER, Daemon, Pool, Server
from judge import directory_faults, judge, judge_machine
from recovery import Stopwatches
from server_cluster import RECENT_SERVER, ServerCluster
from workload import Client, Feeder, plan

SCENARIOS = ("old", "recent", "cluster")
# Seconds from one fault to the next, and from one recovery to the next fault when they come one at a time.
INTERVAL = (0.3, 2.0)
SETTLING = 2.0
# Of each worker.
SLOTS = 2


@dataclass(frozen=True)
class Storm:
    """What is to be done to how many jobs."""

    scenario: str
    jobs: int
    seed: int
    only: Iterable[str] = field(default=())
    one_at_a_time: bool = False
    striking: float = float("inf")
    workers: int = 4


class Chaos:
    """A pool, a client that hands jobs in, and what strikes them."""

    def __init__(self, directory: Path, storm: Storm):
        self.storm = storm
        self.chance = random.Random(storm.seed)
        # Long jobs, so that each fault meets some.
        self.plans = plan(storm.jobs, self.chance, long=88 if storm.one_at_a_time else 20)
        settings = {"HEARTBEAT_TTL_SEC": 5, "MAX_LOST": 1000, "KEEP_TASKS": 100_000, "SLOTS": SLOTS}
        if storm.scenario == "cluster":
            self.pool = Pool(directory, server=ServerCluster(directory / "nats"), STREAM_REPLICAS=3, **settings)
        else:
            program = RECENT_SERVER if storm.scenario == "recent" else NATS_SERVER
            self.pool = Pool(directory, server=Server(directory / "nats", program=program), **settings)
        self.client = Client(self.pool, directory / "marks")
        self.watches = Stopwatches(self.pool, self.client.marks)
        maestros = [self.pool.start_maestro()]
        for gpu in range(storm.workers):
            self.start_worker(str(gpu))
        maestros.append(self.start_maestro())
        self.faults = Faults(self.pool, self.watches, self.chance, self.start_worker, self.start_maestro, maestros)
        self.began = self.struck_for = 0.0
        self.names = [name for name in self.faults.names if not storm.only or name in storm.only]

    def start_worker(self, gpu: str) -> Daemon:
        return self.pool.start_worker(int(gpu), wait=False)

    def start_maestro(self) -> Daemon:
        return self.pool.start_maestro(leading=False)

    def run(self) -> None:
        """Strikes as long as there are jobs to hand in."""
        # Alone, a fault's time is not to hold the wait for a slot that another job has: nearly all jobs last a second.
        half = self.storm.workers * SLOTS / 2
        feeder = Feeder(self.client, self.plans, half if self.storm.one_at_a_time else float("inf"))
        self.began = time.monotonic()
        next_strike = self.began + SETTLING
        try:
            while not feeder.is_done:
                healing = self.faults.heal_due()
                if time.monotonic() > self.began + self.storm.striking:
                    next_strike = float("inf")
                elif self.storm.one_at_a_time and (self.watches.open or healing < float("inf")):
                    next_strike = time.monotonic() + SETTLING
                wait = min(healing, next_strike - time.monotonic(), 0.2)
                if wait > 0:
                    threading.Event().wait(wait)
                elif self.strike(feeder):
                    next_strike = time.monotonic() + self.chance.uniform(*INTERVAL)
                else:
                    threading.Event().wait(0.05)
        finally:
            feeder.close()
            self.faults.heal_all()

    def strike(self, feeder: Feeder) -> bool:
        """Strikes with the first of the faults, in a random order, that can strike now."""
        names = self.chance.sample(self.names, len(self.names))
        if self.storm.one_at_a_time:
            names.sort(key=lambda name: self.faults.struck[name])
        name = next((name for name in names if self.faults.strike(name)), None)
        if name:
            self.struck_for = time.monotonic() - self.began
            print(f"{sum(self.faults.struck.values()):4} {name:22} {feeder.handed_in} of {len(self.plans)} handed in", flush=True)
        return name is not None

    def judge(self) -> list[str]:
        """Waits for the end, and answers everything that is not as it must be."""
        if isinstance(self.pool.server, ServerCluster):
            self.pool.server.wait_until_whole(self.pool.bus)
        self.client.wait_for_the_end(self.plans, 120 + len(self.plans) / 10)
        found = judge(self.pool, self.plans, self.client.marks) + directory_faults(self.pool, self.plans)
        self.pool.stop_programs()
        return found + judge_machine(self.pool, self.plans, self.client.marks)

    def close(self) -> None:
        self.watches.close()
        self.pool.close()


def run(directory: Path, storm: Storm) -> list[str]:
    """One scenario from start to end; answers what the judge found."""
    print(f"chaos: {storm.scenario}, {storm.jobs} jobs, --seed {storm.seed}, in {directory}", flush=True)
    directory.mkdir(parents=True, exist_ok=True)
    chaos = Chaos(directory, storm)
    try:
        chaos.run()
        faults = sum(chaos.faults.struck.values())
        print(f"{faults} faults in {chaos.struck_for:.0f} s, one every {chaos.struck_for / max(faults, 1):.1f} s: "
              + ", ".join(f"{name} {count}" for name, count in sorted(chaos.faults.struck.items())), flush=True)
        found = chaos.judge()
        print(f"all {storm.jobs} jobs ended after {time.monotonic() - chaos.began:.0f} s\n\n{chaos.watches.table()}\n", flush=True)
        return found
    finally:
        chaos.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="may be given more than once")
    parser.add_argument("--jobs", type=int, default=10_000, help="in each scenario (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--faults", default="", help="only these, between commas (default: all that the scenario has)")
    parser.add_argument("--one-at-a-time", action="store_true")
    parser.add_argument("--striking", type=float, default=float("inf"), metavar="SECONDS", help="no more faults after that (default: as long as jobs are handed in)")
    parser.add_argument("--directory", type=Path, help="keeps the logs and streams there (default: a new one in /tmp)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order, so that no process is left
    directory = options.directory or Path(tempfile.mkdtemp(prefix="maestro-chaos."))
    if directory.exists() and any(directory.iterdir()):
        parser.error(f"{directory} is not empty: what an earlier run left there would be judged too")
    only = tuple(name.strip() for name in options.faults.split(",") if name.strip())
    failed = False
    for scenario in options.scenario or SCENARIOS:
        storm = Storm(scenario, options.jobs, options.seed, only, options.one_at_a_time, options.striking, options.workers)
        found = run(directory / scenario, storm)
        for fault in found[:50]:
            print(f"FAULT {fault}", file=sys.stderr)
        print(f"chaos: {scenario}: the judge found {len(found)} faults, --seed {options.seed}, logs in {directory / scenario}\n", flush=True)
        failed |= bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
