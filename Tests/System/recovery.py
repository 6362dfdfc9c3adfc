"""How long the pool needs to work again after each fault: stopwatches, and the table of their times."""

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import Message, Pool

# How often the marks are looked at: finer than any time that is told.
TICK = 0.01


@dataclass(frozen=True)
class Start:
    """A job that began to run."""

    task_id: str
    gpu: str


@dataclass
class Stopwatch:
    """Runs from a fault, or its healing, until the first thing that proves the pool's recovery."""

    fault: str
    began: float
    on_start: Callable[[Start], bool] | None = None
    on_message: Callable[[Message], bool] | None = None


class Stopwatches:
    """Watches the marks that jobs leave and what maestros say, and stops what that proves."""

    def __init__(self, pool: Pool, marks: Path):
        self.times: dict[str, list[float]] = defaultdict(list)
        self.running: dict[str, Start] = {}  # by task
        self._open: list[Stopwatch] = []
        self._lock = threading.Lock()
        self._marks = marks.open("rb")
        self._rest = b""
        self._over = threading.Event()
        pool.bus.listen("maestro.state", self._take)
        pool.bus.listen("gpu.task.state.*", self._take)
        self._thread = threading.Thread(target=self._follow, name="marks", daemon=True)
        self._thread.start()

    def begin(self, stopwatch: Stopwatch) -> None:
        with self._lock:
            self._open.append(stopwatch)

    @property
    def open(self) -> list[str]:
        with self._lock:
            return [one.fault for one in self._open]

    def on_card(self, gpu: str) -> set[str]:
        """The jobs that have begun on a card and not come to their end."""
        with self._lock:
            return {start.task_id for start in self.running.values() if start.gpu == gpu}

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._marks.close()

    def _stop_those(self, proves: Callable[[Stopwatch], bool]) -> None:
        now = time.monotonic()
        with self._lock:
            for one in [one for one in self._open if proves(one)]:
                self._open.remove(one)
                self.times[one.fault].append(now - one.began)

    def _take(self, message: Message) -> None:
        if message.subject.startswith("gpu.task.state.") and message.json["state"] not in ("scheduled", "running"):
            with self._lock:
                self.running.pop(message.subject.rpartition(".")[2], None)
        if self.open:
            self._stop_those(lambda one: one.on_message is not None and one.on_message(message))

    def _follow(self) -> None:
        while not self._over.wait(TICK):
            *lines, self._rest = (self._rest + self._marks.read()).split(b"\n")
            for line in lines:
                task_id, _, gpu, what = line.decode().split()
                with self._lock:
                    self.running.pop(task_id, None)
                    if what == "start":
                        self.running[task_id] = Start(task_id, gpu)
                if what == "start":
                    start = Start(task_id, gpu)
                    self._stop_those(lambda one, start=start: one.on_start is not None and one.on_start(start))

    def table(self) -> str:
        """Median and worst of each, in Markdown."""
        lines = ["| fault | counted from, until | times | median s | worst s |", "|---|---|---|---|---|"]
        for fault, times in sorted(self.times.items()):
            name, _, counted = fault.partition(": ")
            lines.append(f"| {name} | {counted} | {len(times)} | {statistics.median(times):.2f} | {max(times):.2f} |")
        return "\n".join(lines)
