"""What becomes of a job when it misbehaves, and when the machines around it do."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from harness import DEADLINE, Pool, process_alive, wait_gone


def ok(pool: Pool, name: str, **more) -> None:
    """The pool still works."""
    assert pool.run(task_id=name, type="shell", shell="echo fine", **more)["data"]["stdout"] == "fine\n"


@pytest.fixture
def one_card(make_pool) -> Pool:
    """A maestro and a worker with one slot, for a test of its own."""
    pool = make_pool()
    pool.start_maestro()
    pool.start_worker(0)
    return pool


class TestRetries:
    def test_a_later_attempt_may_succeed(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, type="shell", max_retries=3,
                            shell='echo "try $TASK_ATTEMPT"; [ "$TASK_ATTEMPT" -ge 3 ]')
        assert result["ok"] is True
        assert result["tries"] == 3
        assert result["data"]["stdout"] == "try 3\n"

    def test_no_retries_means_one_attempt(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, cmd=["false"], max_retries=0)
        assert (result["state"], result["tries"]) == ("failed", 1)

    def test_a_signal_is_told_as_such(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, type="shell", shell="kill -SEGV $$", max_retries=0)
        assert result["code"] == "signal"
        assert result["data"]["returncode"] == -signal.SIGSEGV

    def test_a_program_that_does_not_exist_cannot_be_started(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, cmd=["/no/such/program"], max_retries=0)
        assert result["code"] == "spawn"
        assert "/no/such/program" in result["error"]

    def test_a_directory_that_does_not_exist_is_a_clear_failure(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, cmd=["true"], cwd="no/such/directory", max_retries=0)
        assert result["ok"] is False
        assert "no/such/directory" in result["error"]


class TestTimeout:
    def test_a_job_that_outruns_its_time_is_killed_with_its_children(self, shared: Pool, task_id: str, pipe):
        shared.bus.submit(task_id=task_id, type="shell", timeout=1, max_retries=0,
                          shell=f"sleep 1000 & echo $! > {pipe}; echo $$ > {pipe}; wait")
        pids = [int(pipe.line()), int(pipe.line())]
        result = shared.wait_result(task_id)
        assert result["code"] == "timeout"
        assert "1" in result["error"]
        assert not any(process_alive(pid) for pid in pids)

    def test_a_job_that_ignores_term_is_killed(self, shared: Pool, task_id: str, pipe):
        shared.bus.submit(task_id=task_id, type="shell", timeout=1, max_retries=0,
                          shell=f"trap '' TERM INT HUP; echo $$ > {pipe}; while :; do sleep 1000; done")
        pid = int(pipe.line())
        assert shared.wait_result(task_id)["code"] == "timeout"
        assert not process_alive(pid)


class TestCancel:
    def test_a_running_job_and_its_children_are_gone(self, shared: Pool, task_id: str, pipe):
        shared.bus.submit(task_id=task_id, type="shell", max_retries=5,
                          shell=f"sh -c 'sleep 1000 & echo $! > {pipe}; wait' & echo $$ > {pipe}; wait")
        pids = [int(pipe.line()), int(pipe.line())]
        answer = shared.bus.request("maestro.api.cancel", {"task_id": task_id, "reason": "no longer needed"})
        assert answer["ok"] is True
        record = shared.wait_state(task_id)
        assert record["state"] == "cancelled"
        assert not any(process_alive(pid) for pid in pids), "the slot is not free before the processes are gone"
        result = shared.wait_result(task_id)
        assert result["ok"] is False and result["state"] == "cancelled" and result["code"] == "cancelled"
        assert record["tries"] == 1

    def test_a_job_that_ignores_term_is_cancelled_too(self, shared: Pool, task_id: str, pipe):
        shared.bus.submit(task_id=task_id, type="shell",
                          shell=f"trap '' TERM; echo $$ > {pipe}; while :; do sleep 1000; done")
        pid = int(pipe.line())
        shared.bus.request("maestro.api.cancel", {"task_id": task_id})
        assert shared.wait_state(task_id)["state"] == "cancelled"
        assert not process_alive(pid)

    def test_a_waiting_job_never_runs(self, shared: Pool, task_id: str):
        shared.bus.submit(task_id=task_id, cmd=["true"], gpu=55)
        shared.wait_state(task_id, "waiting_gpu")
        assert shared.bus.request("maestro.api.cancel", {"task_id": task_id})["state"] == "cancelled"
        assert shared.wait_result(task_id)["tries"] == 0

    def test_an_ended_job_stays_as_it_is(self, shared: Pool, task_id: str):
        shared.run(task_id=task_id, cmd=["true"])
        before = shared.bus.last("ORG_JOBS", f"gpu.task.state.{task_id}")
        assert shared.bus.request("maestro.api.cancel", {"task_id": task_id})["state"] == "done"
        assert shared.bus.last("ORG_JOBS", f"gpu.task.state.{task_id}") == before

    def test_a_job_cancelled_before_it_arrived_does_not_run(self, shared: Pool, task_id: str):
        answer = shared.bus.request("maestro.api.cancel", {"task_id": task_id})
        assert answer["state"] == "cancelled"
        shared.bus.submit(task_id=task_id, type="shell", shell="echo ran")
        shared.wait_empty()
        assert shared.record(task_id)["state"] == "cancelled"
        assert not shared.events.all("gpu.task.done", task_id=task_id)

    def test_a_job_in_backoff_is_cancelled_at_once(self, make_pool):
        pool = make_pool(RETRY_BACKOFF_SEC=200)
        pool.start_maestro()
        pool.start_worker(0)
        pool.bus.submit(task_id="backoff", cmd=["false"])
        pool.wait_state("backoff", "retry")
        pool.bus.request("maestro.api.cancel", {"task_id": "backoff"})
        assert pool.wait_result("backoff")["state"] == "cancelled"


class TestHostileJobs:
    def test_a_gigabyte_of_output(self, one_card: Pool):
        result = one_card.run(task_id="loud", type="shell", shell="yes 0123456789abcde | head -c 1000000000",
                              timeout=300, deadline=300)
        assert result["ok"] is True, result
        data = result["data"]
        assert data["stdout_truncated"] is True
        assert data["stdout_bytes"] == 1_000_000_000
        assert len(data["stdout"].encode()) <= 64_000
        kept = sum(path.stat().st_size for path in one_card.directory.rglob("*") if path.is_file()
                   and "nats" not in path.parts)
        assert kept < 1_000_000_000, "kept on disk up to a cap"
        ok(one_card, "after")

    def test_binary_output(self, shared: Pool, task_id: str):
        script = r"import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000); sys.stderr.buffer.write(b'\xff\xfe')"
        result = shared.run(task_id=task_id, cmd=["python3", "-c", script])
        assert result["ok"] is True
        assert result["data"]["stdout_binary"] is True and result["data"]["stderr_binary"] is True
        assert result["data"]["stdout_bytes"] == 256_000
        record = shared.record(task_id)
        assert record["state"] == "done"

    def test_output_without_a_newline_or_an_end(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, type="shell", shell="printf no-newline; exec 1>&- 2>&-; exit 0")
        assert result["data"]["stdout"] == "no-newline"

    def test_daemons_that_it_forks_are_killed_when_it_ends(self, shared: Pool, task_id: str, pipe):
        # Two forks and no terminal, as a daemon does it; once keeping the output open, once in a session of its own.
        script = f"(sleep 1000 & echo $! > {pipe}) & (setsid sleep 1000 > /dev/null 2>&1 & echo $! > {pipe}); wait; echo main"
        result = shared.run(task_id=task_id, type="shell", shell=script)
        assert result["ok"] is True
        assert result["data"]["stdout"] == "main\n"
        for pid in (int(pipe.line()), int(pipe.line())):
            wait_gone(pid)

    def test_its_directory_deleted_under_itself(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, type="shell", shell='rm -rf "$TASK_DIR"; echo gone', max_retries=0)
        assert result["state"] in ("done", "failed")
        assert result["data"]["stdout"] == "gone\n"
        ok(shared, f"{task_id}-after", gpu=result["data"]["gpu_id"])

    def test_the_disk_of_its_directory_filled(self, make_pool, tmp_path: Path):
        disk = tmp_path / "small"
        disk.mkdir()
        as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        if as_root and not shutil.which("sudo"):
            pytest.skip("a small disk needs root or sudo to mount it")
        mounted = subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "tmpfs", disk],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
        try:
            pool = make_pool()
            pool.start_maestro()
            pool.start_worker(0, MERGE_ROOT=disk)
            result = pool.run(task_id="filler", type="shell", max_retries=0,
                              shell="head -c 100000000 /dev/zero > big || { echo disk full >&2; exit 9; }")
            assert (result["state"], result["data"]["returncode"]) == ("failed", 9)
            assert "disk full" in result["data"]["stderr"]
            ok(pool, "after")
            assert all(worker.terminate() == 0 for worker in pool.workers.values())
        finally:
            subprocess.run([*as_root, "umount", "--lazy", disk], check=True)

    def test_a_thousand_children(self, shared: Pool, task_id: str):
        result = shared.run(task_id=task_id, type="shell",
                            shell="i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done; echo $i")
        assert result["data"]["stdout"] == "300\n"
        ok(shared, f"{task_id}-after", gpu=result["data"]["gpu_id"])


class TestWorkersComeAndGo:
    def test_a_drained_worker_lets_its_job_end_and_takes_no_other(self, make_pool, pipe):
        pool = make_pool(DRAIN_SEC=60)
        pool.start_maestro()
        worker = pool.start_worker(0)
        os.mkfifo(f"{pipe}-go")
        pool.bus.submit(task_id="long", type="shell", shell=f"echo up > {pipe}; cat < {pipe}-go; echo ended")
        assert pipe.line() == "up"
        worker.process.send_signal(signal.SIGTERM)
        pool.events.wait("gpu.worker.heartbeat", gpu_id=0, draining=True)
        pool.bus.submit(task_id="next", type="shell", shell="echo next")
        pool.wait_state("next", "enqueued", "waiting_gpu")
        Path(f"{pipe}-go").write_text("")
        assert pool.wait_result("long")["data"]["stdout"] == "ended\n"
        assert worker.wait() == 0
        pool.events.wait("gpu.worker.down", gpu_id=0)
        pool.start_worker(0)
        assert pool.wait_result("next")["ok"] is True
        assert pool.record("long")["tries"] == 1

    def test_a_job_that_outlasts_the_drain_is_given_back_and_runs_again(self, make_pool, pipe):
        pool = make_pool(DRAIN_SEC=1)
        pool.start_maestro()
        worker = pool.start_worker(0)
        pool.bus.submit(task_id="long", type="shell", max_retries=0,
                        shell=f'echo "$TASK_ATTEMPT $$" > {pipe}; [ "$TASK_ATTEMPT" = 2 ] || sleep 1000')
        attempt, pid = pipe.line().split()
        assert attempt == "1"
        assert worker.terminate() == 0
        assert not process_alive(int(pid))
        pool.wait_state("long", "enqueued", "waiting_gpu")
        assert pool.events.wait("gpu.task.err", task_id="long").json["code"] == "drained"
        pool.start_worker(0)
        assert pool.wait_result("long")["ok"] is True
        record = pool.record("long")
        assert (record["tries"], record["lost"]) == (2, 1)

    def test_a_killed_worker_comes_back_ends_its_old_processes_and_runs_the_job_again(self, one_card: Pool, pipe):
        one_card.bus.submit(task_id="victim", type="shell", max_retries=0,
                            shell=f'sleep 1000 & echo "$TASK_ATTEMPT $$ $!" > {pipe}; [ "$TASK_ATTEMPT" = 2 ] || wait')
        attempt, *old = pipe.line().split()
        assert attempt == "1"
        one_card.workers["0"].kill()
        assert all(process_alive(int(pid)) for pid in old), "they outlive their worker"
        one_card.start_worker(0)
        assert not any(process_alive(int(pid)) for pid in old), "gone before the new life says that it is up"
        assert pipe.line().startswith("2 ")
        assert one_card.wait_result("victim")["ok"] is True
        record = one_card.record("victim")
        assert (record["state"], record["tries"], record["lost"]) == ("done", 2, 1)
        errors = [message.json["code"] for message in one_card.events.all("gpu.task.err", task_id="victim")]
        assert errors == ["lost"]

    def test_the_job_of_a_worker_that_does_not_come_back_runs_elsewhere(self, make_pool, pipe):
        pool = make_pool()
        pool.start_maestro()
        pool.start_worker(0)
        pool.bus.submit(task_id="victim", type="shell", max_retries=0,
                        shell=f'echo "$GPU_ID $TASK_ATTEMPT $$" > {pipe}; [ "$TASK_ATTEMPT" = 2 ] || sleep 1000')
        gpu, attempt, pid = pipe.line().split()
        assert (gpu, attempt) == ("0", "1")
        pool.workers["0"].kill()
        pool.start_worker(1)
        assert pipe.line().startswith("1 2 ")
        result = pool.wait_result("victim")
        assert result["data"]["gpu_id"] == 1 and result["tries"] == 2
        os.kill(int(pid), signal.SIGKILL)

    def test_a_second_worker_for_the_same_card_is_refused(self, one_card: Pool):
        first = one_card.workers["0"]
        second = one_card.start_worker(0, wait=False)
        # The pool ends the workers that it knows: that must still be the first one.
        one_card.workers["0"] = first
        assert second.wait() == 73
        assert any("0" in line for line in second.lines)
        ok(one_card, "after")

    def test_a_worker_started_before_its_server_waits_for_it(self, make_pool):
        pool = make_pool()
        pool.server.stop()
        pool.start_worker(0, wait=False)
        maestro = pool.start_maestro(leading=False)
        pool.workers["0"].wait_for_line(r"(?i)waiting|connect|reach")
        maestro.wait_for_line(r"(?i)waiting|connect|reach")
        pool.server.start()
        # Told again and again: our own client may be back later than the maestro.
        pool.maestro_events.wait("maestro.heartbeat", alive=True)
        ok(pool, "first")

    def test_several_slots_run_side_by_side(self, make_pool, pipe):
        pool = make_pool()
        pool.start_maestro()
        pool.start_worker(0, SLOTS=3)
        for number in range(3):
            go = f"{pipe}-go{number}"
            os.mkfifo(go)
            pool.bus.submit(task_id=f"side-{number}", type="shell", shell=f"echo up > {pipe}; cat < {go}")
        assert [pipe.line() for _ in range(3)] == ["up"] * 3
        for number in range(3):
            # Opening it waits for the job to have opened it, and closing it lets the job end.
            Path(f"{pipe}-go{number}").write_text("")
            assert pool.wait_state(f"side-{number}")["state"] == "done"


class TestMaestrosComeAndGo:
    def test_a_standby_takes_over_and_loses_nothing(self, make_pool, pipe):
        pool = make_pool()
        leader = pool.start_maestro()
        pool.start_worker(0)
        pool.start_maestro(leading=False)
        pool.maestro_events.wait("maestro.state", event="standby")
        os.mkfifo(f"{pipe}-go")
        pool.bus.submit(task_id="running", type="shell", shell=f"echo $$ > {pipe}; cat < {pipe}-go; echo ended")
        pid = int(pipe.line())
        pool.bus.submit(task_id="waiting", type="shell", shell="echo waited")
        pool.wait_state("waiting", "enqueued", "waiting_gpu", "scheduled")
        leader.kill()
        pool.bus.submit(task_id="meanwhile", type="shell", shell="echo meanwhile")
        pool.maestro_events.wait("maestro.state", event="leading", count=2)
        assert process_alive(pid)
        Path(f"{pipe}-go").write_text("")
        for name, output in [("running", "ended\n"), ("waiting", "waited\n"), ("meanwhile", "meanwhile\n")]:
            result = pool.wait_result(name)
            assert result["data"]["stdout"] == output
            assert result["tries"] == 1
        pool.wait_empty()

    def test_a_leader_that_ends_in_order_hands_over(self, make_pool):
        pool = make_pool()
        leader = pool.start_maestro()
        pool.start_maestro(leading=False)
        pool.maestro_events.wait("maestro.state", event="standby")
        assert leader.terminate() == 0
        pool.maestro_events.wait("maestro.state", event="leading", count=2)
        pool.start_worker(0)
        ok(pool, "after")

    def test_jobs_run_on_without_any_maestro_and_their_results_are_told(self, one_card: Pool, pipe):
        os.mkfifo(f"{pipe}-go")
        one_card.bus.submit(task_id="alone", type="shell", shell=f"echo up > {pipe}; cat < {pipe}-go; echo ended")
        assert pipe.line() == "up"
        one_card.maestros[0].kill()
        Path(f"{pipe}-go").write_text("")
        assert one_card.wait_result("alone")["data"]["stdout"] == "ended\n"
        one_card.start_maestro()
        ok(one_card, "after")
        assert one_card.record("alone")["tries"] == 1

    def test_a_retry_that_is_due_while_no_maestro_runs_is_made_up_for(self, make_pool):
        pool = make_pool(RETRY_BACKOFF_SEC=2)
        pool.start_maestro()
        pool.start_worker(0)
        pool.bus.submit(task_id="again", type="shell", shell='[ "$TASK_ATTEMPT" = 2 ]')
        pool.wait_state("again", "retry")
        pool.maestros[0].kill()
        pool.start_maestro()
        assert pool.wait_result("again")["tries"] == 2


class TestTheServerComesAndGoes:
    def test_a_killed_server_loses_no_job(self, one_card: Pool, pipe):
        os.mkfifo(f"{pipe}-go")
        one_card.bus.submit(task_id="through", type="shell", shell=f"echo $$ > {pipe}; cat < {pipe}-go; echo ended")
        pid = int(pipe.line())
        for number in range(20):
            one_card.bus.submit(task_id=f"queued-{number}", type="shell", shell=f"echo {number}")
        one_card.server.kill()
        assert process_alive(pid)
        Path(f"{pipe}-go").write_text("")
        wait_gone(pid)
        one_card.server.start()
        assert one_card.wait_result("through")["data"]["stdout"] == "ended\n"
        assert one_card.record("through")["tries"] == 1
        for number in range(20):
            assert one_card.wait_result(f"queued-{number}")["data"]["stdout"] == f"{number}\n"
        one_card.wait_empty()

    def test_everything_killed_at_once(self, one_card: Pool, pipe):
        one_card.bus.submit(task_id="through", type="shell", max_retries=0,
                            shell=f'echo "$TASK_ATTEMPT $$" > {pipe}; [ "$TASK_ATTEMPT" = 2 ] || sleep 1000')
        _, pid = pipe.line().split()
        one_card.server.kill()
        one_card.maestros[0].kill()
        one_card.workers["0"].kill()
        one_card.server.start()
        one_card.start_maestro(leading=False)
        one_card.start_worker(0, wait=False)
        assert pipe.line().startswith("2 ")
        assert not process_alive(int(pid))
        assert one_card.wait_result("through", DEADLINE)["ok"] is True
        one_card.wait_empty()
