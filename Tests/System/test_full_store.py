"""A stream of records that is full: nothing more is admitted, what is admitted goes on, and what waits is admitted later."""

from harness import Pool
from judge import directory_faults, judge, judge_machine
from workload import Client, Plan

MEGABYTES = 4
PADDING = 40_000  # bytes of each job's record


class PaddedPlan(Plan):
    """A job whose record is long."""

    def task(self, marks) -> dict:
        return super().task(marks) | {"env": {"PADDING": "x" * PADDING}}


def test_a_full_store_stops_admission_before_it_refuses_what_is_there(make_pool):
    pool: Pool = make_pool(STREAM_JOBS_MAX_MB=MEGABYTES)
    pool.start_maestro()
    for card in (0, 1):
        pool.start_worker(card, SLOTS=2)
    client = Client(pool, pool.directory / "marks")
    plans: list[Plan] = []

    def is_told() -> bool:
        return bool(pool.maestro_events.all("maestro.state", event="queue_full"))

    # A few at a time, as long as they are admitted: how full the stream is, is looked at every few seconds.
    while not is_told():
        assert len(plans) * PADDING < MEGABYTES << 20, "the stream is full, and nobody has told it"
        batch = [PaddedPlan(f"full-{len(plans) + number:03}", "quick") for number in range(5)]
        plans += batch
        client.submit(batch)
        pool.events.wait_until(
            lambda: is_told() or all(pool.events.all(f"gpu.task.result.{one.task_id}") for one in batch), what="the batch to end")
    reason = pool.maestro_events.wait("maestro.state", event="queue_full").json["reason"]
    assert "%" in reason or "full" in reason, reason

    waiting = [PaddedPlan(f"waits-{number}", "quick") for number in range(5)]
    client.submit(waiting)
    assert pool.bus.request("maestro.api.status", {})["queue_full"]

    config = pool.bus.api("STREAM.INFO.ORG_JOBS")["config"] | {"max_bytes": 64 << 20}
    assert "error" not in pool.bus.api("STREAM.UPDATE.ORG_JOBS", config)
    pool.maestro_events.wait("maestro.state", event="queue_open")
    client.wait_for_the_end(plans + waiting, 60)
    assert not judge(pool, plans + waiting, client.marks) + directory_faults(pool, plans + waiting)
    pool.stop_programs()
    assert not judge_machine(pool, plans + waiting, client.marks)
