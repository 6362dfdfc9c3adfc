#!/usr/bin/env python3
"""Measures the pool beside its peers and beside what the machine could do at most: one table, raw figures, a picture.

    bench.py [--quick] [--rounds 5] [--jobs 2000] [--latency-jobs 300] [--peers celery,rq,...] [--out DIRECTORY]

--quick takes two rounds of few jobs against Celery and nats-py alone: for a busy machine, and for a first look.

Everything in one run, in rounds: each round measures the limits, Maestro and each peer once, one after the other, each
with nothing else running. What is compared are the ratios within a round; the table shows their median and range.

* limits: C programs that spawn /bin/true, and that publish into a stream of this nats-server;
* throughput: all jobs submitted at once, from the first submission to the last result, a real /bin/true for each;
* latency: one job at a time on an idle system, from before its submission until its result is there;
* the scheduler alone: decisions, dispatch to simulated workers, signs of life of very many, memory, a restart;
* maestroctl: submission of a file, `show` and `list`, start included;
* each process: memory after the work, and processor time while nothing happens.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from client import Client
from limits import Limits
from measure import spread
from ours import BIN_DIR, Maestro
from peers import PEERS, Unavailable
from picture import draw
from report import table
from scheduler import measure_scheduler

HERE = Path(__file__).resolve().parent
NATS_SERVER = os.environ.get("NATS_SERVER", "nats-server")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of few jobs, Celery and nats-py alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs of a round's throughput; slow peers get a tenth")
    parser.add_argument("--latency-jobs", type=int, default=300)
    parser.add_argument("--idle", type=float, default=20, help="seconds of quiet over which idle CPU is measured")
    parser.add_argument("--waiting", type=int, default=10000, help="waiting jobs for the measurements of maestroctl")
    parser.add_argument("--many", type=int, default=1_000_000, help="waiting jobs for the measurements of maestro alone")
    parser.add_argument("--dispatch-jobs", type=int, default=20_000, help="jobs that simulated workers are given")
    parser.add_argument("--file-jobs", type=int, default=50000, help="jobs of a file that maestroctl submits")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers, between commas; may be empty")
    parser.add_argument("--out", type=Path, default=HERE.parent / ".build/bench", help="directory of the figures")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(rounds=2, jobs=600, latency_jobs=60, idle=6, waiting=2000, file_jobs=20000,
                            many=50_000, dispatch_jobs=3000, peers="celery,nats-py")
    return parser.parse_args()


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure_limits(limits: Limits, directory: Path, jobs: int) -> dict:
    from harness import Server

    server = Server(directory / "limit")
    server.start()
    try:
        return {"spawn": limits.spawn(jobs), "jetstream": limits.jetstream(server.url, jobs * 20)}
    finally:
        server.stop()


def measure_ours(limits: Limits, directory: Path, chosen: argparse.Namespace, is_last: bool) -> dict:
    ours = Maestro(directory, limits)
    try:
        ours.throughput(max(100, chosen.jobs // 10))
        figures = {"latency": ours.latency(chosen.latency_jobs), "throughput": ours.throughput(chosen.jobs),
                   "start_to_ready_ms": ours.start_to_ready(9)}
        if is_last:
            figures["footprint"] = ours.footprint(chosen.idle)
        return figures
    finally:
        ours.close()


def measure_fleet(limits: Limits, directory: Path, chosen: argparse.Namespace) -> dict:
    """Twelve workers on one host, as on a rig of twelve cards."""
    ours = Maestro(directory, limits, workers=12, slots=1)
    try:
        ours.throughput(120)
        return ours.footprint(chosen.idle)
    finally:
        ours.close()


def measure_peer(name: str, directory: Path, chosen: argparse.Namespace) -> dict:
    kind, divisor = PEERS[name]
    peer = kind(directory)
    try:
        peer.throughput(max(20, chosen.jobs // divisor // 10))
        return {"latency": peer.latency(max(10, chosen.latency_jobs // divisor)),
                "throughput": peer.throughput(max(50, chosen.jobs // divisor)), "resident_mb": peer.footprint()}
    finally:
        peer.close()


def measure(chosen: argparse.Namespace, directory: Path) -> dict:
    limits = Limits(directory)
    rounds: list[dict] = []
    unavailable: dict[str, str] = {}
    names = [name for name in chosen.peers.split(",") if name]
    for number in range(chosen.rounds):
        place = directory / f"round{number}"
        place.mkdir()
        say(f"round {number + 1} of {chosen.rounds}: limits")
        one = {"load_before": os.getloadavg()[0], "limits": measure_limits(limits, place, chosen.jobs), "peers": {}}
        say(f"round {number + 1}: maestro")
        one["ours"] = measure_ours(limits, place / "ours", chosen, number == chosen.rounds - 1)
        for name in names:
            if name in unavailable:
                continue
            say(f"round {number + 1}: {name}")
            try:
                one["peers"][name] = measure_peer(name, place / name, chosen)
            except Unavailable as error:
                unavailable[name] = str(error)
                say(f"{name} is left out: {error}")
        rounds.append(one)
    say("maestroctl")
    client = Client(directory / "client", limits)
    try:
        commands = client.measure(chosen.waiting, chosen.file_jobs, chosen.rounds)
    finally:
        client.close()
    say("twelve workers")
    fleet = measure_fleet(limits, directory / "fleet", chosen)
    say("the scheduler alone")
    scheduler = measure_scheduler(limits, directory / "scheduler", chosen.dispatch_jobs, chosen.many)
    return {"rounds": rounds, "unavailable": unavailable, "maestroctl": commands, "fleet": fleet, "scheduler": scheduler}


def main() -> int:
    chosen = options()
    server = subprocess.run([NATS_SERVER, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="maestro-bench.") as name:
        figures = measure(chosen, Path(name))
    figures |= {
        "machine": {"processors": os.cpu_count(), "system": platform.platform(), "server": server, "binaries": str(BIN_DIR),
                    "load": spread([one["load_before"] for one in figures["rounds"]])},
        "options": {key: str(value) for key, value in vars(chosen).items()}, "began": began, "seconds": time.time() - began,
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "bench.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(table(figures))
    draw(figures, chosen.out / "bench.png")
    print(f"\n{server}; raw figures: {chosen.out / 'bench.json'}; picture: {chosen.out / 'bench.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
