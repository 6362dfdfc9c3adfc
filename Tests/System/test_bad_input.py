"""Nothing that anybody publishes stops the pool, delays another job, or is written where it must not be."""

import json
import os
from pathlib import Path

import pytest
from harness import Pool

DEEP = b'{"type":"shell","shell":"true","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

# Not even an id can be told: answered by a gpu.task.err alone.
UNREADABLE = {
    "nothing": b"",
    "not JSON": b"run this please",
    "cut JSON": b'{"type":"shell","shell":"ec',
    "a list": b"[1,2]",
    "a number": b"7",
    "null": b"null",
    "invalid UTF-8": b'{"type":"shell","shell":"echo \xff\xfe"}',
    "not a number": b'{"type":"shell","shell":"true","timeout":NaN}',
    "infinity": b'{"type":"shell","shell":"true","timeout":Infinity}',
    "deep nesting": DEEP,
    "8 MB of text": json.dumps({"type": "shell", "shell": "echo " + "x" * 8_000_000}).encode(),
    "binary": bytes(range(256)) * 10,
    "twice the same name": b'{"type":"shell","shell":"true","shell":"false"}',
}

SHELL = {"type": "shell", "shell": "echo ran"}

# A JSON object, but not a task.
MALFORMED = {
    "no type and no cmd": {},
    "unknown type": {"type": "python", "shell": "true"},
    "type is a number": {"type": 3, "shell": "true"},
    "empty cmd": {"cmd": []},
    "cmd is a string": {"cmd": "true"},
    "cmd holds a number": {"cmd": ["sleep", 1]},
    "cmd with an empty program": {"cmd": [""]},
    "shell is a list": {"type": "shell", "shell": ["true"]},
    "empty shell": {"type": "shell", "shell": ""},
    "both shell and cmd missing": {"type": "shell"},
    "NUL in an argument": {"cmd": ["echo", "a\0b"]},
    "NUL in the shell line": {"type": "shell", "shell": "echo a\0b"},
    "NUL in the environment": SHELL | {"env": {"A": "a\0b"}},
    "env name with =": SHELL | {"env": {"A=B": "1"}},
    "empty env name": SHELL | {"env": {"": "1"}},
    "env is a list": SHELL | {"env": ["A=1"]},
    "env value is a list": SHELL | {"env": {"A": [1]}},
    "negative timeout": SHELL | {"timeout": -1},
    "timeout of nothing": SHELL | {"timeout": 0},
    "timeout is a text": SHELL | {"timeout": "soon"},
    "huge timeout": SHELL | {"timeout": 1e300},
    "negative retries": SHELL | {"max_retries": -1},
    "half a retry": SHELL | {"max_retries": 1.5},
    "huge retries": SHELL | {"max_retries": 10**30},
    "pin is negative": SHELL | {"gpu": -1},
    "pin is a fraction": SHELL | {"gpu": 0.5},
    "pin is a wildcard": SHELL | {"gpu": "*"},
    "pin is two tokens": SHELL | {"gpu": "0.1"},
    "pin is a list": SHELL | {"gpu": [0]},
    "pin is huge": SHELL | {"gpu": 10**30},
    "priority out of range": SHELL | {"priority": 101},
    "cwd is a number": SHELL | {"cwd": 5},
    "cwd with NUL": SHELL | {"cwd": "a\0b"},
    "cwd climbs out": SHELL | {"cwd": "../../../.."},
    "an argument beyond the limit": {"cmd": ["echo", "x" * 131_072]},
}

BAD_IDS = ["a.b", "a b", "*", ">", "a*", "../x", "..", "a/b", "", "x" * 129, "ü", "a\nb", "a\0b"]


