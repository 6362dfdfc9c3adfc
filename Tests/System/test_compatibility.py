"""Data and messages of earlier versions, as real pools wrote them, under the present programs."""

import json

from harness import TERMINAL, TOP, Pool

SAMPLES = TOP / "Tests/JobModelTests/Samples/v1"

# What becomes of a record that an earlier version left, when there are cards 0 and 7: its state, and its attempts.
GOES_ON = {
    "enqueued": ("done", 1), "enqueued-lost": ("done", 2), "waiting_gpu": ("done", 1), "scheduled": ("done", 1),
    "scheduled-lost": ("done", 2), "running": ("done", 2), "running-lost": ("done", 3),
    "running-fenced": ("done", 2), "running-fenced-lost": ("done", 3),
    "running-cancel-requested": ("cancelled", 1), "retry": ("failed", 2),
}


def sample(name: str) -> dict:
    return json.loads((SAMPLES / f"{name}.json").read_bytes())


def stored_records() -> dict[str, dict]:
    """Every stored record, under an id of its own, with a field of a later version in it."""
    records = {}
    for path in sorted(SAMPLES.glob("record-*.json")):
        kind = path.stem.removeprefix("record-")
        record = sample(path.stem)
        record["task_id"] = f"old-{kind}"
        record["later"] = {"b": [1, 2.50]}
        # The samples were submitted long ago.
        record.pop("max_wait", None)
        if "task" in record:
            record["task"]["task_id"] = f"old-{kind}"
        records[kind] = record
    return records


def test_every_stored_record_goes_on_or_stays_as_it_is(make_pool):
    pool: Pool = make_pool()
    pool.start_maestro().terminate()
    places = {}
    for kind, record in stored_records().items():
        # As it came from the wire, not as Python would write the numbers.
        text = json.dumps(record).replace("2.5]", "2.50]")
        places[kind] = pool.bus.store(f"gpu.task.state.old-{kind}", text.encode()).seq
    pool.start_maestro()
    pool.start_worker(0)
    pool.start_worker(7)
    for kind, place in places.items():
        record = pool.wait_state(f"old-{kind}")
        assert record["later"] == {"b": [1, 2.5]}
        if kind in GOES_ON:
            assert (record["state"], record["tries"]) == GOES_ON[kind], record
            pool.wait_result(f"old-{kind}")
        else:
            assert sample(f"record-{kind}")["state"] in TERMINAL
            assert pool.bus.last("ORG_JOBS", f"gpu.task.state.old-{kind}")[0] == place, "it is never written again"
    assert any(b'{"b": [1, 2.50]}' in one.data for one in pool.bus.every("ORG_JOBS", "gpu.task.state.old-retry"))


def test_every_stored_task_is_admitted(shared: Pool):
    for path in sorted(SAMPLES.glob("task-*.json")):
        ack = shared.bus.store("gpu.task.enqueue", path.read_bytes())
        task = sample(path.stem)
        if "submitted_at" in task:
            continue  # it may be older than ids are remembered, and is refused then
        ended = shared.events.wait_until(lambda: ended_of(shared, ack.seq), what=path.stem)
        assert ended["state"] == ("failed" if "fails" == task.get("task_id") else "done")


def ended_of(pool: Pool, order: int) -> dict | None:
    """The record of the submission with that sequence, if it has ended."""
    for one in pool.events.all():
        if one.subject.startswith("gpu.task.state.") and one.json.get("order") == order:
            # A write that was refused is seen here too: what is stored counts.
            record = pool.record(one.json["task_id"])
            if record and record["state"] in TERMINAL:
                return record
    return None


def test_a_worker_of_an_earlier_version_gets_jobs_and_none_that_it_would_not_fence(make_pool):
    pool: Pool = make_pool(HEARTBEAT_TTL_SEC=600, CLAIM_TIMEOUT_SEC=600)
    pool.start_maestro()
    pool.bus.store("gpu.ctl.worker-0", (SAMPLES / "registration.json").read_bytes())
    # It sends no more than this, and asks for no answer.
    pool.bus.publish("gpu.worker.heartbeat", sample("worker-heartbeat") | {"running": [], "attempts": []})
    pool.maestro_events.wait("maestro.state", event="gpu_up", gpu_id=0)
    pool.bus.submit(task_id="fenced", cmd=["true"], partition="fence")
    pool.bus.submit(task_id="plain", cmd=["true"])
    scheduled = pool.wait_state("plain", "scheduled")
    run = pool.events.wait("gpu.task.run.0").json
    assert run["record"]["task"]["task_id"] == "plain"
    assert set(sample("run")) <= set(run), "what it was sent before, and perhaps more"
    assert set(sample("record-scheduled")) - {"max_wait"} <= set(run["record"])
    assert run["sequence"] == pool.bus.last("ORG_JOBS", "gpu.task.state.plain")[0]
    assert scheduled["incarnation"] == sample("registration")["incarnation"]
    assert "cannot fence" in pool.wait_state("fenced", "waiting_gpu")["reason"]
    # Messages of every other kind are heard without harm.
    for name in ("worker-metrics", "worker-metrics-held", "worker-up", "worker-log"):
        pool.bus.publish(f"gpu.worker.{name.split('-')[1]}", sample(name))
    assert pool.bus.request("maestro.api.status", {})["gpus_alive"] == 1
