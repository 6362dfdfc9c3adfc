"""maestroctl doctor on real programs and real damage: what it sees, and what it puts right."""

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from harness import BIN_DIR, DEADLINE, TERMINAL, Pool, free_port

# How long something may be under way before it counts; the pool's heartbeats come twice a second.
PATIENCE = 2


class Doctor:
    """What `maestroctl doctor` says of a pool."""

    def __init__(self, pool: Pool, state: Path):
        self.pool = pool
        self.state = state

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN_DIR / "maestroctl", "doctor", "--patience", str(PATIENCE), *arguments], input=stdin,
            capture_output=True, text=True, timeout=DEADLINE, env=self.pool.environment(XDG_STATE_HOME=self.state),
        )

    def look(self, *arguments: str) -> dict:
        ended = self.run("--json", *arguments)
        assert ended.stdout, ended
        diagnosis = json.loads(ended.stdout)
        assert ended.returncode in (0, 1), ended
        if not diagnosis.get("repairs"):
            assert (ended.returncode == 0) == diagnosis["ok"], diagnosis
        return diagnosis

    def codes(self, *arguments: str) -> set[str]:
        return {finding["code"] for finding in self.look(*arguments)["findings"]}

    def wait_for(self, *codes: str, deadline: float = DEADLINE) -> dict:
        """The diagnosis once it holds these findings."""

        def probe() -> dict | None:
            diagnosis = self.look()
            found = {finding["code"] for finding in diagnosis["findings"]}
            return diagnosis if found.issuperset(codes) else None

        return self.pool.events.wait_until(probe, deadline, lambda: f"findings {codes}; there are {self.look()}")

    def mend(self, *codes: str) -> dict[str, str]:
        """Waits for the findings, has them put right, and answers what became of each repair."""
        self.wait_for(*codes)
        told = self.pool.bus.subscribe("maestro.repair")
        diagnosis = self.look("--repair", "--yes")
        done = {repair["repair"]: repair["outcome"] for repair in diagnosis["repairs"]}
        count = sum(repair["outcome"] == "done" for repair in diagnosis["repairs"])
        if count:
            told.wait("maestro.repair", count=count)
        assert len(self.pool.bus.every("ORG_EVENTS", "maestro.repair")) >= count, "each is kept with the events"
        return done


@pytest.fixture
def doctor(make_pool, tmp_path: Path) -> Doctor:
    return Doctor(make_pool(HEARTBEAT_SEC=0.5), tmp_path / "state")


def ended(pool: Pool) -> dict[str, bytes]:
    """The records of all jobs that have ended, as they lie there."""
    return {one.subject: one.data for one in pool.bus.every("ORG_JOBS", "gpu.task.state.*") if one.json["state"] in TERMINAL}


def stop(pool: Pool) -> None:
    """Nobody leads any more."""
    pool.maestros[-1].terminate()


def test_a_pool_in_order(doctor: Doctor):
    pool = doctor.pool
    ended_ = doctor.run()
    assert ended_.returncode == 1
    assert "this server holds no pool" in ended_.stdout
    assert "no maestro leads" in ended_.stdout
    pool.start_maestro()
    pool.start_worker(0)
    assert pool.run(task_id="a", type="shell", shell="true")["ok"]
    said = doctor.run()
    assert said.returncode == 0, said
    assert said.stdout.strip().endswith("All is well.")
    assert max(map(len, said.stdout.splitlines())) <= 80
    diagnosis = doctor.look()
    assert diagnosis["ok"] is True
    assert [area["area"] for area in diagnosis["looked"]] == [
        "server", "streams", "consumers", "records", "workers", "maestro", "disk"]
    # One server without replicas: what a power cut may take is said, and is nothing wrong.
    assert {finding["severity"] for finding in diagnosis["findings"]} <= {"note"}
    # The worker of this test is no unit and has no cgroups for its jobs.
    assert {"sync_interval", "jobs_uncontained"} <= {finding["code"] for finding in diagnosis["findings"]}
    assert doctor.look("--repair", "--yes")["repairs"] == []
    assert doctor.run("--repair").returncode == 64, "it asks on a terminal alone"


