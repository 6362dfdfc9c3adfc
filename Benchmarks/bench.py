#!/usr/bin/env python3
"""Measures the pool against what the machine could do at most: one table, and the raw figures as JSON.

    bench.py [--jobs 2000] [--latency-jobs 300] [--idle 10] [--out FILE]

* the limit: a small C program that spawns /bin/true and reads its output, nothing else, one at a time and two at once;
* throughput: all jobs submitted at once, from the first submission to the last result;
* latency: one job at a time, from before its submission until its result event has come;
* each process: resident memory after the work, and the processor time it takes while nothing happens.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Tests/System"))
from harness import BIN_DIR, NATS_SERVER, Bus, Daemon, DeadlinePassed, Pool  # noqa: E402  (found by the line above)

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spawn_limit(directory: Path, count: int) -> dict:
    """What bare posix_spawn reaches: alone, and with as many side by side as there are processors."""
    program = directory / "spawn"
    subprocess.run(["cc", "-O2", "-o", program, HERE / "spawn.c"], check=True)

    def once(_: int = 0) -> dict:
        return json.loads(subprocess.run([program, str(count)], check=True, capture_output=True, text=True).stdout)

    alone = once()
    processors = os.cpu_count() or 1
    with ThreadPoolExecutor(processors) as pool:
        together = list(pool.map(once, range(processors)))
    return alone | {"side_by_side": processors, "side_by_side_per_second": sum(one["per_second"] for one in together)}


def throughput(server: str, count: int, round_name: str) -> dict:
    """Submits everything at once and waits for the last result."""
    with closing(Bus(server)) as bus:
        return throughput_through(bus, count, round_name)


def throughput_through(bus: Bus, count: int, round_name: str) -> dict:
    results = bus.subscribe("gpu.task.result.*")
    tasks = [{"task_id": f"{round_name}-{number:06}", "cmd": ["/bin/true"], "max_retries": 0} for number in range(count)]
    began = time.monotonic()
    for start in range(0, count, 500):
        batch = tasks[start : start + 500]
        bus.store_all("gpu.task.enqueue", batch, [f"sub:{task['task_id']}" for task in batch])
    submitted = time.monotonic() - began
    try:
        results.wait_for_count(count, 120)
    except DeadlinePassed as error:
        states = Counter(message.json["state"] for message in bus.every("ORG_JOBS", "gpu.task.state.*"))
        raise SystemExit(f"bench: {error}; records: {dict(states)}, waiting in ORG_WQ: {bus.count('ORG_WQ')}, "
                         f"in ORG_RUN: {bus.count('ORG_RUN')}, "
                         f"results: {len(bus.every('ORG_EVENTS', 'gpu.task.result.*'))}") from error
    elapsed = time.monotonic() - began
    wrong = [message.subject for message in results.all() if not message.json["ok"]]
    if wrong:
        raise SystemExit(f"bench: {len(wrong)} jobs failed, such as {wrong[0]}")
    return {"jobs": count, "per_second": count / elapsed, "submitted_per_second": count / submitted}


def latency(server: str, count: int, round_name: str) -> dict:
    """One job at a time: from before its submission until its result is here."""
    seconds = []
    with closing(Bus(server)) as bus:
        results = bus.subscribe("gpu.task.result.*")
        for number in range(count):
            began = time.monotonic()
            bus.submit(task_id=f"{round_name}-{number:06}", cmd=["/bin/true"], max_retries=0)
            results.wait_for_count(number + 1)
            seconds.append(time.monotonic() - began)
    return {"jobs": count, "p50_ms": 1e3 * percentile(seconds, 0.5), "p99_ms": 1e3 * percentile(seconds, 0.99),
            "all_ms": [round(1e3 * value, 3) for value in seconds]}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def footprint(daemons: dict[str, Daemon], idle: float) -> dict:
    """Resident memory, and the share of one processor over a quiet time (the one wait here that is a measurement)."""
    before = {name: processor_seconds(daemon.pid) for name, daemon in daemons.items()}
    time.sleep(idle)
    return {
        name: {"resident_mb": resident_mb(daemon.pid),
               "idle_cpu_percent": 100 * (processor_seconds(daemon.pid) - before[name]) / idle}
        for name, daemon in daemons.items()
    }


def table(figures: dict) -> str:
    limit, ours, delay = figures["spawn_limit"], figures["throughput"], figures["latency"]

    def row(name: str, bare: str, through: str, ratio: str = "") -> str:
        return f"{name:34}{bare:>14}{through:>16}{ratio:>12}"

    lines = [
        row("/bin/true", "posix_spawn", "through Maestro", "ratio"),
        "-" * 76,
        row("jobs/s, one at a time", f"{limit['per_second']:.0f}", f"{ours['one_slot']['per_second']:.0f}",
            f"{ours['one_slot']['per_second'] / limit['per_second']:.2f}"),
        row(f"jobs/s, {limit['side_by_side']} at a time", f"{limit['side_by_side_per_second']:.0f}",
            f"{ours['many_slots']['per_second']:.0f}",
            f"{ours['many_slots']['per_second'] / limit['side_by_side_per_second']:.2f}"),
        row("latency p50, ms", f"{limit['p50_ms']:.2f}", f"{delay['p50_ms']:.2f}", f"{delay['p50_ms'] / limit['p50_ms']:.1f}"),
        row("latency p99, ms", f"{limit['p99_ms']:.2f}", f"{delay['p99_ms']:.2f}", f"{delay['p99_ms'] / limit['p99_ms']:.1f}"),
        "",
        row("process", "resident MB", "idle CPU %"),
        "-" * 76,
    ]
    lines += [row(name, f"{one['resident_mb']:.1f}", f"{one['idle_cpu_percent']:.2f}")
              for name, one in figures["processes"].items()]
    return "\n".join(lines)


def with_pool(directory: Path, slots: int, measure: Callable[[Pool], dict]) -> dict:
    directory.mkdir()
    pool = Pool(directory, HEARTBEAT_SEC=5, METRICS_SEC=5, HEARTBEAT_TTL_SEC=15)
    try:
        pool.start_maestro()
        pool.start_worker(0, SLOTS=slots)
        # The pool's own client listens to every message, and Python is slow: each measurement has its own.
        pool.bus.close()
        return measure(pool)
    finally:
        pool.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--latency-jobs", type=int, default=300)
    parser.add_argument("--idle", type=float, default=10, help="seconds of quiet over which idle CPU is measured")
    parser.add_argument("--out", type=Path, default=HERE.parent / ".build/bench.json")
    options = parser.parse_args()
    processors = os.cpu_count() or 1

    with tempfile.TemporaryDirectory(prefix="maestro-bench.") as name:
        directory = Path(name)

        def one_slot(pool: Pool) -> dict:
            throughput(pool.server.url, 200, "warm-up")
            figures = {"latency": latency(pool.server.url, options.latency_jobs, "latency"),
                       "one_slot": throughput(pool.server.url, options.jobs, "throughput")}
            daemons = {"maestro": pool.maestros[0], "gpu-worker": pool.workers["0"]}
            if pool.server.daemon:
                daemons["nats-server"] = pool.server.daemon
            return figures | {"processes": footprint(daemons, options.idle)}

        def many_slots(pool: Pool) -> dict:
            throughput(pool.server.url, 200, "warm-up")
            return throughput(pool.server.url, options.jobs, "throughput")

        limit = spawn_limit(directory, options.jobs)
        first = with_pool(directory / "one", 1, one_slot)
        second = with_pool(directory / "many", processors, many_slots)

    server = subprocess.run([NATS_SERVER, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    figures = {
        "machine": {"processors": processors, "system": platform.platform(), "server": server, "binaries": str(BIN_DIR)},
        "spawn_limit": limit,
        "throughput": {"one_slot": first["one_slot"], "many_slots": second},
        "latency": first["latency"],
        "processes": first["processes"],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(table(figures))
    print(f"\n{server}; raw figures: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
