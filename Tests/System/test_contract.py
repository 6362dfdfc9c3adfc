"""What other people's clients may rely on: any NATS client can submit, follow and read a job."""

import json
import os

import pytest
from harness import DEADLINE, Pool


def test_a_core_publish_without_an_id_runs_and_its_result_can_be_read_later(shared: Pool):
    shared.bus.publish("gpu.task.enqueue", {"type": "shell", "shell": "echo OK"})

    done = shared.events.wait("gpu.task.done", stdout="OK\n").json
    assert done["returncode"] == 0
    assert done["type"] == "shell"
    assert done["gpu_id"] in (0, 1)
    assert done["task_id"].startswith("task-")
    assert done["stderr"] == ""
    assert done["tries"] == 1
    assert done["ts"] > 1.6e9
    assert done["cwd"].endswith(f"/gpu{done['gpu_id']}/tasks/{done['task_id']}")

    result = shared.wait_result(done["task_id"])
    assert result["ok"] is True
    assert result["state"] == "done"
    assert result["data"]["stdout"] == "OK\n"

    record = shared.record(done["task_id"])
    assert record["state"] == "done"
    assert record["task"] == {"type": "shell", "shell": "echo OK"}
    shared.wait_empty()


@pytest.mark.parametrize("gpu", [0, 1])
def test_a_pinned_core_publish_runs_on_its_card(shared: Pool, gpu: int):
    shared.bus.publish("gpu.task.enqueue", {"type": "shell", "shell": f"echo pinned to $GPU_ID, wanted {gpu}", "gpu": gpu})
    done = shared.events.wait("gpu.task.done", stdout=f"pinned to {gpu}, wanted {gpu}\n").json
    assert done["gpu_id"] == gpu
    assert shared.wait_result(done["task_id"])["ok"] is True


def test_a_program_with_arguments_environment_and_directory(shared: Pool, task_id: str):
    script = 'import os, sys, json; print(json.dumps([sys.argv[1:], os.environ["COLOUR"], os.getcwd()]))'
    result = shared.run(task_id=task_id, cmd=["python3", "-c", script, "a b", "", "$HOME", "ü"], env={"COLOUR": "red; ls"})
    arguments, colour, directory = json.loads(result["data"]["stdout"])
    assert arguments == ["a b", "", "$HOME", "ü"]
    assert colour == "red; ls"
    assert directory == result["data"]["cwd"]


def test_a_job_knows_its_attempt_and_its_card(shared: Pool, task_id: str):
    names = ["TASK_ID", "TASK_ATTEMPT", "TASK_ATTEMPT_ID", "TASK_DIR", "GPU_ID", "GPU_CACHE_DIR"]
    result = shared.run(task_id=task_id, type="shell", shell="\n".join(f'echo "${name}"' for name in names))
    told = dict(zip(names, result["data"]["stdout"].splitlines(), strict=True))
    record = shared.record(task_id)
    assert told["TASK_ID"] == task_id
    assert told["TASK_ATTEMPT"] == "1"
    assert told["TASK_ATTEMPT_ID"] == record["attempt_id"]
    assert told["TASK_DIR"] == result["data"]["cwd"]
    assert told["GPU_ID"] == str(record["gpu"])
    assert told["GPU_CACHE_DIR"] == str(shared.gpucache(record["gpu"]))


def test_the_record_goes_through_the_states_of_the_protocol(shared: Pool, task_id: str):
    result = shared.run(task_id=task_id, cmd=["true"], max_retries=0, note="kept")
    states = [message.json["state"] for message in shared.events.all(f"gpu.task.state.{task_id}")]
    assert states == ["enqueued", "scheduled", "running", "done"]
    record = shared.record(task_id)
    assert record["v"] == 1
    assert record["tries"] == 1 and record["lost"] == 0
    assert record["digest"].startswith("sha256:")
    assert record["task"] == {"task_id": task_id, "cmd": ["true"], "max_retries": 0, "note": "kept"}
    assert record["times"]["submitted"] <= record["times"]["ended"]
    assert result["tries"] == 1