def test_what_the_monitoring_port_tells(make_pool, tmp_path: Path):
    pool = make_pool()
    pool.server.stop()
    port = free_port()
    pool.server.config.write_text(pool.server.config.read_text() + f'http: "127.0.0.1:{port}"\n')
    pool.server.start()
    # Its own client may come back too late to hear that it leads.
    pool.start_maestro(leading=False)
    pool.maestro_events.wait("maestro.heartbeat", alive=True)
    doctor = Doctor(pool, tmp_path / "state")
    # The store's own disk, as the server names it, stands beside the streams' limits.
    said = doctor.look("--monitor", f"http://127.0.0.1:{port}")
    disk = next(area for area in said["looked"] if area["area"] == "disk")
    assert "store" in disk["summary"] or "free" in disk["summary"]
    exceeding = [one for one in said["findings"] if one["code"] == "streams_exceed_disk"]
    assert all("sum up to" in one["evidence"] for one in exceeding)


def test_a_worker_that_is_gone_and_the_job_that_it_had(doctor: Doctor, pipe):
    pool = doctor.pool
    pool.start_maestro()
    pool.start_worker(0)
    pool.bus.submit(task_id="stranded", type="shell", shell=f"echo started > {pipe}; sleep 600")
    pipe.line()
    stop(pool)
    pool.workers["0"].kill()
    found = {one["code"]: one for one in doctor.wait_for("worker_silent", "record_stranded")["findings"]}
    assert "card 0" in found["worker_silent"]["what"]
    assert "stranded" in found["record_stranded"]["what"] and found["record_stranded"]["severity"] == "warning"
    assert found["no_leader"]["severity"] == "error"
    pool.start_maestro()
    pool.bus.request("maestro.api.cancel", {"task_id": "stranded", "reason": "the test is over"})
    assert pool.wait_state("stranded")["state"] == "cancelled"


def test_a_run_message_that_belongs_to_nothing_is_removed(doctor: Doctor):
    pool = doctor.pool
    runs = pool.bus.subscribe("gpu.task.run.*")
    pool.start_maestro()
    pool.start_worker(0)
    assert pool.run(task_id="over", type="shell", shell="true")["ok"]
    pool.wait_empty()
    before = ended(pool)
    # An ack that a killed server forgot: the message is there again, on a card that nobody serves.
    message = runs.all("gpu.task.run.0")[0]
    pool.bus.store("gpu.task.run.7", message.data)
    pool.bus.store("gpu.task.run.8", b"no run message")
    done = doctor.mend("run_orphan", "run_foreign")
    assert done == {"remove_run": "done", "remove_foreign_run": "done"}
    assert pool.bus.count("ORG_RUN") == 0
    assert ended(pool) == before, "what has ended is never touched"
    assert doctor.look()["ok"] is True


def scheduled(pool: Pool, task_id: str) -> dict:
    """Has a job scheduled to a worker that does not answer, and leaves no maestro."""
    # It must believe in the stopped worker for as long as a busy machine needs to bring the job to it.
    pool.start_maestro(HEARTBEAT_TTL_SEC=60)
    worker = pool.start_worker(0)
    pool.events.wait("gpu.worker.heartbeat", gpu_id=0)
    os.kill(worker.pid, signal.SIGSTOP)
    pool.bus.submit(task_id=task_id, type="shell", shell="true")
    record = pool.wait_state(task_id, "scheduled")
    pool.events.wait_until(lambda: pool.bus.count("ORG_RUN") == 1, what="the run message")
    pool.maestros[-1].kill()
    return record


def serve(pool: Pool) -> None:
    """Everything runs again."""
    os.kill(pool.workers["0"].pid, signal.SIGCONT)
    pool.workers["0"].kill()
    pool.start_maestro()
    pool.start_worker(0)


def test_a_job_whose_record_is_lost_comes_back_from_its_run_message(doctor: Doctor):
    pool = doctor.pool
    record = scheduled(pool, "lost")
    sequence, _ = pool.bus.last("ORG_JOBS", "gpu.task.state.lost")
    assert pool.bus.api("STREAM.MSG.DELETE.ORG_JOBS", {"seq": sequence})["success"]
    assert pool.record("lost") is None
    done = doctor.mend("record_lost")
    assert done == {"restore_record": "done"}
    again = pool.record("lost")
    assert again["state"] == "enqueued" and again["task"] == record["task"] and again["digest"] == record["digest"]
    assert again["tries"] == 0 and "doctor" in again["reason"]
    # Its message is an orphan now: the attempt was taken back.
    assert doctor.mend("run_orphan") == {"remove_run": "done"}
    serve(pool)
    assert pool.wait_state("lost")["state"] == "done"
    # The record is written first; the result is the last word about a job.
    pool.wait_result("lost")
    assert len(pool.events.all("gpu.task.done", task_id="lost")) == 1


