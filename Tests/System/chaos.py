#!/usr/bin/env python3
"""Kills everything at random while thousands of jobs run, and then checks that each of them ended exactly once.

    chaos.py [--jobs 5000] [--kills 30] [--seed N] [--directory D]

A tenth of the jobs fail and are retried, one in a hundred is cancelled, one in a hundred is malformed. Each job appends
its own start and end to one file. The checker knows only the wire contract and compares those marks with the records,
events and results that the streams hold:

* every submission has one record, in a terminal state that fits what the job was, and exactly one result that agrees;
* every start belongs to an attempt of its own, no two attempts of a job overlap, and there are no more starts than the
  record counts; each start after the first is explained by a loss or a failed attempt that was told;
* nothing is left in ORG_WQ and ORG_RUN, and no process of a job is left.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path

import nats.errors
import nats.js.errors
from harness import Pool, TERMINAL

KINDS = ("maestro", "worker", "server")
WORKERS = (0, 1)
LEAST_OF_EACH_KIND = 5
BYTES_OF_MARKS = 2 * len("chaos-00000 0123456789abcdef01234567 12345 start")


class NotAnswered(Exception):
    """The server did not answer in the time that a client gives it."""


@dataclass(frozen=True)
class Plan:
    """What one job is to do, and so how it may end."""

    task_id: str
    kind: str  # quick, long, fails, fails_once, cancelled, malformed

    def task(self, marks: Path) -> dict:
        if self.kind == "malformed":
            return {"task_id": self.task_id, "type": "shell", "shell": "echo never", "timeout": -1}
        work = {"quick": "", "long": "sleep 1", "fails": "exit 3", "cancelled": "sleep 0.5",
                "fails_once": '[ "$TASK_ATTEMPT" -gt 1 ] || exit 4'}[self.kind]
        # One write of a short line to a file opened for appending is never torn or mixed with another.
        mark = f'>> {marks} echo {self.task_id} "$TASK_ATTEMPT_ID" "$$"'
        return {"task_id": self.task_id, "type": "shell", "shell": f"{mark} start; {work}\n{mark} end",
                "timeout": 120, "max_retries": 2}

    @property
    def allowed(self) -> set[str]:
        """The states it may end in."""
        return {"quick": {"done"}, "long": {"done"}, "fails": {"failed"}, "fails_once": {"done"},
                "cancelled": {"cancelled", "done"}, "malformed": {"rejected"}}[self.kind]


def plan(jobs: int, chance: random.Random) -> list[Plan]:
    """One in twenty fails always, one in twenty once, one in a hundred is cancelled, one is malformed, three are long."""
    made = []
    for number in range(jobs):
        draw = chance.randrange(100)
        kind = ("fails" if draw < 5 else "fails_once" if draw < 10 else "cancelled" if draw < 11
                else "malformed" if draw < 12 else "long" if draw < 15 else "quick")
        made.append(Plan(f"chaos-{number:05}", kind))
    return made


class Chaos:
    """The pool, the killer and the client."""

    def __init__(self, pool: Pool, plans: list[Plan], kills: int, chance: random.Random):
        self.pool, self.plans, self.kills, self.chance = pool, plans, kills, chance
        self.marks = pool.directory / "marks"
        self.marks.touch()
        self.killed: Counter[str] = Counter()
        self.cancels: list[str] = []

    def run(self) -> None:
        self.pool.start_maestro()
        for gpu in WORKERS:
            self.pool.start_worker(gpu)
        self.pool.start_maestro(leading=False)

        # Jobs are handed in between the kills, so that there is work at each of them.
        order = self.order_of_kills()
        steps = len(order) + 1
        for step in range(steps):
            self.submit(self.plans[len(self.plans) * step // steps : len(self.plans) * (step + 1) // steps])
            if step < len(order):
                self.let_some_jobs_run()
                self.kill(order[step])

    def order_of_kills(self) -> list[str]:
        """A random order with at least five of each kind."""
        order = [kind for kind in KINDS for _ in range(min(LEAST_OF_EACH_KIND, self.kills // len(KINDS)))]
        order += self.chance.choices(KINDS, k=self.kills - len(order))
        self.chance.shuffle(order)
        return order

    def let_some_jobs_run(self) -> None:
        """Waits until a random number of marks more is there: a moment that no clock decides.

        On average that is the share of the jobs that falls to one kill, so that the kills last as long as the jobs.
        """
        share = len(self.plans) * BYTES_OF_MARKS // (self.kills + 1)
        wanted = self.marks.stat().st_size + self.chance.randrange(share // 4, share * 7 // 4)
        until = time.monotonic() + 20
        with contextlib.suppress(AssertionError):
            self.pool.events.wait_until(lambda: self.marks.stat().st_size >= wanted or time.monotonic() > until, 21)

    def kill(self, kind: str) -> None:
        self.killed[kind] += 1
        if kind == "server":
            self.pool.server.kill()
            self.pool.server.start()
        elif kind == "worker":
            gpu = self.chance.choice(WORKERS)
            self.pool.workers[str(gpu)].kill()
            self.pool.start_worker(gpu, wait=False)
        else:
            victim = self.chance.choice([maestro for maestro in self.pool.maestros if maestro.running])
            victim.kill()
            self.pool.start_maestro(leading=False)
        print(f"killed {kind:8} {sum(self.killed.values()):3}/{self.kills}", flush=True)

    def submit(self, plans: list[Plan]) -> None:
        """As a careful client: again with the same id until the stream has answered."""
        for start in range(0, len(plans), 100):
            batch = plans[start : start + 100]
            tasks = [one.task(self.marks) for one in batch]
            self.until_answered(lambda tasks=tasks: self.pool.bus.store_all(
                "gpu.task.enqueue", tasks, [f"sub:{task['task_id']}" for task in tasks]))
        for one in plans:
            if one.kind == "cancelled":
                self.cancels.append(one.task_id)
                answer = self.until_answered(
                    lambda one=one: self.pool.bus.request("maestro.api.cancel", {"task_id": one.task_id}, 3))
                if not answer["ok"]:
                    raise AssertionError(f"cancel {one.task_id}: {answer}")

    def until_answered(self, attempt):
        """Repeats what a lost server or leader did not answer; there is no other way to know."""
        until = time.monotonic() + 120
        while True:
            try:
                return attempt()
            except (nats.errors.Error, nats.js.errors.Error, FutureTimeout) as error:
                if time.monotonic() > until:
                    raise NotAnswered("no answer for two minutes") from error

    def wait_for_the_end(self, deadline: float) -> None:
        """Until every submission has ended and its result is there."""
        waiting = {one.task_id for one in self.plans}

        def all_ended() -> bool:
            for task_id in list(waiting):
                record = self.pool.record(task_id)
                if not record or record["state"] not in TERMINAL:
                    return False
                if not self.pool.bus.last("ORG_EVENTS", f"gpu.task.result.{task_id}"):
                    return False
                waiting.discard(task_id)
            return True

        try:
            self.pool.events.wait_until(all_ended, deadline, "every job to end")
        except AssertionError:
            for task_id in sorted(waiting)[:10]:
                print(f"not ended: {task_id} {self.pool.record(task_id)}", file=sys.stderr)
            raise
        self.pool.wait_empty()


def check(chaos: Chaos) -> list[str]:
    """Every way in which marks, records, events and results disagree; none is what we want to see."""
    bus = chaos.pool.bus
    records: dict[str, list[dict]] = defaultdict(list)
    for message in bus.every("ORG_JOBS", "gpu.task.state.*"):
        records[message.subject.rpartition(".")[2]].append(message.json)
    results: dict[str, list[dict]] = defaultdict(list)
    for message in bus.every("ORG_EVENTS", "gpu.task.result.*"):
        results[message.subject.rpartition(".")[2]].append(message.json)
    done: dict[str, list[dict]] = defaultdict(list)
    for message in bus.every("ORG_EVENTS", "gpu.task.done"):
        done[message.json["task_id"]].append(message.json)
    errors: dict[str, list[dict]] = defaultdict(list)
    for message in bus.every("ORG_EVENTS", "gpu.task.err"):
        errors[message.json["task_id"]].append(message.json)
    marks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in chaos.marks.read_text().splitlines():
        task_id, attempt, _, what = line.split()
        marks[task_id].append((attempt, what))

    found = [f"{task_id}: a record that nobody submitted" for task_id in records.keys() - {one.task_id for one in chaos.plans}]
    for one in chaos.plans:
        found += [f"{one.task_id} ({one.kind}): {fault}" for fault in check_job(
            one, records[one.task_id], results[one.task_id], done[one.task_id], errors[one.task_id], marks[one.task_id])]

    states = Counter(record[-1]["state"] for record in records.values())
    if sum(states.values()) != len(chaos.plans):
        found.append(f"{len(chaos.plans)} submitted, but {sum(states.values())} ended: {dict(states)}")
    for stream in ("ORG_WQ", "ORG_RUN"):
        if bus.count(stream):
            found.append(f"{bus.count(stream)} messages are left in {stream}")
    found += [f"process {pid} of a job still runs" for pid in leftovers(chaos.marks)]

    print(f"ended: {dict(sorted(states.items()))}; lost attempts {sum(r[-1]['lost'] for r in records.values())}; "
          f"starts {sum(what == 'start' for list_ in marks.values() for _, what in list_)}")
    return found


def check_job(one: Plan, records: list, results: list, done: list, errors: list, marks: list) -> Iterator[str]:
    if len(records) != 1:
        yield f"{len(records)} records"
        return
    record = records[0]
    state, tries, lost = record["state"], record["tries"], record["lost"]
    if state not in one.allowed:
        # A job that lost its worker too often may fail for that; it must say so.
        if not (state == "failed" and record["outcome"]["code"] == "lost"):
            yield f"ended {state}: {record['reason']}"
    if len(results) != 1:
        yield f"{len(results)} results"
    elif (results[0]["state"], results[0]["tries"]) != (state, tries) or results[0]["ok"] != (state == "done"):
        yield f"the result says {results[0]['state']} after {results[0]['tries']}, the record {state} after {tries}"

    starts = [attempt for attempt, what in marks if what == "start"]
    ends = [attempt for attempt, what in marks if what == "end"]
    if len(set(starts)) != len(starts):
        yield f"an attempt started twice: {starts}"
    if len(starts) > tries:
        yield f"{len(starts)} starts, but {tries} attempts in the record"
    order = [attempt for attempt, _ in marks]
    if order != sorted(order, key=order.index):
        yield f"two attempts overlapped: {marks}"

    told_lost = {error["attempt_id"] for error in errors if error["code"] in ("lost", "drained")}
    told_failed = {error["attempt_id"] for error in errors if error.get("will_retry")} - told_lost
    if len(starts) - 1 > lost + len(told_failed):
        yield f"{len(starts)} starts, explained are {lost} losses and {len(told_failed)} failures"
    for attempt in starts[:-1]:
        if attempt not in told_lost | told_failed:
            yield f"attempt {attempt} was followed by another, and no event says why"
    if state == "done":
        if record["attempt_id"] not in ends:
            yield f"done by attempt {record['attempt_id']}, which did not come to its end: {marks}"
        if {event["attempt_id"] for event in done} != {record["attempt_id"]}:
            yield f"gpu.task.done of {[event['attempt_id'] for event in done]}, the record names {record['attempt_id']}"
        failures = tries - lost - 1
        if failures != (one.kind == "fails_once" and record_failed_once(errors)):
            yield f"{failures} failures in the record"
    elif done:
        yield f"gpu.task.done of a job that ended {state}"
    if state == "failed" and record["outcome"]["code"] != "lost" and tries - lost != 3:
        yield f"failed after {tries - lost} attempts of its own instead of 3"
    if state == "rejected" and marks:
        yield "rejected, but it ran"


def record_failed_once(errors: list) -> bool:
    """Whether the first attempt failed by itself; when it was lost instead, the next one succeeds at once."""
    return any(error["code"] == "exit" for error in errors)


def leftovers(marks: Path) -> list[int]:
    """Processes that still mention the file of marks."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                command = (directory / "cmdline").read_bytes()
                if str(marks).encode() in command:
                    found.append(int(directory.name))
    return found


def run(directory: Path, jobs: int, kills: int, seed: int) -> list[str]:
    """The whole test; answers what the checker found."""
    chance = random.Random(seed)
    print(f"chaos: {jobs} jobs, {kills} kills, --seed {seed}, in {directory}", flush=True)
    pool = Pool(directory, HEARTBEAT_TTL_SEC=5, MAX_LOST=100)
    try:
        chaos = Chaos(pool, plan(jobs, chance), kills, chance)
        began = time.monotonic()
        chaos.run()
        print(f"all submitted and all kills done after {time.monotonic() - began:.0f} s", flush=True)
        chaos.wait_for_the_end(120 + jobs / 10)
        print(f"all ended after {time.monotonic() - began:.0f} s; kills: {dict(chaos.killed)}", flush=True)
        return check(chaos)
    finally:
        pool.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--directory", type=Path, help="keeps the logs and streams there (default: a new one in /tmp)")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="maestro-chaos."))
    directory.mkdir(parents=True, exist_ok=True)
    faults = run(directory, options.jobs, options.kills, options.seed)
    for fault in faults[:50]:
        print(f"FAULT {fault}", file=sys.stderr)
    print(f"chaos: {len(faults)} faults, --seed {options.seed}, logs in {directory}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
