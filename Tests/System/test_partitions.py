"""Pulled cables between maestro, worker and server, and bad ones."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Pool, Server, process_alive
from judge import directory_faults, judge, judge_machine
from netspace import Machine, Switch
from wireproxy import Proxy, Weather
from workload import Client, Plan, plan


class Site:
    """A server, two maestros and two workers, each on a machine of its own."""

    def __init__(self, directory: Path, switch: Switch):
        self.machines: dict[str, Machine] = {name: switch.machine() for name in ("server", "m1", "m2", "rig1", "rig2")}
        self.pool = Pool(directory, server=Server(directory / "nats", machine=self.machines["server"]))
        self.pool.start_maestro(wrapper=self.machines["m1"].wrapper)
        self.standby = self.pool.start_maestro(leading=False, wrapper=self.machines["m2"].wrapper)
        for card, rig in enumerate(("rig1", "rig2")):
            self.pool.start_worker(card, wrapper=self.machines[rig].wrapper)
        self.standby.wait_for_line("standing by")
        self.marks = directory / "marks"
        self.client = Client(self.pool, self.marks)

    def check(self, plans: list[Plan]) -> None:
        """All jobs ended once, and nothing is left."""
        self.client.wait_for_the_end(plans, 60)
        found = judge(self.pool, plans, self.marks) + directory_faults(self.pool, plans)
        self.pool.stop_programs()
        assert not found + judge_machine(self.pool, plans, self.marks)


@pytest.fixture
def site(tmp_path: Path, switch: Switch) -> Iterator[Site]:
    made = Site(tmp_path, switch)
    try:
        yield made
    finally:
        made.pool.close()


def test_a_job_behind_a_cut_is_given_away_and_its_first_copy_killed(site: Site, task_id: str):
    pool = site.pool
    pool.bus.submit(task_id=task_id, type="shell", gpu=None, timeout=300,
                    shell=f'echo {task_id} "$TASK_ATTEMPT_ID" "$GPU_ID" start >> {site.marks}; echo $$ > pid; echo "$TASK_ATTEMPT_ID" > attempt; '
                          f'[ "$TASK_ATTEMPT" -gt 1 ] || sleep 1000; echo {task_id} "$TASK_ATTEMPT_ID" "$GPU_ID" end >> {site.marks}')
    first = pool.wait_state(task_id, "running")
    rig = site.machines[f"rig{first['gpu'] + 1}"]
    pid_file = pool.gpucache(first["gpu"]) / "tasks" / task_id / "pid"
    pool.events.wait_until(pid_file.exists, what="the job to begin")

    rig.pull()
    record = pool.wait_state(task_id, "done")
    assert (record["tries"], record["lost"], record["gpu"]) == (2, 1, 1 - first["gpu"])
    first_copy = int(pid_file.read_text())
    assert process_alive(first_copy), "the policy is to let it run while nobody can be asked"
    rig.plug()
    pool.events.wait_until(lambda: not process_alive(first_copy), what="the first copy to be killed")
    assert pool.record(task_id) == record
    site.check([Plan(task_id, "quick")])


def test_a_short_cut_of_a_worker_costs_nothing(site: Site):
    plans = [Plan(f"short-{number}", "long") for number in range(8)]
    site.client.submit(plans)
    site.pool.events.wait_until(lambda: site.pool.events.all("gpu.task.state.", state="running"), what="a job to run")
    heartbeats = len(site.pool.events.all("gpu.worker.heartbeat", gpu_id=1))
    site.machines["rig1"].pull()
    site.pool.events.wait("gpu.worker.heartbeat", gpu_id=1, count=heartbeats + 2)
    site.machines["rig1"].plug()
    site.check(plans)
    assert not [plan for plan in plans if site.pool.events.all("gpu.task.err", task_id=plan.task_id)]


def test_a_leader_behind_a_cut_is_replaced_and_does_no_harm_when_it_is_back(site: Site):
    plans = [Plan(f"leader-{number}", "quick") for number in range(200)]
    site.client.submit(plans[:100])
    leading = len(site.pool.maestro_events.all("maestro.state", event="leading"))
    site.machines["m1"].pull()
    site.pool.maestro_events.wait("maestro.state", event="leading", count=leading + 1)
    site.client.submit(plans[100:])
    site.machines["m1"].plug()
    site.pool.maestros[0].wait_for_line("no longer leading")
    site.check(plans)


def test_after_an_outage_of_the_server_nobody_is_called_lost_who_lives(site: Site):
    """A cut longer than everybody's patience: the jobs run on, and each ends once with its first attempt."""
    plans = [Plan(f"outage-{number}", "long") for number in range(4)]
    site.client.submit(plans)
    site.pool.events.wait_until(lambda: site.marks.read_text().count(" start") >= 2, what="two jobs to run")
    for name in ("m1", "m2", "rig1", "rig2"):
        site.machines[name].pull()
    # Both have ended; nobody could tell it.
    site.pool.events.wait_until(lambda: site.marks.read_text().count(" end") >= 2, what="two jobs to end")
    gone = site.pool.settings["HEARTBEAT_TTL_SEC"]
    site.pool.maestro_events.wait_until(_after(float(gone) + 2), what="the patience of all to end")
    for name in ("rig1", "rig2", "m1", "m2"):
        site.machines[name].plug()
    site.check(plans)
    assert {site.pool.record(plan.task_id)["tries"] for plan in plans} == {1}


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


@pytest.mark.parametrize("weather", [Weather(delay=0.03), Weather(delay=0.01, loss=0.03)], ids=str)
def test_a_bad_line_makes_it_slower_and_nothing_else(make_pool, weather: Weather):
    pool = make_pool(HEARTBEAT_TTL_SEC=8)
    proxy = Proxy(pool.server.port, seed=1)
    try:
        pool.start_maestro(NATS_URL=proxy.url)
        for card in (0, 1):
            pool.start_worker(card, NATS_URL=proxy.url)
        proxy.weather = weather
        plans = plan(40, random.Random(1), long=0)
        client = Client(pool, pool.directory / "marks")
        client.submit(plans)
        client.wait_for_the_end(plans, 120)
        assert not judge(pool, plans, client.marks) + directory_faults(pool, plans)
        proxy.weather = Weather()
    finally:
        pool.stop_programs()
        proxy.close()
    assert not judge_machine(pool, plans, client.marks)
