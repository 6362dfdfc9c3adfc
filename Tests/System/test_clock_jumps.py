"""Clocks that jump by hours while jobs run: libfaketime under maestro and workers, the server's clock stays right."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from harness import Pool
from judge import directory_faults, judge, judge_machine
from workload import Client, plan

LIBRARY = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1")


@pytest.fixture(scope="module")
def steady_timers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What libfaketime needs beside it: see its source."""
    library = tmp_path_factory.mktemp("preload") / "steady_timers.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O", "-o", library, Path(__file__).with_name("steady_timers.c")], check=True)
    return library


class Clock:
    """What a program takes for the time: the real one, and an offset that jumps. Its steady clock goes on evenly."""

    def __init__(self, file: Path, steady_timers: Path):
        self.file, self.steady_timers = file, steady_timers
        self.jump(0)

    def jump(self, seconds: int) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": f"{self.steady_timers}:{LIBRARY}", "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.parametrize("jumps", [(7200, -7200), (-86400, 3)], ids=["hours ahead, then behind", "a day behind, then nearly right"])
def test_no_decision_depends_on_the_time_of_day(make_pool, steady_timers: Path, jumps: tuple[int, int]):
    assert LIBRARY.exists(), "scripts/install-deps test installs libfaketime"
    pool: Pool = make_pool()
    clocks = [Clock(pool.directory / f"clock-{number}", steady_timers) for number in range(3)]
    pool.start_maestro(**clocks[0].environment)
    for card in (0, 1):
        pool.start_worker(card, **clocks[1 + card].environment)
    plans = plan(80, random.Random(4), long=30)
    client = Client(pool, pool.directory / "marks")
    client.submit(plans[:40])
    for jump, clock in zip(jumps * 2, [clocks[0], clocks[1], clocks[2]]):
        seen = len(pool.events.all("gpu.task.result."))
        clock.jump(jump)
        pool.events.wait_until(lambda seen=seen: len(pool.events.all("gpu.task.result.")) > seen + 2, what="jobs to end after the jump")
    client.submit(plans[40:])
    client.wait_for_the_end(plans, 120)
    assert not judge(pool, plans, client.marks) + directory_faults(pool, plans)
    assert {pool.record(one.task_id)["lost"] for one in plans} == {0}, "nobody was called lost"
    assert not pool.maestro_events.all("maestro.state", event="gpu_gone")
    pool.stop_programs()
    assert not judge_machine(pool, plans, client.marks)