def test_a_scheduled_job_whose_message_is_lost_goes_back_to_the_queue(doctor: Doctor):
    pool = doctor.pool
    record = scheduled(pool, "unsent")
    assert pool.bus.api("STREAM.PURGE.ORG_RUN")["success"]
    done = doctor.mend("scheduled_without_run")
    assert done == {"take_back": "done"}
    again = pool.record("unsent")
    assert again["state"] == "enqueued" and again["attempt_id"] == record["attempt_id"] and again["op"] != record["op"]
    serve(pool)
    assert pool.wait_state("unsent")["state"] == "done"
    assert pool.record("unsent")["tries"] == 1


def test_a_result_that_was_not_told_is_published_once(doctor: Doctor):
    pool = doctor.pool
    pool.start_maestro(RESULT_GRACE_SEC=1)
    pool.start_worker(0)
    first = pool.run(task_id="untold", type="shell", shell="echo hello")
    # Something stands before it, so that the events are known to reach back that far.
    sequence, _ = pool.bus.last("ORG_EVENTS", "gpu.task.result.untold")
    place, _ = pool.bus.last("ORG_JOBS", "gpu.task.state.untold")
    pool.events.wait_until(
        lambda: (pool.bus.last("ORG_CTL", "gpu.ctl.results") or (0, {"through": 0}))[1]["through"] >= place,
        what="the leader's place behind that job")
    before = ended(pool)
    assert pool.bus.api("STREAM.MSG.DELETE.ORG_EVENTS", {"seq": sequence})["success"]
    assert doctor.mend("result_missing") == {"publish_result": "done"}
    again = pool.wait_result("untold")
    assert again["ok"] is True and again["data"]["stdout"] == first["data"]["stdout"]
    assert again["data"]["output_unavailable"] is True, "the record's tail stands in for it"
    assert ended(pool) == before
    assert doctor.look()["ok"] is True


def test_a_consumer_that_is_not_as_it_must_be_is_made_anew(doctor: Doctor):
    pool = doctor.pool
    maestro = pool.start_maestro()
    pool.start_worker(0)
    os.kill(maestro.pid, signal.SIGSTOP)
    pool.bus.api("CONSUMER.DELETE.ORG_WQ.MAESTRO_ENQ")
    wrong = {"durable_name": "MAESTRO_ENQ", "ack_policy": "explicit", "max_deliver": 1,
             "filter_subject": "gpu.task.enqueue"}
    answer = pool.bus.api("CONSUMER.DURABLE.CREATE.ORG_WQ.MAESTRO_ENQ", {"stream_name": "ORG_WQ", "config": wrong})
    assert "error" not in answer, answer
    pool.bus.submit(task_id="waits", type="shell", shell="true")
    done = doctor.mend("consumer_differs")
    assert done["remake_consumer"] == "done"
    os.kill(maestro.pid, signal.SIGCONT)
    assert pool.wait_result("waits")["ok"] is True
    assert pool.bus.api("CONSUMER.INFO.ORG_WQ.MAESTRO_ENQ")["config"]["max_deliver"] == -1


def test_a_lease_that_nobody_can_read_is_removed(doctor: Doctor):
    pool = doctor.pool
    pool.start_maestro()
    pool.start_worker(0)
    stop(pool)
    pool.bus.store("gpu.ctl.leader", b"mine")
    pool.bus.store("gpu.ctl.worker-5", b'{"gpu_id":5}')
    late = pool.start_maestro(leading=False)
    assert doctor.mend("control_unreadable", "no_leader") == {"remove_control": "done"}
    pool.maestro_events.wait("maestro.state", event="leading", count=2)
    assert late.running
    assert pool.run(task_id="a", type="shell", shell="true")["ok"] is True


