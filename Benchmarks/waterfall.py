#!/usr/bin/env python3
"""Where each microsecond of a job goes: follows jobs over the bus, one at a time, and draws the way of the median job.

    waterfall.py [--jobs 200] [--out DIRECTORY]

One subscriber sees every message of a job and takes the time (Benchmarks/programs/trace.c); nothing is built into the
programs for it. Steps are the gaps between messages, the median of all jobs for each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from limits import PROGRAMS, Limits  # noqa: E402
from measure import percentile  # noqa: E402
from ours import Maestro  # noqa: E402

HERE = Path(__file__).resolve().parent

# The message that ends a step, who works during it, and what is done.
STEPS = [
    ("enqueue", "nats-server", "the submission is stored and seen"),
    ("enqueued", "maestro", "pulled, checked, its record created"),
    ("scheduled", "maestro", "placed on a card, the record written"),
    ("run", "maestro", "the run message"),
    ("running", "gpu-worker", "the record read, then claimed"),
    ("exited", "the job", "/bin/true: what a bare posix_spawn takes from its start to its end"),
    ("done", "gpu-worker", "directory, journal, the end noticed, the record committed"),
    ("told", "gpu-worker", "the done event"),
    ("result", "gpu-worker", "the result event"),
]
COLOURS = {"nats-server": "#8a8a8a", "maestro": "#1f6fb2", "gpu-worker": "#2e8b57", "the job": "#c27c0e"}


def times(job: dict, spawn_us: float) -> dict[str, float]:
    """When each step of a job ended. The second message called `done` is the event, the first the record."""
    found: dict[str, float] = {}
    for name, at in job["seen"]:
        found["told" if name == "done" and name in found else name] = at
    found["exited"] = min(found["running"] + spawn_us, found["done"])
    return found


def medians(jobs: list[dict], spawn_us: float) -> list[tuple[str, str, str, float]]:
    """The length of each step in microseconds."""
    steps = []
    lengths: dict[str, list[float]] = {name: [] for name, _, _ in STEPS}
    for job in jobs:
        reached, before = times(job, spawn_us), 0.0
        for name, _, _ in STEPS:
            lengths[name].append(reached[name] - before)
            before = reached[name]
    for name, who, what in STEPS:
        steps.append((name, who, what, percentile(lengths[name], 0.5)))
    return steps


def draw(steps: list[tuple[str, str, str, float]], jobs: int, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(11, 4.6), constrained_layout=True)
    began = 0.0
    whole = sum(length for *_, length in steps)
    for position, (_, who, what, length) in enumerate(steps):
        axis.barh(position, length, left=began, color=COLOURS[who])
        right = began + length
        text = f"{what}: {length:.0f} us"
        if right < whole * 0.55:
            axis.annotate(f"  {text}", (right, position), va="center", fontsize=9)
        else:
            axis.annotate(f"{text}  ", (began, position), va="center", ha="right", fontsize=9)
        began = right
    axis.set_yticks([])
    axis.invert_yaxis()
    axis.set_xlabel(f"microseconds since just before the publish (median of {jobs} jobs, one at a time)")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(handles=[plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()], labels=list(COLOURS),
                loc="lower left", fontsize=9, frameon=False)
    axis.set_title(f"One job of /bin/true through an idle pool: {whole / 1000:.2f} ms", fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=HERE.parent / ".build/bench")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="maestro-waterfall.") as name:
        limits = Limits(Path(name))
        program = Path(name) / "trace"
        subprocess.run(["cc", "-O2", "-Wall", "-o", program, PROGRAMS / "trace.c", "-lnats"], check=True)
        ours = Maestro(Path(name) / "pool", limits)
        try:
            ours.throughput(200)
            spawn_us = 1e3 * limits.run("spawn", chosen.jobs)["p50_ms"]
            ended = subprocess.run([program, ours.url, "trace", str(chosen.jobs)], check=True, capture_output=True, text=True)
        finally:
            ours.close()
    jobs = [json.loads(line) for line in ended.stdout.splitlines()]
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "waterfall.json").write_text(json.dumps({"spawn_us": spawn_us, "jobs": jobs}) + "\n", encoding="utf-8")
    steps = medians(jobs, spawn_us)
    for name, who, what, length in steps:
        print(f"{name:10} {length:8.0f} us  {who:12} {what}")
    print(f"{'in all':10} {sum(length for *_, length in steps):8.0f} us")
    draw(steps, len(jobs), chosen.out / "waterfall.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
