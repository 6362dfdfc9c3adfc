"""Each program is killed, hung and cut off, and the server is killed, exactly between two steps of a job."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Daemon, Pool
from judge import Evidence, directory_faults, gather, job_faults, judge_machine
from points import POINTS, Point
from wireproxy import Proxy, Trap
from workload import Plan

CARDS = (0, 1)


class Stage:
    """A pool in which each program has a proxy of its own; the jobs of all tests run on it one after the other."""

    def __init__(self, directory: Path):
        self.pool = Pool(directory, MAX_LOST=100, CLAIM_TIMEOUT_SEC=5)
        self.marks = directory / "marks"
        self.marks.touch()
        self.proxies: dict[str, Proxy] = {}
        self.programs: dict[str, Daemon] = {}
        self.plans: list[Plan] = []
        self._number = itertools.count()
        self.start("maestro", leading=True)
        for card in CARDS:
            self.start(f"worker {card}", wait=True)
        self.start("standby")

    def start(self, name: str, leading: bool = False, wait: bool = False) -> None:
        if name not in self.proxies:
            self.proxies[name] = Proxy(self.pool.server.port)
        url = self.proxies[name].url
        if name.startswith("worker"):
            self.programs[name] = self.pool.start_worker(int(name.split()[1]), wait=wait, NATS_URL=url)
        else:
            self.programs[name] = self.pool.start_maestro(leading=leading, NATS_URL=url)

    def lay(self, point: Point) -> Trap:
        """A trap in the way of each program that can come to the point; the first one steps into it."""
        trap = Trap(point.fits, point.after)
        for name, proxy in self.proxies.items():
            proxy.trap = trap if name.startswith("worker") == (point.program == "worker") else None
        return trap

    def name_of(self, proxy: Proxy) -> str:
        return next(name for name, one in self.proxies.items() if one is proxy)

    def submit(self) -> Plan:
        plan = Plan(f"point-{next(self._number):03}", "quick")
        self.plans.append(plan)
        self.pool.bus.submit(**plan.task(self.marks))
        return plan

    def evidence(self, plan: Plan) -> Evidence:
        return gather(self.pool, self.marks)[plan.task_id]

    def close(self) -> None:
        self.pool.close()
        for proxy in self.proxies.values():
            proxy.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("points"))
    try:
        yield made
    finally:
        made.close()


def killed(stage: Stage, name: str, plan: Plan) -> None:
    stage.programs[name].kill()
    stage.proxies[name].cut()
    stage.start(name)


def hung(stage: Stage, name: str, plan: Plan) -> None:
    """It stands still until others have taken its place, and then goes on as if nothing had been."""
    program, events = stage.programs[name], stage.pool.maestro_events
    told = {"event": "gpu_gone", "gpu_id": int(name.split()[1])} if name.startswith("worker") else {"event": "leading"}
    seen = len(events.all("maestro.state", **told))
    program.pause()
    events.wait("maestro.state", count=seen + 1, **told)
    stage.proxies[name].release()
    program.resume()


def cut_off(stage: Stage, name: str, plan: Plan) -> None:
    stage.proxies[name].cut()


def server_killed(stage: Stage, name: str, plan: Plan) -> None:
    stage.pool.server.kill()
    stage.proxies[name].cut()
    stage.pool.server.start()


BLOWS = [killed, hung, cut_off, server_killed]


@pytest.mark.parametrize("blow", BLOWS, ids=lambda blow: blow.__name__)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_job_ends_once_whatever_happens(stage: Stage, point: Point, blow: Callable[[Stage, str, Plan], None]):
    trap = stage.lay(point)
    plan = stage.submit()
    name = stage.name_of(trap.wait())
    if point.stored:
        stage.pool.wait_state(plan.task_id, point.stored)
    blow(stage, name, plan)

    stage.pool.wait_state(plan.task_id, "done")
    stage.pool.wait_result(plan.task_id)
    stage.pool.wait_empty()
    assert not list(job_faults(plan, stage.evidence(plan)))


def test_nothing_is_left_of_all_of_them(stage: Stage):
    """No message, no process, no open attempt, no directory of the wrong attempt."""
    assert not directory_faults(stage.pool, stage.plans)
    stage.pool.stop_programs()
    assert not judge_machine(stage.pool, stage.plans, stage.marks)