def test_what_a_newer_version_wrote_is_left_alone(doctor: Doctor):
    pool = doctor.pool
    pool.start_maestro()
    newer = {"v": 2, "task_id": "tomorrow", "state": "dreaming", "op": "x"}
    pool.bus.store("gpu.task.state.tomorrow", newer)
    pool.bus.store("gpu.task.state.broken", b"\xff\x00")
    pool.bus.store("gpu.ctl.worker-9", {"v": 2, "gpu_id": 9, "op": "x"})
    diagnosis = doctor.wait_for("record_unreadable", "control_newer")
    texts = [one["evidence"] for one in diagnosis["findings"] if one["code"] == "record_unreadable"]
    assert len(texts) == 2 and any("version 2" in text for text in texts)
    mended = doctor.look("--repair", "--yes")
    assert mended["repairs"] == [] and mended["ok"] is False
    assert pool.record("tomorrow") == newer
    assert pool.bus.last("ORG_CTL", "gpu.ctl.worker-9")[1]["v"] == 2
    # The pool goes on beside them.
    pool.start_worker(0)
    assert pool.run(task_id="today", type="shell", shell="true")["ok"] is True


def test_streams_that_are_full_missing_or_different(doctor: Doctor):
    pool = doctor.pool
    pool.start_maestro()
    stop(pool)
    config = pool.bus.api("STREAM.INFO.ORG_WQ")["config"]
    pool.bus.api("STREAM.UPDATE.ORG_WQ", config | {"max_msgs": 10})
    for number in range(9):
        pool.bus.submit(task_id=f"job-{number}", type="shell", shell="true")
    run = pool.bus.api("STREAM.INFO.ORG_RUN")["config"]
    pool.bus.api("STREAM.UPDATE.ORG_RUN", run | {"discard": "old"})
    pool.bus.api("STREAM.DELETE.ORG_LOGS")
    found = {one["code"]: one for one in doctor.look()["findings"]}
    assert "90 %" in found["stream_full"]["what"]
    assert "discard" in found["stream_differs"]["evidence"]
    assert "ORG_LOGS" in found["stream_missing"]["what"]


def test_submissions_that_nobody_pulls(doctor: Doctor):
    pool = doctor.pool
    maestro = pool.start_maestro()
    pool.bus.submit(task_id="first", type="shell", shell="true")
    pool.wait_state("first", "enqueued", "waiting_gpu")
    foreign = {"durable_name": "THIEF", "ack_policy": "explicit", "filter_subject": "gpu.task.run.3"}
    assert "error" not in pool.bus.api("CONSUMER.DURABLE.CREATE.ORG_RUN.THIEF", {"stream_name": "ORG_RUN", "config": foreign})
    assert "consumer_foreign" in doctor.codes()
    assert maestro.running


def test_a_server_without_jetstream_or_without_anybody(make_pool, tmp_path: Path):
    pool = make_pool()
    pool.server.stop()
    doctor = Doctor(pool, tmp_path / "state")
    nobody = doctor.run()
    assert nobody.returncode == 69 and "no server answers" in nobody.stderr
    config = pool.server.config.read_text().splitlines()
    pool.server.config.write_text("\n".join(line for line in config if "jetstream" not in line))
    pool.server.start()
    without = doctor.run()
    assert without.returncode == 69 and "JetStream is off" in without.stderr


def test_the_journal_is_looked_at_too(doctor: Doctor):
    pool = doctor.pool
    pool.start_maestro()
    for _ in range(2):
        subprocess.run([BIN_DIR / "maestroctl", "submit", "--shell", "true"], check=True, capture_output=True,
                       env=pool.environment(XDG_STATE_HOME=doctor.state), timeout=DEADLINE)
    disk = next(area for area in doctor.look()["looked"] if area["area"] == "disk")
    assert "2 submissions in the journal" in disk["summary"]


def test_repair_asks_before_it_does_anything(doctor: Doctor):
    """With a terminal of our own, answered with no and with yes."""
    pool = doctor.pool
    pool.start_maestro()
    pool.bus.store("gpu.task.run.8", b"no run message")
    doctor.wait_for("run_foreign")

    def answer(text: bytes) -> tuple[int, str]:
        leader, follower = pty.openpty()
        try:
            program = subprocess.Popen(
                [BIN_DIR / "maestroctl", "doctor", "--repair", "--patience", str(PATIENCE)], stdin=follower,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=pool.environment(XDG_STATE_HOME=doctor.state))
            os.write(leader, text)
            said, errors = program.communicate(timeout=DEADLINE)
            assert "Do this? [y/N]" in errors
            return program.returncode, said
        finally:
            os.close(leader)
            os.close(follower)

    status, _ = answer(b"n\n")
    assert status == 1 and pool.bus.count("ORG_RUN") == 1
    status, said = answer(b"y\n")
    assert status == 0 and "done" in said and pool.bus.count("ORG_RUN") == 0
