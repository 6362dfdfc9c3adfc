"""A server that is upgraded under load, and one that is too old for what is asked of it."""

import random
import re
import subprocess

import pytest
from harness import NATS_SERVER, Daemon, Pool
from judge import directory_faults, judge, judge_machine
from server_cluster import RECENT_SERVER
from workload import Client, Feeder, plan


def version_of(program) -> tuple[int, ...]:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in re.search(r"v(\d+)\.(\d+)\.(\d+)", told).groups())


def needs_old_server() -> None:
    if version_of(NATS_SERVER) >= (2, 11):
        pytest.skip(f"{NATS_SERVER} is not older than 2.11")


def test_a_server_is_upgraded_under_load(make_pool):
    """Killed as the old one and started as the recent one on the same store, while jobs come and run."""
    needs_old_server()
    pool: Pool = make_pool()
    pool.start_maestro()
    for card in (0, 1):
        pool.start_worker(card, SLOTS=2)
    plans = plan(400, random.Random(2), long=5)
    client = Client(pool, pool.directory / "marks")
    feeder = Feeder(client, plans)
    try:
        pool.events.wait_until(lambda: feeder.begun() > 100, what="jobs to run on the old server")
        pool.server.kill()
        pool.server.program = RECENT_SERVER
        pool.server.start()
        pool.events.wait_until(lambda: feeder.is_done, 120, "all jobs to be handed in")
    finally:
        feeder.close()
    client.wait_for_the_end(plans, 120)
    assert not judge(pool, plans, client.marks) + directory_faults(pool, plans)
    pool.stop_programs()
    assert not judge_machine(pool, plans, client.marks)


def test_replicas_on_a_server_without_working_compare_and_set_are_refused(make_pool):
    needs_old_server()
    pool: Pool = make_pool()
    maestro: Daemon = pool.start_maestro(leading=False, STREAM_REPLICAS=3)
    assert maestro.wait() == 78
    assert any("older than 2.11" in line and "STREAM_REPLICAS=1" in line for line in maestro.lines), maestro.lines
