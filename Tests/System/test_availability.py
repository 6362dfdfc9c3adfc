"""Leaders that were stopped and come back, servers that were away, and reads while nobody leads."""

import json
import os
import signal
import subprocess
from pathlib import Path

import nats.js.errors
import pytest
from harness import BIN_DIR, DEADLINE, Pool, process_alive
from wireproxy import Proxy, Weather


def test_a_leader_that_was_stopped_does_no_harm_when_it_wakes(make_pool, pipe):
    pool = make_pool()
    old = pool.start_maestro()
    pool.start_worker(0)
    pool.start_maestro(leading=False)
    pool.maestro_events.wait("maestro.state", event="standby")
    os.mkfifo(f"{pipe}-go")
    # One runs, some are bound or wait while the leader is stopped in the midst of them.
    pool.bus.submit(task_id="running", type="shell", shell=f"echo $$ > {pipe}; cat < {pipe}-go")
    pid = int(pipe.line())
    names = [f"before-{number}" for number in range(50)]
    for name in names:
        pool.bus.submit(task_id=name, type="shell", shell="echo once")
    old.process.send_signal(signal.SIGSTOP)
    try:
        pool.maestro_events.wait("maestro.state", event="leading", count=2)
        assert process_alive(pid)
        Path(f"{pipe}-go").write_text("")
        # A cancel that the old one knows nothing of, and jobs that it never saw.
        pool.bus.submit(task_id="held", type="shell", gpu=7, shell="echo never")
        pool.wait_state("held", "enqueued", "waiting_gpu")
        assert pool.bus.request("maestro.api.cancel", {"task_id": "held"})["state"] == "cancelled"
        for name in ["running", *names]:
            assert pool.wait_result(name)["ok"] is True
    finally:
        old.process.send_signal(signal.SIGCONT)
    # It says that it stands by; what it still had in its hands has harmed nothing.
    pool.maestro_events.wait("maestro.state", event="standby", count=2)
    names += [f"after-{number}" for number in range(10)]
    for name in names[50:]:
        pool.bus.submit(task_id=name, type="shell", shell="echo once")
    for name in ["running", *names]:
        result = pool.wait_result(name)
        assert (result["ok"], result["tries"]) == (True, 1), result
    done = [message.json["task_id"] for message in pool.events.all("gpu.task.done")]
    assert sorted(done) == sorted(["running", *names]), "each ran once"
    assert pool.record("held")["state"] == "cancelled"
    pool.wait_empty()


def test_after_an_outage_of_the_server_nobody_is_lost_before_it_could_report(make_pool, pipe):
    pool = make_pool(HEARTBEAT_TTL_SEC=2)
    pool.start_maestro()
    workers = 4
    for gpu in range(workers):
        pool.start_worker(gpu)
    os.mkfifo(f"{pipe}-go")
    for gpu in range(workers):
        pool.bus.submit(task_id=f"through-{gpu}", type="shell", gpu=gpu,
                        shell=f"echo up > {pipe}; sleep 5; echo later > {pipe}; cat < {pipe}-go")
    assert [pipe.line() for _ in range(workers)] == ["up"] * workers
    pool.server.kill()
    # The jobs tell when more than twice the time has passed in which a worker has to be heard of.
    assert [pipe.line() for _ in range(workers)] == ["later"] * workers
    seen = len(pool.maestro_events.all("maestro.heartbeat", alive=True))
    pool.server.start()
    pool.maestro_events.wait("maestro.heartbeat", alive=True, count=seen + 3)
    Path(f"{pipe}-go").write_text("")
    for gpu in range(workers):
        result = pool.wait_result(f"through-{gpu}")
        assert (result["ok"], result["tries"]) == (True, 1), result
        assert pool.record(f"through-{gpu}")["lost"] == 0


def test_a_pool_of_many_jobs_on_a_narrow_line_gets_a_leader(make_pool):
    """Its records take several times as long to arrive as its lease lasts, and the answers about the lease must not wait
    behind them."""
    pool: Pool = make_pool(LEASE_SEC=2)
    first = pool.start_maestro()
    count = 3000
    for begin in range(0, count, 500):
        names = [f"many-{number}" for number in range(begin, begin + 500)]
        tasks = [{"task_id": name, "cmd": ["true"], "env": {"PADDING": "x" * 3000}} for name in names]
        pool.bus.store_all("gpu.task.enqueue", tasks, [f"sub:{name}" for name in names])
    pool.maestro_events.wait_until(lambda: pool.bus.count("ORG_JOBS") == count, what="all records")
    first.terminate()
    proxy = Proxy(pool.server.port)
    try:
        proxy.weather = Weather(width=1e6)
        second = pool.start_maestro(NATS_URL=proxy.url)
        assert not [line for line in second.lines if "no longer leading" in line]
        assert pool.maestro_events.all("maestro.state", event="leading")[-1].json["qsize"] == count
    finally:
        pool.stop_programs()
        proxy.close()


