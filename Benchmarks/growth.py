#!/usr/bin/env python3
"""How cost grows: with the output of a job, with the jobs that wait, and with the cards. Log-log pictures and the raw figures.

    growth.py [--largest-output 10000000] [--most-waiting 100000] [--most-cards 100000] [--out DIRECTORY]

Output: jobs that write so many bytes, one at a time: time to the result, and processor time of the worker for one.
Waiting: that many jobs that nobody may run wait while others run: processor time of maestro for one that runs.
Cards: what the scheduler's core takes for a decision, for a job's whole way and for a heartbeat, with 100,000 jobs waiting.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from limits import Limits  # noqa: E402
from measure import cpu_seconds  # noqa: E402
from ours import Maestro  # noqa: E402
from scheduler import tool  # noqa: E402

HERE = Path(__file__).resolve().parent


def decades(first: int, last: int) -> list[int]:
    values = []
    while first <= last:
        values.append(first)
        first *= 10
    return values


def by_output(directory: Path, largest: int) -> list[dict]:
    ours = Maestro(directory, Limits(directory), workers=1)
    from harness import Bus

    bus = Bus(ours.url)
    rows = []
    try:
        results = bus.subscribe("gpu.task.result.*")
        seen = 0
        for size in decades(100, largest):
            count = 20 if size < 1_000_000 else 5
            worker = ours.pids["gpu-worker@0"]
            before, began = cpu_seconds(worker), time.monotonic()
            for number in range(count):
                bus.submit(task_id=f"out-{size}-{number}", type="shell", shell=f"head -c {size} /dev/zero | tr '\\0' x")
                seen += 1
                results.wait_for_count(seen)
            rows.append({"bytes": size, "ms": 1e3 * (time.monotonic() - began) / count,
                         "cpu_us": 1e6 * (cpu_seconds(worker) - before) / count})
            print(f"output {size:>10} bytes: {rows[-1]['ms']:9.2f} ms, worker {rows[-1]['cpu_us']:9.0f} us", flush=True)
    finally:
        bus.close()
        ours.close()
    return rows


def by_waiting(directory: Path, most: int) -> list[dict]:
    ours = Maestro(directory, Limits(directory), workers=2, MAX_QUEUE=2_000_000)
    from harness import Bus

    bus = Bus(ours.url)
    rows: list[dict] = []
    waiting = 0
    try:
        for target in decades(100, most):
            while waiting < target:
                names = [f"wait-{number:07}" for number in range(waiting, min(target, waiting + 1000))]
                tasks = [{"task_id": name, "cmd": ["/bin/true"], "gpu": 99} for name in names]
                bus.store_all("gpu.task.enqueue", tasks, [f"sub:{name}" for name in names])
                waiting += len(names)
            until = time.monotonic() + 300
            while bus.request("maestro.api.status", {})["qsize"] < target:
                if time.monotonic() > until:
                    raise SystemExit(f"growth: maestro has not admitted {target} jobs in five minutes")
                time.sleep(0.2)
            figures = ours.throughput(1000)
            rows.append({"waiting": target, "cpu_us": figures["cpu_us_per_job"]["maestro"],
                         "per_second": figures["per_second"]})
            print(f"{target:>8} waiting: maestro {rows[-1]['cpu_us']:7.0f} us a job, {rows[-1]['per_second']:.0f} jobs/s", flush=True)
    finally:
        bus.close()
        ours.close()
    return rows


def by_cards(most: int) -> list[dict]:
    cards = ",".join(str(count) for count in decades(10, most))
    rows = tool("core", "--cards", cards, "--jobs", 100_000)["core"]
    for row in rows:
        print(f"{row['cards']:>8} cards: decision {row['decision_us']['p50']:6.2f} us, job {row['job_us']:6.1f} us, "
              f"heartbeat {row['heartbeat_us']:6.2f} us", flush=True)
    return rows


def draw(figures: dict, path: Path) -> None:
    figure, (left, right, third) = plt.subplots(1, 3, figsize=(15, 4), constrained_layout=True)
    output, waiting, cards = figures["output"], figures["waiting"], figures["cards"]
    left.loglog([one["bytes"] for one in output], [1e3 * one["ms"] for one in output], "o-", label="submission to result")
    left.loglog([one["bytes"] for one in output], [max(1, one["cpu_us"]) for one in output], "s-", label="processor time of the worker")
    left.set_xlabel("bytes that a job writes")
    left.set_ylabel("microseconds a job")
    right.loglog([one["waiting"] for one in waiting], [one["cpu_us"] for one in waiting], "o-",
                 label="processor time of maestro for a job that runs")
    right.set_xlabel("jobs that wait")
    right.set_ylim(10, 1e5)
    counts = [one["cards"] for one in cards]
    third.loglog(counts, [one["job_us"] for one in cards], "o-", label="the core, for a job's whole way")
    third.loglog(counts, [one["decision_us"]["p50"] for one in cards], "s-", label="a decision (median)")
    third.loglog(counts, [one["heartbeat_us"] for one in cards], "^-", label="a heartbeat")
    third.set_xlabel("cards")
    third.set_ylim(0.1, 1e3)
    for axis in (left, right, third):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest-output", type=int, default=10_000_000)
    parser.add_argument("--most-waiting", type=int, default=100_000)
    parser.add_argument("--most-cards", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=HERE.parent / ".build/bench")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="maestro-growth.") as name:
        (Path(name) / "output").mkdir()
        (Path(name) / "waiting").mkdir()
        figures = {"output": by_output(Path(name) / "output", chosen.largest_output),
                   "waiting": by_waiting(Path(name) / "waiting", chosen.most_waiting),
                   "cards": by_cards(chosen.most_cards)}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "growth.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw(figures, chosen.out / "growth.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
