"""Jobs of every fate, handed in by a careful client.

A tenth of the jobs fail and are retried, one in a hundred is cancelled, one in a hundred is malformed. Each job appends its
own start and end to one file, and leaves the token of its attempt in its directory: what the judge holds against what the
streams say.
"""

import random
import threading
import time
from dataclasses import dataclass
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import nats.errors
import nats.js.errors
from harness import TERMINAL, Pool

# What a submission waits for an answer at most, in seconds: the faults end before.
PATIENCE = 120
BATCH = 50


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
        mark = f'>> {marks} echo {self.task_id} "$TASK_ATTEMPT_ID" "$GPU_ID"'
        return {"task_id": self.task_id, "type": "shell", "timeout": 120, "max_retries": 2,
                "shell": f'{mark} start; echo "$TASK_ATTEMPT_ID" > attempt; {work}\n{mark} end; echo ended'}

    @property
    def allowed(self) -> set[str]:
        """The states it may end in."""
        return {"quick": {"done"}, "long": {"done"}, "fails": {"failed"}, "fails_once": {"done"},
                "cancelled": {"cancelled", "done"}, "malformed": {"rejected"}}[self.kind]


def plan(jobs: int, chance: random.Random, long: int = 20) -> list[Plan]:
    """Of a hundred, five fail always, five once, one is cancelled, one is malformed and `long` take a second."""
    made = []
    for number in range(jobs):
        draw = chance.randrange(100)
        kind = ("fails" if draw < 5 else "fails_once" if draw < 10 else "cancelled" if draw < 11
                else "malformed" if draw < 12 else "long" if draw < 12 + long else "quick")
        made.append(Plan(f"chaos-{number:05}", kind))
    return made


class Client:
    """Hands jobs in and cancels some, each again until it is answered: there is no other way to know."""

    def __init__(self, pool: Pool, marks: Path):
        self.pool, self.marks = pool, marks
        marks.touch()

    def submit(self, plans: list[Plan]) -> None:
        for start in range(0, len(plans), BATCH):
            batch = plans[start : start + BATCH]
            tasks = [one.task(self.marks) for one in batch]
            self.until_answered(lambda tasks=tasks: self.pool.bus.store_all(
                "gpu.task.enqueue", tasks, [f"sub:{task['task_id']}" for task in tasks]))
        for one in plans:
            if one.kind == "cancelled":
                answer = self.until_answered(
                    lambda one=one: self.pool.bus.request("maestro.api.cancel", {"task_id": one.task_id}, 3))
                if not answer["ok"]:
                    raise AssertionError(f"cancel {one.task_id}: {answer}")

    def until_answered(self, attempt):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return attempt()
            except (nats.errors.Error, nats.js.errors.Error, FutureTimeout) as error:
                if time.monotonic() > until:
                    raise NotAnswered(f"no answer for {PATIENCE} s: {error!r}") from error
                time.sleep(0.2)  # as clients do between two tries: an absent server refuses at once

    def wait_for_the_end(self, plans: list[Plan], deadline: float) -> None:
        """Until every submission has ended and its result is there, and nothing is left to admit or to run."""
        waiting = {one.task_id for one in plans}

        def has_ended(task_id: str) -> bool:
            record = self.until_answered(lambda: self.pool.record(task_id))
            return bool(record and record["state"] in TERMINAL and self.until_answered(
                lambda: self.pool.bus.last("ORG_EVENTS", f"gpu.task.result.{task_id}")))

        def all_ended() -> bool:
            for task_id in sorted(waiting):
                if not has_ended(task_id):
                    return False
                waiting.discard(task_id)
            return True

        self.pool.events.wait_until(
            all_ended, deadline, lambda: "every job to end; not ended: "
            + "; ".join(f"{task_id} {self.pool.record(task_id)}" for task_id in sorted(waiting)[:10]))
        self.pool.wait_empty()


class Feeder:
    """Hands jobs in beside the faults: as many as keep the workers busy, or so many in a second."""

    AHEAD = 200

    def __init__(self, client: Client, plans: list[Plan], per_second: float = float("inf")):
        self.client, self.plans, self.per_second = client, plans, per_second
        self.batch = int(max(1, min(BATCH, per_second / 4)))
        self.handed_in = 0
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self.handed_in < len(self.plans) and not self._stop.is_set():
                if self.handed_in - self.begun() > self.AHEAD:
                    self._stop.wait(0.1)
                    continue
                self.client.submit(self.plans[self.handed_in : self.handed_in + self.batch])
                self.handed_in += self.batch
                self._stop.wait(self.batch / self.per_second)
        except BaseException as failure:  # told to the one who waits, below
            self._failure = failure

    def begun(self) -> int:
        """How many starts were marked. Retries count too, so this errs on the side of more work."""
        return self.client.marks.read_bytes().count(b" start\n")

    @property
    def is_done(self) -> bool:
        if self._failure:
            raise AssertionError("jobs could not be handed in") from self._failure
        return not self._thread.is_alive()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
