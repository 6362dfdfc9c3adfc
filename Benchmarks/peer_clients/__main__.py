"""python -m peer_clients PEER throughput|latency COUNT: prints the figures as JSON."""

import json
import sys
import time
from collections.abc import Callable

from peer_clients import jobs


def timed(one: Callable[[int], None], count: int) -> dict:
    """One job at a time."""
    seconds = []
    for number in range(count):
        began = time.monotonic()
        one(number)
        seconds.append(1e3 * (time.monotonic() - began))
    ordered = sorted(seconds)
    return {"jobs": count, "p50_ms": ordered[count // 2], "p99_ms": ordered[min(count - 1, count * 99 // 100)]}


def figures(count: int, began: float, submitted: float) -> dict:
    return {"jobs": count, "per_second": count / (time.monotonic() - began), "submitted_per_second": count / submitted}


def celery(mode: str, count: int) -> dict:
    from celery.result import ResultSet
    from peer_clients.celery_app import run

    if mode == "latency":
        return timed(lambda _: run.delay().get(timeout=60, interval=0.001), count)
    began = time.monotonic()
    results = ResultSet([run.delay() for _ in range(count)])
    submitted = time.monotonic() - began
    results.join_native(timeout=300)
    return figures(count, began, submitted)


def rq(mode: str, count: int) -> dict:
    import os

    import redis
    from rq import Queue

    connection = redis.Redis(port=int(os.environ["BENCH_REDIS_PORT"]))
    queue = Queue(connection=connection)

    def one(_: int) -> None:
        if queue.enqueue(jobs.run).latest_result(timeout=60) is None:
            raise SystemExit("a job of RQ did not end")

    if mode == "latency":
        return timed(one, count)
    began = time.monotonic()
    last = queue.enqueue_many([Queue.prepare_data(jobs.run) for _ in range(count)])
    submitted = time.monotonic() - began
    for job in last:
        if job.latest_result(timeout=300) is None:
            raise SystemExit("a job of RQ did not end")
    return figures(count, began, submitted)


def nats_py(mode: str, count: int) -> dict:
    import asyncio

    from peer_clients import natspy

    return asyncio.run(natspy.MODES[mode](count))


if __name__ == "__main__":
    peer, chosen, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps({"celery": celery, "rq": rq, "nats-py": nats_py}[peer](chosen, number)))