def ok(pool: Pool, name: str) -> None:
    """The pool still works, at once."""
    assert pool.run(task_id=f"{name}-after", type="shell", shell="echo fine")["data"]["stdout"] == "fine\n"


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_submissions_are_told_and_dropped(shared: Pool, task_id: str, name: str):
    seen = len(shared.events.all("gpu.task.err", code="bad_task"))
    shared.bus.store("gpu.task.enqueue", UNREADABLE[name])
    error = shared.events.wait("gpu.task.err", code="bad_task", count=seen + 1).json
    assert len(error["error"]) > 10, "a reason that a person can act on"
    ok(shared, task_id)
    shared.wait_empty()


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_tasks_become_rejected_records_with_a_reason(shared: Pool, task_id: str, name: str):
    shared.bus.submit(task_id=task_id, **MALFORMED[name])
    record = shared.wait_state(task_id)
    assert record["state"] == "rejected", record
    assert len(record["reason"]) > 10
    error = shared.events.wait("gpu.task.err", task_id=task_id).json
    assert error["code"] in ("bad_task", "forbidden")
    result = shared.wait_result(task_id)
    assert result["ok"] is False and result["state"] == "rejected" and result["error"]
    assert record["tries"] == 0, "nothing of it ran"
    ok(shared, task_id)
    shared.wait_empty()


@pytest.mark.parametrize("number", range(len(BAD_IDS)))
def test_ids_that_are_not_one_token_are_refused(shared: Pool, task_id: str, number: int):
    seen = len(shared.events.all("gpu.task.err", code="bad_task"))
    shared.bus.store("gpu.task.enqueue", SHELL | {"task_id": BAD_IDS[number]})
    error = shared.events.wait("gpu.task.err", code="bad_task", count=seen + 1).json
    assert "task_id" in error["error"]
    ok(shared, task_id)


def test_an_id_of_a_wrong_type_is_refused(shared: Pool, task_id: str):
    for wrong in (5, ["a"], {"a": 1}, True):
        seen = len(shared.events.all("gpu.task.err", code="bad_task"))
        shared.bus.store("gpu.task.enqueue", SHELL | {"task_id": wrong})
        assert "task_id" in shared.events.wait("gpu.task.err", code="bad_task", count=seen + 1).json["error"]
    ok(shared, task_id)


def test_a_pin_to_a_card_that_is_not_there_yet_waits_and_says_so(make_pool):
    pool = make_pool()
    pool.start_maestro()
    pool.start_worker(0)
    pool.bus.submit(task_id="pinned", type="shell", shell="echo here", gpu=1)
    record = pool.wait_state("pinned", "waiting_gpu")
    assert "1" in record["reason"]
    ok(pool, "pinned")
    pool.start_worker(1)
    assert pool.wait_result("pinned")["data"]["gpu_id"] == 1


def test_a_directory_outside_the_cache_is_refused_unless_allowed(make_pool, tmp_path: Path):
    pool = make_pool()
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "allowed-not").mkdir()
    (allowed / "escape").symlink_to("/etc")
    pool.start_maestro()
    pool.start_worker(0, ALLOW_CWD=allowed)

    for number, cwd in enumerate(["/etc", str(tmp_path / "allowed-not"), "../../..", f"{allowed}/..", f"{allowed}/escape"]):
        pool.bus.submit(task_id=f"out-{number}", type="shell", shell="touch was-here", cwd=cwd)
        record = pool.wait_state(f"out-{number}")
        assert record["state"] == "rejected", (cwd, record)
        assert len(record["reason"]) > 10
    assert not list(tmp_path.rglob("was-here")) and not os.path.exists("/etc/was-here")

    result = pool.run(task_id="inside", type="shell", shell="pwd", cwd=str(allowed))
    assert result["data"]["stdout"] == f"{allowed}\n"
    pool.gpucache(0).joinpath("models").mkdir()
    result = pool.run(task_id="relative", type="shell", shell="pwd", cwd="models")
    assert result["data"]["stdout"] == f"{pool.gpucache(0)}/models\n"


