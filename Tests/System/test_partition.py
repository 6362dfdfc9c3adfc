"""Workers that are cut off from the pool, or stopped: what becomes of their jobs under each partition policy.

A job under `fence` holds a lock as long as anything of it lives, and fails if it finds it taken: two at a time would show.
"""

import os
import select
import signal
import socket
import threading
from pathlib import Path

import pytest
from harness import Pipe, Pool, free_port, process_alive, wait_gone


class Cable:
    """A TCP connection between a client and the server that can be cut and mended, without either end being told."""

    def __init__(self, port: int):
        self._target = port
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._changed = threading.Event()
        self._wake, self._waker = os.pipe()
        self._whole = True
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="cable")
        self._thread.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def cut(self) -> None:
        self._set(whole=False)

    def mend(self) -> None:
        self._set(whole=True)

    def close(self) -> None:
        self._ended = True
        os.write(self._waker, b"x")
        self._thread.join(10)

    def _set(self, whole: bool) -> None:
        self._changed.clear()
        self._whole = whole
        os.write(self._waker, b"x")
        assert self._changed.wait(10)

    def _run(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        while not self._ended:
            # What is cut is not read: it waits in the kernel, as it would on a wire that a router holds.
            listened = [self._wake, *([self._listener, *peers] if self._whole else [])]
            for ready in select.select(listened, [], [])[0]:
                if ready is self._wake or ready == self._wake:
                    os.read(self._wake, 64)
                    self._changed.set()
                    break
                if ready is self._listener:
                    client = self._listener.accept()[0]
                    try:
                        server = socket.create_connection(("127.0.0.1", self._target), 10)
                    except OSError:
                        client.close()
                        continue
                    peers |= {client: server, server: client}
                elif ready in peers:
                    self._carry(ready, peers)
        for peer in peers:
            peer.close()
        self._listener.close()

    @staticmethod
    def _carry(source: socket.socket, peers: dict[socket.socket, socket.socket]) -> None:
        try:
            data = source.recv(65536)
            if data:
                return peers[source].sendall(data)
        except OSError:
            pass
        for end in (peers.pop(source), source):
            peers.pop(end, None)
            end.close()


@pytest.fixture
def cable(make_pool):
    """A pool of two cards, of which card 0 hangs on a cable."""
    pool = make_pool()
    pool.start_maestro()
    line = Cable(pool.server.port)
    pool.start_worker(0, NATS_URL=line.url)
    yield pool, line
    line.mend()
    pool.workers["0"].terminate()
    line.close()


def start_fenced(pool: Pool, pipe: Pipe, lock: Path) -> int:
    """Runs a fenced job on the only card, and has another card ready for it; answers the job's pid."""
    pool.bus.submit(
        task_id="fenced", type="shell", partition="fence", max_retries=0,
        shell=f'exec 9>>{lock}; flock -n 9 || exit 99; echo "$GPU_ID $TASK_ATTEMPT $$" > {pipe}; '
              f'[ "$TASK_ATTEMPT" = 2 ] || sleep 1000',
    )
    gpu, attempt, pid = pipe.line().split()
    assert (gpu, attempt) == ("0", "1")
    assert pool.record("fenced")["fence"] == 4
    pool.start_worker(1)
    return int(pid)


def check_moved(pool: Pool, pipe: Pipe, pid: int) -> None:
    """The job runs on the other card, and nothing of it ran there before all of it was gone here."""
    assert pipe.line().startswith("1 2 ")
    assert not process_alive(pid)
    result = pool.wait_result("fenced")
    assert (result["ok"], result["tries"]) == (True, 2), result


def check_serves(pool: Pool, gpu: int) -> None:
    assert pool.run(task_id="after", type="shell", gpu=gpu, shell="echo again")["ok"] is True
    record = pool.record("fenced")
    assert (record["state"], record["tries"], record["lost"]) == ("done", 2, 1)


def test_a_fenced_job_of_a_stopped_worker_ends_before_another_starts(make_pool, pipe, tmp_path: Path):
    pool = make_pool()
    pool.start_maestro()
    stopped = pool.start_worker(0)
    pid = start_fenced(pool, pipe, tmp_path / "lock")
    stopped.process.send_signal(signal.SIGSTOP)
    try:
        check_moved(pool, pipe, pid)
    finally:
        stopped.process.send_signal(signal.SIGCONT)
    check_serves(pool, 0)


def test_a_fenced_job_behind_a_cut_cable_ends_before_another_starts(cable: tuple[Pool, Cable], pipe, tmp_path: Path):
    pool, line = cable
    pid = start_fenced(pool, pipe, tmp_path / "lock")
    line.cut()
    check_moved(pool, pipe, pid)
    line.mend()
    check_serves(pool, 0)


def test_a_fenced_job_of_a_killed_worker_ends_at_once(make_pool, pipe, tmp_path: Path):
    pool = make_pool(HEARTBEAT_TTL_SEC=4)
    pool.start_maestro()
    killed = pool.start_worker(0)
    pid = start_fenced(pool, pipe, tmp_path / "lock")
    killed.kill()
    wait_gone(pid)
    check_moved(pool, pipe, pid)


def test_a_fenced_job_outlives_its_leader(make_pool, pipe):
    pool = make_pool(HEARTBEAT_TTL_SEC=60)
    leader = pool.start_maestro()
    pool.start_worker(0)
    pool.start_maestro(leading=False)
    pool.maestro_events.wait("maestro.state", event="standby")
    os.mkfifo(f"{pipe}-go")
    pool.bus.submit(task_id="fenced", type="shell", partition="fence", shell=f"echo $$ > {pipe}; cat < {pipe}-go")
    pid = int(pipe.line())
    leader.kill()
    pool.maestro_events.wait("maestro.state", event="leading", count=2)
    assert process_alive(pid)
    Path(f"{pipe}-go").write_text("")
    result = pool.wait_result("fenced")
    assert (result["ok"], result["tries"]) == (True, 1)


def test_a_job_that_continues_runs_on_and_only_the_new_copy_counts(cable: tuple[Pool, Cable], pipe):
    pool, line = cable
    os.mkfifo(f"{pipe}-go")
    pool.bus.submit(task_id="continued", type="shell", max_retries=0,
                    shell=f'echo "$GPU_ID $TASK_ATTEMPT $$" > {pipe}; [ "$TASK_ATTEMPT" = 1 ] && sleep 1000; '
                          f'cat < {pipe}-go')
    gpu, attempt, pid = pipe.line().split()
    assert (gpu, attempt) == ("0", "1")
    pool.start_worker(1)
    line.cut()
    assert pipe.line().startswith("1 2 ")
    assert process_alive(int(pid)), "nobody has told it"
    line.mend()
    wait_gone(int(pid))
    Path(f"{pipe}-go").write_text("")
    result = pool.wait_result("continued")
    assert (result["ok"], result["tries"], result["data"]["gpu_id"]) == (True, 2, 1)
    assert pool.record("continued")["lost"] == 1


def test_what_a_partition_policy_may_be(shared: Pool, task_id: str):
    shared.bus.submit(task_id=task_id, cmd=["true"], partition="maybe")
    record = shared.wait_state(task_id)
    assert record["state"] == "rejected"
    assert '"continue" or "fence"' in record["reason"]