def test_output_can_be_followed_while_the_job_runs(shared: Pool, task_id: str, pipe):
    # The job reads this pipe: it goes on only when the test lets it.
    os.mkfifo(f"{pipe}-go")
    shared.bus.submit(task_id=task_id, type="shell", shell=f"echo first; echo oops >&2; cat < {pipe}-go; echo last")
    shared.events.wait(f"gpu.task.log.{task_id}", stream="stdout", text="first\n")
    shared.events.wait(f"gpu.task.log.{task_id}", stream="stderr", text="oops\n")
    assert shared.record(task_id)["state"] == "running"
    with open(f"{pipe}-go", "w", encoding="utf-8"):
        pass
    shared.events.wait(f"gpu.task.log.{task_id}", stream="stdout", text="last\n")
    stdout = [message.json for message in shared.events.all(f"gpu.task.log.{task_id}", stream="stdout")]
    assert "".join(chunk["text"] for chunk in stdout) == "first\nlast\n"
    assert [chunk["offset"] for chunk in stdout] == sorted(chunk["offset"] for chunk in stdout)
    assert shared.wait_result(task_id)["data"]["stdout"] == "first\nlast\n"


def test_long_output_keeps_its_end_and_says_so(shared: Pool, task_id: str):
    result = shared.run(task_id=task_id, cmd=["python3", "-c", "for i in range(20000): print(f'{i:07}')"])
    data = result["data"]
    assert data["stdout_truncated"] is True
    assert data["stdout_bytes"] == 160_000
    assert len(data["stdout"].encode()) <= 64_000
    assert data["stdout"].endswith("0019999\n")


def test_every_failed_attempt_is_told_and_the_result_once(shared: Pool, task_id: str):
    result = shared.run(task_id=task_id, type="shell", shell="echo out; echo why >&2; exit 3", max_retries=2)
    assert result["ok"] is False
    assert result["state"] == "failed"
    assert result["code"] == "exit"
    assert result["tries"] == 3
    assert result["data"]["returncode"] == 3
    assert result["data"]["stderr"] == "why\n"
    errors = [message.json for message in shared.events.all("gpu.task.err", task_id=task_id)]
    assert [error["will_retry"] for error in errors] == [True, True, False]
    assert [error["tries"] for error in errors] == [1, 2, 3]
    assert {error["code"] for error in errors} == {"exit"}
    assert all(error["data"]["returncode"] == 3 and error["data"]["stdout"] == "out\n" for error in errors)
    assert len({error["attempt_id"] for error in errors}) == 3
    assert len(shared.bus.every("ORG_EVENTS", f"gpu.task.result.{task_id}")) == 1


def test_workers_and_maestro_say_that_they_live(shared: Pool):
    for gpu in (0, 1):
        up = shared.events.all("gpu.worker.up", gpu_id=gpu)[0].json
        assert up["slots"] >= 1 and up["incarnation"] and up["host"]
        beat = shared.events.wait("gpu.worker.heartbeat", gpu_id=gpu).json
        assert beat["incarnation"] == up["incarnation"]
        assert isinstance(beat["counter"], int) and isinstance(beat["running"], list)
        metrics = shared.events.wait("gpu.worker.metrics", gpu_id=gpu).json
        assert metrics["ts"] > 1.6e9
    beat = shared.maestro_events.wait("maestro.heartbeat", gpus_seen=2).json
    assert beat["alive"] is True
    assert beat["qsize"] >= 0 and beat["inflight"] >= 0
    state = shared.maestro_events.wait("maestro.state").json
    assert {"gpus_alive", "qsize", "inflight", "ts"} <= state.keys()


def test_requests_to_the_leader(shared: Pool, task_id: str):
    status = shared.bus.request("maestro.api.status", {})
    assert status["ok"] is True and status["gpus_alive"] == 2
    cards = shared.bus.request("maestro.api.gpus", {})["gpus"]
    assert sorted(card["gpu_id"] for card in cards) == [0, 1]

    shared.bus.submit(task_id=task_id, cmd=["true"], gpu=7)
    shared.wait_state(task_id, "waiting_gpu")
    assert "7" in shared.record(task_id)["reason"]
    listed = shared.bus.request("maestro.api.list", {"limit": 1, "states": ["waiting_gpu"]})
    assert listed["jobs"] == [{"task_id": task_id}] and listed["total"] >= 1 and listed["through"] > 0
    why = shared.bus.request("maestro.api.why", {"task_id": task_id})
    assert why["ok"] is True and why["state"] == "waiting_gpu" and why["reason"]
    cancelled = shared.bus.request("maestro.api.cancel", {"task_id": task_id, "reason": "no such card"})
    assert cancelled["state"] == "cancelled"
    assert shared.wait_result(task_id)["state"] == "cancelled"


