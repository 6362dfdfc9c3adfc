"""A full and a read-only disk under the cache and under the server's store: refused loudly, and nothing is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
from faults import NO_ANSWER
from harness import Pool
from judge import directory_faults, judge, judge_machine
from smalldisk import SmallDisk
from workload import Client, Plan


def full(disk: SmallDisk) -> Callable[[], None]:
    disk.fill()
    return disk.empty


def read_only(disk: SmallDisk) -> Callable[[], None]:
    disk.remount("ro")
    return lambda: disk.remount("rw")


@pytest.mark.parametrize("spoil", [full, read_only], ids=lambda spoil: spoil.__name__)
def test_a_card_whose_cache_is_spoilt_loses_no_job(make_pool, make_disk, spoil: Callable):
    """Its jobs fail there with words that say why, and run on the other card, and later on this one again."""
    pool: Pool = make_pool()
    disk = make_disk(pool.gpucache(0), 4)
    pool.start_maestro()
    pool.start_worker(0)
    assert pool.run(task_id="before", type="shell", shell="cat /etc/services > file", gpu=0)["ok"]

    repair = spoil(disk)
    alone = pool.run(task_id="alone", type="shell", shell="cat /etc/services > file", gpu=0, max_retries=1)
    assert (alone["ok"], alone["tries"]) == (False, 2)
    told = pool.events.all("gpu.task.err", task_id="alone")[-1].json
    assert told["code"] in ("worker_fault", "exit"), told
    assert any(word in str(told) for word in ("No space left", "Read-only")), told

    pool.start_worker(1)
    plans = [Plan(f"moved-{number}", "quick") for number in range(6)]
    client = Client(pool, pool.directory / "marks")
    client.submit(plans)
    for one in plans:
        assert pool.wait_result(one.task_id)["ok"], pool.record(one.task_id)
    repair()
    assert pool.run(task_id="after", type="shell", shell="cat /etc/services > file", gpu=0)["ok"]
    pool.wait_empty()


def test_a_full_disk_under_the_server_loses_nothing_that_was_acked(make_pool, make_disk, tmp_path: Path):
    disk = make_disk(tmp_path / "pool0/nats", 24)
    # Streams whose limits together fit on the disk are what the runbook asks for; here they do not.
    pool: Pool = make_pool()
    pool.start_maestro()
    for card in (0, 1):
        pool.start_worker(card)
    client = Client(pool, pool.directory / "marks")
    plans = [Plan(f"disk-{number:03}", "quick") for number in range(60)]
    client.submit(plans[:20])
    client.wait_for_the_end(plans[:20], 60)

    disk.fill()
    acked, refused = [], 0
    for one in plans[20:]:
        try:
            pool.bus.store("gpu.task.enqueue", one.task(client.marks), f"sub:{one.task_id}", deadline=1)
            acked.append(one)
        except NO_ANSWER:
            refused += 1
            if refused == 3:
                break
    disk.empty()
    # A server that found its disk full may have stopped its JetStream, which only a restart brings back.
    pool.server.stop()
    pool.server.start()
    client.submit(plans[20:])
    client.wait_for_the_end(plans, 90)
    assert not judge(pool, plans, client.marks) + directory_faults(pool, plans)
    pool.stop_programs()
    assert not judge_machine(pool, plans, client.marks)
