#!/usr/bin/env python3
"""Back-tests every strategy x symbol x period x parameters as one Maestro job each, and shows what came out.

Each parameter set runs twice: on an in-sample period, on which the best one is chosen, and on the later
out-of-sample period, which had no part in the choice. Writes a table, results.csv and sweep.png.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import report

HERE = Path(__file__).resolve().parent

# in-sample: [first, split); out-of-sample: [split, last). Roughly 60 : 40.
PERIODS = {
    "GOOG": {"in": ("2004-08-19", "2010-01-01"), "out": ("2010-01-01", "2013-03-02")},
    "EURUSD": {"in": ("2017-04-19", "2017-10-15"), "out": ("2017-10-15", "2018-02-08")},
    "BTCUSD": {"in": ("2012-01-31", "2020-01-01"), "out": ("2020-01-01", "2025-01-01")},
}

# What a change of position costs, as a fraction of the account.
FEES = {"GOOG": 0.0005, "EURUSD": 0.00005, "BTCUSD": 0.001}

# Windows are in bars. GOOG has one a day and EURUSD one an hour; BTCUSD has one a month, 156 in all.
LONG_GRID = {
    "sma": {"fast": [5, 10, 20, 30], "slow": [50, 100, 150, 200]},
    "rsi": {"period": [7, 14, 21], "low": [25, 35], "high": [60, 75]},
    "macd": {"fast": [8, 12, 24], "slow": [26, 52, 104], "signal": [9]},
    "momentum": {"lookback": [5, 10, 20, 40, 60, 90, 120, 180, 250]},
}
SHORT_GRID = {
    "sma": {"fast": [1, 2, 3, 4], "slow": [6, 9, 12, 18]},
    "rsi": {"period": [3, 6, 9], "low": [40, 50], "high": [60, 75]},
    "macd": {"fast": [2, 3, 5], "slow": [8, 12, 18], "signal": [4]},
    "momentum": {"lookback": [1, 2, 3, 4, 6, 8, 10, 12, 18]},
}
GRIDS = {"GOOG": LONG_GRID, "EURUSD": LONG_GRID, "BTCUSD": SHORT_GRID}


class SweepFailed(Exception):
    """The sweep cannot go on; the text says why and what to do."""


@dataclass(frozen=True)
class Job:
    """One back-test, and what its figures will be filed under."""

    task_id: str
    symbol: str
    strategy: str
    params: tuple[tuple[str, int], ...]
    period: str

    def task(self) -> dict:
        """The job as Maestro takes it."""
        start, end = PERIODS[self.symbol][self.period]
        params = ",".join(f"{name}={value}" for name, value in self.params)
        return {
            "task_id": self.task_id,
            "type": "cmd",
            "cmd": [
                sys.executable, str(HERE / "backtest.py"), "--strategy", self.strategy, "--symbol", self.symbol,
                "--params", params, "--start", start, "--end", end, "--fee", str(FEES[self.symbol]),
            ],
            # One thread a job: the pool decides how many jobs run side by side.
            "env": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            "timeout": 120,
            "max_retries": 1,
        }


def plan(run: str) -> list[Job]:
    """Every job of the sweep. Its ids are readable, and the same for every sweep that is called `run`."""
    jobs = []
    for symbol, grid in GRIDS.items():
        for strategy, ranges in grid.items():
            for values in itertools.product(*ranges.values()):
                params = tuple(zip(ranges, values, strict=True))
                settings = dict(params)
                if settings.get("fast", 0) >= settings.get("slow", 1 << 30):
                    continue
                for period in PERIODS[symbol]:
                    label = "-".join(f"{name}{value}" for name, value in params)
                    jobs.append(Job(f"{run}-{symbol}-{strategy}-{label}-{period}", symbol, strategy, params, period))
    return jobs


class Maestro:
    """The pool, through its command line."""

    def __init__(self, program: str, server: str | None):
        self.program = program
        self.server = ["--server", server] if server else []

    def start(self, verb: str, *arguments: str) -> subprocess.Popen:
        try:
            return subprocess.Popen(
                [self.program, verb, *self.server, *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        except OSError as error:
            raise SweepFailed(f"cannot start {self.program}: {error.strerror}; build it with `make`") from error

    def submit(self, jobs: list[Job]) -> int:
        """Submits all jobs in one go; answers how many were known already from an earlier start of this sweep."""
        lines = "".join(json.dumps(job.task()) + "\n" for job in jobs)
        process = self.start("submit", "--from-file", "-", "--json")
        output, errors = process.communicate(lines)
        if process.returncode != 0:
            raise SweepFailed(f"maestroctl submit: {errors.strip()}")
        return sum(json.loads(line)["duplicate"] for line in output.splitlines())

    def wait(self, jobs: list[Job]) -> Iterator[dict]:
        """Yields the record of each job when the job has ended."""
        process = self.start("wait", "--from-file", "-", "--json")
        assert process.stdin and process.stdout and process.stderr
        with process.stdin:
            process.stdin.write("".join(json.dumps({"task_id": job.task_id}) + "\n" for job in jobs))
        for line in process.stdout:
            yield json.loads(line)
        errors = process.stderr.read().strip()
        # 1 says that some of the jobs failed, which their records have told already.
        if process.wait() not in (0, 1):
            raise SweepFailed(f"maestroctl wait: {errors}")

    def result(self, job: Job) -> dict:
        """What the job printed."""
        process = self.start("result", job.task_id, "--json")
        output, errors = process.communicate()
        if process.returncode != 0:
            raise SweepFailed(f"maestroctl result {job.task_id}: {errors.strip()}")
        return json.loads(json.loads(output)["data"]["stdout"])


class Progress:
    """A bar on a terminal; a few lines elsewhere."""

    WIDTH = 40

    def __init__(self, total: int):
        self.total, self.done, self.failed = total, 0, 0
        self.began = time.monotonic()
        self.live = sys.stderr.isatty()

    def add(self, succeeded: bool) -> None:
        self.done += 1
        self.failed += not succeeded
        elapsed = time.monotonic() - self.began
        left = elapsed / self.done * (self.total - self.done)
        text = f"{self.done}/{self.total} jobs, {elapsed:.0f} s, {left:.0f} s left"
        if self.failed:
            text += f", {self.failed} failed"
        if self.live:
            filled = self.WIDTH * self.done // self.total
            print(f"\r\033[K{'█' * filled}{'·' * (self.WIDTH - filled)} {text}", end="", file=sys.stderr, flush=True)
            if self.done == self.total:
                print(file=sys.stderr)
        elif self.done * 4 // self.total != (self.done - 1) * 4 // self.total:
            print(text, file=sys.stderr, flush=True)


def sweep(maestro: Maestro, jobs: list[Job]) -> list[report.Outcome]:
    """Submits, waits and collects. Jobs that failed are left out and told on standard error."""
    by_id = {job.task_id: job for job in jobs}
    known = maestro.submit(jobs)
    print(f"{len(jobs)} jobs submitted" + (f", {known} of them known from before" if known else ""), file=sys.stderr)

    progress = Progress(len(jobs))
    done, failures = [], []
    for record in maestro.wait(jobs):
        succeeded = record["state"] == "done"
        if succeeded:
            done.append(by_id[record["task_id"]])
        else:
            failures.append(f"{record['task_id']} {record['state']}: {record.get('reason', 'no reason given')}")
        progress.add(succeeded)
    for failure in failures[:5]:
        print(failure, file=sys.stderr)
    if len(failures) > 5:
        print(f"… and {len(failures) - 5} more", file=sys.stderr)
    if not done:
        raise SweepFailed("no job succeeded; look at one with: maestroctl show ID")
    return [report.Outcome(job.symbol, job.strategy, job.params, job.period, maestro.result(job)) for job in done]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default=time.strftime("sweep-%Y%m%d-%H%M%S"),
                        help="name of this sweep; the same name again goes on where it stopped")
    parser.add_argument("--server", help="NATS server (default: NATS_URL, or this machine's)")
    parser.add_argument("--maestroctl", default=os.environ.get("MAESTROCTL") or shutil.which("maestroctl")
                        or str(HERE.parent.parent / ".build/release/maestroctl"), help="path of maestroctl")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="directory of the results (default: out)")
    options = parser.parse_args()

    try:
        outcomes = sweep(Maestro(options.maestroctl, options.server), plan(options.run))
    except SweepFailed as failure:
        print(f"sweep.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nThe jobs run on. To go on watching: sweep.py --run {options.run}", file=sys.stderr)
        return 130

    options.out.mkdir(parents=True, exist_ok=True)
    report.write_csv(outcomes, options.out / "results.csv")
    candidates = report.pair(outcomes)
    report.draw(candidates, options.out / "sweep.png")
    print(report.table(candidates))
    print(f"\nall figures: {options.out / 'results.csv'}\npicture:     {options.out / 'sweep.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