def test_a_leader_that_hears_nothing_where_it_works_lets_the_lead_go(make_pool, task_id: str):
    """Its lease has a connection of its own, perhaps to another server of a cluster, and that one still works."""
    pool: Pool = make_pool(LEASE_SEC=2)
    proxy = Proxy(pool.server.port)
    try:
        pool.start_maestro(NATS_URL=proxy.url)
        pool.start_maestro(leading=False)
        pool.maestro_events.wait("maestro.state", event="standby")
        proxy.freeze("maestro")
        pool.maestro_events.wait("maestro.state", event="leading", count=2)
        pool.start_worker(0)
        pool.bus.submit(task_id=task_id, cmd=["true"])
        assert pool.wait_result(task_id)["ok"] is True
    finally:
        proxy.release()
        pool.stop_programs()
        proxy.close()


def test_one_submitter_has_no_more_jobs_than_allowed(make_pool):
    pool: Pool = make_pool(MAX_JOBS_PER_SUBMITTER=2)
    pool.start_maestro()
    for number in range(3):
        pool.bus.submit(task_id=f"ann-{number}", cmd=["true"], submitter="ann@here")
    pool.bus.submit(task_id="bob-0", cmd=["true"], submitter="bob@here")
    refused = pool.wait_state("ann-2")
    assert refused["state"] == "rejected"
    assert "ann@here has 2 jobs" in refused["reason"]
    assert pool.wait_result("ann-2")["error"] == refused["reason"]
    assert pool.events.wait("gpu.task.err", task_id="ann-2").json["code"] == "too_many_jobs"
    # The same submission again is the same job, whether there is room or not.
    pool.bus.store("gpu.task.enqueue", {"task_id": "ann-0", "cmd": ["true"], "submitter": "ann@here"}, "again")
    pool.start_worker(0)
    for name in ("ann-0", "ann-1", "bob-0"):
        assert pool.wait_result(name)["ok"] is True
    pool.bus.submit(task_id="ann-3", cmd=["true"], submitter="ann@here")
    assert pool.wait_result("ann-3")["ok"] is True


def test_what_can_be_read_while_nobody_leads(make_pool):
    pool: Pool = make_pool()

    def ctl(*arguments: str, status: int = 0) -> str:
        ended = subprocess.run([BIN_DIR / "maestroctl", *arguments], capture_output=True, text=True, timeout=DEADLINE,
                               env=pool.environment(), stdin=subprocess.DEVNULL)
        assert ended.returncode == status, ended
        return ended.stdout

    maestro = pool.start_maestro()
    pool.start_worker(0)
    assert pool.run(task_id="ended", type="shell", shell="echo said")["ok"] is True
    pool.bus.submit(task_id="waits", cmd=["true"], gpu=7)
    pool.wait_state("waits", "waiting_gpu")
    maestro.kill()
    jobs = {row["task_id"]: row["state"] for row in map(json.loads, ctl("list", "--json").splitlines())}
    assert jobs == {"ended": "done", "waits": "waiting_gpu"}
    assert "card 7" in json.loads(ctl("show", "waits", "--json"))["reason"]
    assert ctl("result", "ended") == "said\n"
    assert "said" in ctl("logs", "ended")
    assert "card 7" in ctl("why", "waits")
    assert "0" in ctl("gpus")
    assert "No maestro answers" in ctl("status", status=69)
    ctl("wait", "ended")
    # What needs a decision says that there is nobody to take it.
    for order in (["cancel", "waits"], ["cordon", "0"], ["drain", "0"]):
        ctl(*order, status=69)
    assert pool.record("waits")["state"] == "waiting_gpu"


def test_a_full_queue_is_told_before_anything_is_refused(make_pool):
    pool: Pool = make_pool(MAX_QUEUE=3, STREAM_WQ_MAX_MB=1)
    pool.start_maestro()
    taken = []

    def submit(size: int) -> None:
        name = f"job-{len(taken)}"
        pool.bus.submit(task_id=name, type="shell", shell="true", name="x" * size)
        taken.append(name)

    for _ in range(5):
        submit(10)
    told = pool.maestro_events.wait("maestro.state", event="queue_full").json
    assert "MAX_QUEUE" in told["reason"]
    assert pool.bus.request("maestro.api.status", {})["queue_full"] is True
    # There is room beyond that for what is on its way; in the end the stream itself refuses, and says so.
    with pytest.raises(nats.js.errors.APIError, match="maximum bytes exceeded"):
        for _ in range(20):
            submit(100_000)
    assert len(taken) > 10
    ended = subprocess.run([BIN_DIR / "maestroctl", "submit", "--shell", "true " + "y" * 100_000], text=True,
                           capture_output=True, timeout=DEADLINE, env=pool.environment())
    assert ended.returncode == 75 and "not taken" in ended.stderr, ended
    # Whatever was acked runs, and what was refused did not happen.
    pool.start_worker(0)
    for name in taken:
        assert pool.wait_result(name)["ok"] is True
    pool.maestro_events.wait("maestro.state", event="queue_open")
    assert len(pool.bus.every("ORG_JOBS", "gpu.task.state.*")) == len(taken)