def test_a_link_that_a_job_left_leads_no_later_job_out_of_the_cache(shared: Pool, task_id: str, tmp_path: Path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    link = shared.run(task_id=task_id, type="shell", shell=f'ln -sfn {target} "$GPU_CACHE_DIR/leave"', gpu=0)
    assert link["ok"] is True
    shared.bus.submit(task_id=f"{task_id}-2", type="shell", shell="touch was-here", gpu=0, cwd="leave")
    assert shared.wait_state(f"{task_id}-2")["state"] == "rejected"
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"not json", b"[]", b'{"v":1}', b"\xff\xfe",
        {"type": "shell", "shell": "echo sneaked in"},
        {"v": 1, "attempt_id": "x", "sequence": 1, "record": {}},
        {"v": 1, "attempt_id": "x", "sequence": -1, "record": {"task_id": "../../x", "state": "scheduled"}},
        {"v": 99, "attempt_id": 5, "sequence": "1", "record": None},
    ],
)
def test_a_message_straight_to_a_card_is_refused_with_the_right_address(shared: Pool, task_id: str, content):
    seen = len(shared.events.all("gpu.task.err", code="not_dispatched"))
    shared.bus.store("gpu.task.run.0", content)
    error = shared.events.wait("gpu.task.err", code="not_dispatched", count=seen + 1).json
    assert "gpu.task.enqueue" in error["error"]
    ok(shared, task_id)
    shared.wait_empty()


def test_a_forged_run_message_of_a_real_job_runs_nothing(shared: Pool, task_id: str, pipe):
    shared.run(task_id=task_id, type="shell", shell=f"echo ran > {pipe}", gpu=0)
    assert pipe.line() == "ran"
    sequence, record = shared.bus.last("ORG_JOBS", f"gpu.task.state.{task_id}")
    forged = record | {"state": "scheduled", "attempt_id": "forged"}
    shared.bus.store("gpu.task.run.0", {"v": 1, "attempt_id": "forged", "sequence": sequence, "record": forged})
    shared.wait_empty()
    shared.run(task_id=f"{task_id}-2", type="shell", shell=f"echo next > {pipe}", gpu=0)
    assert pipe.line() == "next"
    assert shared.record(task_id) == record


@pytest.mark.parametrize(
    "subject",
    ["gpu.worker.heartbeat", "gpu.worker.up", "gpu.worker.down", "gpu.worker.metrics", "gpu.worker.0.cancel",
     "gpu.task.done", "gpu.task.err", "gpu.task.result.x", "maestro.heartbeat", "maestro.state", "maestro.api.cancel",
     "maestro.api.gpus"],
)
def test_rubbish_on_the_other_subjects_harms_nobody(shared: Pool, task_id: str, subject: str):
    for rubbish in (b"", b"\xff\x00", b"[", b"[]", b'"x"', DEEP, b'{"gpu_id":"*.>"}', b'{"gpu_id":1e400,"incarnation":[]}',
                    b'{"gpu_id":-1,"incarnation":"","counter":1e30,"slots":-5,"running":7,"attempts":{"a":1}}',
                    b'{"gpu_id":99999999999999999999,"counter":"x"}', b"x" * 8_000_000):
        shared.bus.publish(subject, rubbish)
    ok(shared, task_id)
    assert shared.bus.request("maestro.api.status", {})["ok"] is True
    assert shared.maestros[0].running and all(worker.running for worker in shared.workers.values())


def test_rubbish_in_the_records_and_the_registrations_stops_no_new_leader(make_pool):
    pool = make_pool()
    pool.start_maestro()
    pool.start_worker(0)
    ok(pool, "before")
    assert pool.maestros[0].terminate() == 0
    for number, rubbish in enumerate((b"", b"not json", b"[]", b'{"state":"running"}', b'{"v":1,"task_id":7}', DEEP)):
        pool.bus.store(f"gpu.task.state.rubbish-{number}", rubbish)
        pool.bus.store(f"gpu.ctl.worker-rubbish{number}", rubbish)
    pool.start_maestro()
    ok(pool, "after")


def test_a_flood_of_bad_messages_does_not_hold_up_a_good_one(shared: Pool, task_id: str):
    count = 2000
    shared.bus.store_all("gpu.task.enqueue", [b"rubbish"] * count, [f"{task_id}-{number}" for number in range(count)])
    ok(shared, task_id)
    shared.wait_empty()
