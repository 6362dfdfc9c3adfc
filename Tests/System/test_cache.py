"""The caches on the bus, with the real gpucache-ctl, and jobs that go where what they read is."""

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import BIN_DIR, TOP, Pool

TOOL = TOP / "deploy/gpucache/gpucache-ctl"
CAN_MOUNT = os.getuid() == 0 and "\toverlay\n" in Path("/proc/filesystems").read_text()


class AskSocket:
    """gpucache-ask.socket with Accept=yes: gpucache-ctl answers each connection, with the connection as input and output."""

    def __init__(self, pool: Pool, **settings: str):
        self.environment = os.environ | {
            "BASE_ROOT": str(pool.directory / "base"), "PERSIST_ROOT": str(pool.directory / "base"), "MIN_FREE_MB": "1",
            "RAM_ROOT": str(pool.directory / "ram"), "MERGE_ROOT": str(pool.directory / "gpucache"),
            "CACHE_MB": "16", "GPUCACHE_CONF": "/dev/null",
        } | settings
        (pool.directory / "ram").mkdir(exist_ok=True)
        self.path = pool.directory / "ram/ask.sock"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self.socket.accept()[0] as taken:
                    subprocess.run([TOOL, "answer"], stdin=taken, stdout=taken, env=self.environment)

    def ask(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            client.sendall(line.encode())
            client.shutdown(socket.SHUT_WR)
            return client.makefile().read()

    def call(self, command: str, *cards: str) -> None:
        subprocess.run([TOOL, command, *cards], env=self.environment, check=True)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(30)


@pytest.fixture
def cached(make_pool: Callable[..., Pool]) -> Iterator[tuple[Pool, AskSocket]]:
    """A pool whose worker 0 has a real cache: an overlay where one can be mounted."""
    pool = make_pool(CACHE_HEARTBEAT_SEC="0.5")
    ask = AskSocket(pool)
    try:
        ask.call("mount", "0")
        pool.start_maestro()
        pool.start_worker(0)
        yield pool, ask
    finally:
        for worker in pool.workers.values():
            worker.terminate()
        ask.close()
        ask.call("unmount", "0")


def test_the_worker_tells_of_its_cache_and_has_it_saved_and_warmed(cached: tuple[Pool, AskSocket]) -> None:
    pool, ask = cached
    (pool.gpucache(0) / "out").write_text("x" * 100_000)
    (pool.directory / "base/gpu0/model").write_text("weights")
    mode = "overlay" if CAN_MOUNT else "plain"
    beat = pool.events.wait("gpu.cache.heartbeat", gpu_id=0, mode=mode).json
    assert beat["path"] == str(pool.gpucache(0))
    if CAN_MOUNT:
        assert beat["size_bytes"] == 16 << 20 and beat["used_bytes"] <= beat["size_bytes"]
    for verb in ("sync", "prewarm"):
        answer = pool.bus.request(f"gpu.cache.{verb}", {"gpu": 0}, 60)
        assert answer["ok"] and answer["gpu_id"] == 0, answer
        assert pool.events.wait(f"gpu.cache.{verb}.done", gpu_id=0).json == answer
    assert pool.events.all("gpu.cache.sync.err") == []
    if CAN_MOUNT:
        assert (pool.directory / "base/gpu0.snapshots/current/out").read_text() == "x" * 100_000
        pool.events.wait("gpu.cache.heartbeat", gpu_id=0, sync="ok")


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root and overlays")
def test_a_cache_that_runs_full_is_told_of_on_the_bus(cached: tuple[Pool, AskSocket]) -> None:
    pool, ask = cached
    (pool.gpucache(0) / "large").write_bytes(os.urandom(15 << 20))
    assert pool.bus.request("gpu.cache.sync", {"gpu": 0}, 60)["ok"]
    pool.events.wait_until(
        lambda: [m for m in pool.events.all("gpu.cache.heartbeat") if m.json.get("note", "").startswith("cache_full")])
    pool.events.wait_until(lambda: [m for m in pool.events.all("gpu.worker.log") if "cache_full" in m.json["message"]])
    (pool.gpucache(0) / "large").unlink()
    assert pool.bus.request("gpu.cache.sync", {"gpu": 0}, 60)["ok"]


def test_requests_that_cannot_be_carried_out_say_why(cached: tuple[Pool, AskSocket]) -> None:
    pool, ask = cached
    for content, words in [(b"{", "not valid JSON"), ({}, "names no card"), ({"gpu": "a b"}, "names no card")]:
        answer = pool.bus.request("gpu.cache.sync", content)
        assert not answer["ok"], answer
    pool.events.wait("gpu.cache.sync.err", count=3)
    for line in ("", "sync", "sync x", "sync 2000", "remove 0", "sync 0; rm -rf /", "sync -1", "unmount 0"):
        assert ask.ask(line + "\n").startswith("err "), line
    assert ask.ask("prewarm 7\n").startswith("err gpu7: ")


def test_without_gpucache_a_plain_cache_needs_no_saving(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(CACHE_HEARTBEAT_SEC="0.5")
    pool.start_maestro()
    pool.start_worker(0)
    pool.events.wait("gpu.cache.heartbeat", gpu_id=0, mode="plain")
    answer = pool.bus.request("gpu.cache.sync", {"gpu": 0})
    assert answer["ok"] and "plain directory" in answer["note"]
    answer = pool.bus.request("gpu.cache.prewarm", {"gpu": 0})
    assert not answer["ok"] and "gpucache-ask.socket" in answer["error"]


def test_cards_with_names_refuse_a_bare_number(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(NODE_NAME="rig1")
    pool.start_maestro()
    pool.start_worker(3, wait=False)
    pool.events.wait("gpu.worker.up", gpu_id="rig1-3")
    answer = pool.bus.request("gpu.cache.sync", {"gpu": 3})
    assert not answer["ok"] and "rig1-3" in answer["error"]
    assert pool.bus.request("gpu.cache.sync", {"gpu": "rig1-3"})["ok"]


def test_a_worker_that_may_not_tells_nothing(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(CACHE_HEARTBEAT_SEC="0.2")
    pool.start_maestro()
    pool.start_worker(0, NATS_ENABLE="no")
    pool.start_worker(1)
    pool.events.wait("gpu.cache.heartbeat", gpu_id=1, count=5)
    assert pool.events.all("gpu.cache.heartbeat", gpu_id=0) == []


def holding(pool: Pool, gpu: int, *names: str) -> None:
    """Until the worker has told, and so the leader has heard, that its cache holds these."""
    pool.events.wait_until(
        lambda: [m for m in pool.events.all("gpu.cache.heartbeat", gpu_id=gpu) if set(names) <= set(m.json["holds"])],
        what=f"card {gpu} to hold {names}")


def ctl(pool: Pool, *arguments: str) -> str:
    told = subprocess.run([BIN_DIR / "maestroctl", *arguments], env=pool.environment(), capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_jobs_go_where_what_they_read_is(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(CACHE_HEARTBEAT_SEC="0.5")
    log = pool.directory / "decisions"
    pool.start_maestro(DECISION_LOG=log)
    for gpu in range(3):
        pool.start_worker(gpu)
    (pool.gpucache(2) / "models/llama").mkdir(parents=True)
    (pool.gpucache(1) / "corpus.bin").write_text("data")
    holding(pool, 2, "models", "models/llama")
    holding(pool, 1, "corpus.bin")
    assert pool.run(task_id="llama", cmd=["true"], cache_key="models/llama/")["data"]["gpu_id"] == 2
    assert pool.run(task_id="corpus", cmd=["true"], cache_key=["./corpus.bin"])["data"]["gpu_id"] == 1
    # A name deeper than the worker looks by itself is known once a job has asked for it.
    deep = pool.gpucache(1) / "a/b/c"
    deep.mkdir(parents=True)
    assert pool.run(task_id="first", cmd=["true"], cache_key="a/b/c", gpu=1)["ok"]
    holding(pool, 1, "a/b/c")
    assert pool.run(task_id="deep", cmd=["true"], cache_key="a/b/c")["data"]["gpu_id"] == 1
    assert '"cache_bonus":20' in log.read_text().splitlines()[-1]


def test_submit_and_why_speak_of_the_cache(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(CACHE_HEARTBEAT_SEC="0.5")
    pool.start_maestro()
    pool.start_worker(0)
    (pool.gpucache(0) / "m").write_text("m")
    holding(pool, 0, "m")
    pool.bus.submit(task_id="long", cmd=["sleep", "600"])
    pool.wait_state("long", "running")
    ctl(pool, "submit", "--id", "waits", "--cache-key", "m", "--cache-key", "other", "--", "true")
    pool.wait_state("waits", "enqueued")
    told = pool.bus.request("maestro.api.why", {"task_id": "waits"})
    assert told["cards"][0]["cache_bonus"] == 10
    assert "cache" in ctl(pool, "gpus", "show", "0")
    refused = subprocess.run([BIN_DIR / "maestroctl", "submit", "--cache-key", "../x", "--", "true"],
                             env=pool.environment(), capture_output=True, text=True)
    assert refused.returncode == 65 and "cache_key" in refused.stderr
    ctl(pool, "cancel", "long")