@pytest.mark.parametrize("request_body", [b"", b"not json", b"[]", b'{"task_id": 7}', b'{"task_id": "a.b"}'])
@pytest.mark.parametrize("verb", ["cancel", "why"])
def test_a_bad_request_is_answered_with_a_reason(shared: Pool, verb: str, request_body: bytes):
    answer = shared.bus.request(f"maestro.api.{verb}", request_body)
    assert answer["ok"] is False
    assert answer["error"]


@pytest.mark.parametrize("body", [{"limit": 0}, {"limit": 1001}, {"limit": "all"}, {"states": "done"}, {"states": ["gone"]}, {"states": [1]}])
def test_a_bad_list_request_is_told_what_is_allowed(shared: Pool, body: dict):
    answer = shared.bus.request("maestro.api.list", body)
    assert answer["code"] == "bad_request" and ("1000" in answer["error"] or "state" in answer["error"])


def test_higher_priority_goes_first(make_pool, pipe):
    pool = make_pool()
    pool.start_maestro()
    for name, priority in [("low", -1), ("plain-1", 0), ("high", 5), ("plain-2", 0)]:
        pool.bus.submit(task_id=name, type="shell", shell=f"echo {name} > {pipe}", priority=priority)
    pool.wait_state("plain-2", "enqueued", "waiting_gpu")
    pool.start_worker(0)
    assert [pipe.line() for _ in range(4)] == ["high", "plain-1", "plain-2", "low"]


class TestTheSameIdTwice:
    """Done once, however late the second one comes."""

    def submit_again_until_the_server_forgot(self, pool: Pool, task: dict) -> int:
        """Publishes until the duplicate window lets the message through; answers its sequence."""

        def stored() -> int | None:
            ack = pool.bus.store("gpu.task.enqueue", task, f"sub:{task['task_id']}")
            return None if ack.duplicate else ack.seq

        return pool.events.wait_until(stored, DEADLINE, "the end of the duplicate window")

    def test_within_the_window_and_beyond_it(self, make_pool, pipe):
        pool = make_pool(DUPLICATE_WINDOW_SEC=1)
        pool.start_maestro()
        pool.start_worker(0)
        assert pool.bus.api("STREAM.INFO.ORG_WQ")["config"]["duplicate_window"] == 1_000_000_000

        task = {"task_id": "once", "type": "shell", "shell": f"echo ran > {pipe}", "max_retries": 3}
        first = pool.bus.submit(**task)
        assert pool.bus.submit(**task).duplicate is True
        assert pool.wait_result("once")["ok"] is True
        assert self.submit_again_until_the_server_forgot(pool, task) > first.seq
        pool.wait_empty()
        # A job behind it has run: the duplicate was looked at and dropped before.
        assert pool.run(task_id="behind", type="shell", shell=f"echo behind > {pipe}")["ok"] is True

        assert [pipe.line(), pipe.line()] == ["ran", "behind"]
        record = pool.record("once")
        assert record["state"] == "done" and record["tries"] == 1
        assert len(pool.bus.every("ORG_EVENTS", "gpu.task.result.once")) == 1
        assert len(pool.events.all("gpu.task.done", task_id="once")) == 1

    def test_without_any_message_id(self, shared: Pool, task_id: str, pipe):
        task = {"task_id": task_id, "type": "shell", "shell": f"echo ran > {pipe}"}
        for _ in range(5):
            shared.bus.publish("gpu.task.enqueue", task)
        assert shared.wait_result(task_id)["ok"] is True
        shared.wait_empty()
        shared.run(task_id=f"{task_id}-behind", type="shell", shell=f"echo behind > {pipe}")
        assert [pipe.line(), pipe.line()] == ["ran", "behind"]

    def test_other_content_under_a_used_id_is_refused_and_the_first_job_untouched(self, shared: Pool, task_id: str):
        assert shared.run(task_id=task_id, type="shell", shell="echo first")["ok"] is True
        before = shared.bus.last("ORG_JOBS", f"gpu.task.state.{task_id}")
        shared.bus.store("gpu.task.enqueue", {"task_id": task_id, "type": "shell", "shell": "echo second"})
        error = shared.events.wait("gpu.task.err", task_id=task_id, code="id_conflict").json
        assert task_id in error["error"]
        shared.wait_empty()
        assert shared.bus.last("ORG_JOBS", f"gpu.task.state.{task_id}") == before
        assert shared.wait_result(task_id)["data"]["stdout"] == "first\n"
