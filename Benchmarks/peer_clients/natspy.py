"""The obvious Python version of this system: a work queue, pull consumers, results as events. No records, no fencing."""

import asyncio
import json
import os
import time

import nats
from nats.errors import TimeoutError as NoMessages
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig


async def connect() -> tuple:
    client = await nats.connect(os.environ["BENCH_NATS_URL"], pending_size=64 * 1024 * 1024)
    return client, client.jetstream(timeout=30)


async def prepare(_: int) -> dict:
    client, stream = await connect()
    await stream.add_stream(StreamConfig(name="PEER_WQ", subjects=["peer.task"], retention=RetentionPolicy.WORK_QUEUE))
    await stream.add_stream(StreamConfig(name="PEER_RESULTS", subjects=["peer.result.*"]))
    await stream.add_consumer("PEER_WQ", ConsumerConfig(durable_name="workers", ack_policy=AckPolicy.EXPLICIT,
                                                        max_ack_pending=1000))
    await client.close()
    return {}


async def worker(slots: int) -> dict:
    """Runs until it is killed: each slot takes a job, runs it, tells its result, acknowledges it."""
    _, stream = await connect()

    async def slot() -> None:
        subscription = await stream.pull_subscribe_bind("workers", "PEER_WQ")
        while True:
            try:
                message, = await subscription.fetch(1, timeout=30)
            except NoMessages:
                continue
            task = json.loads(message.data)
            process = await asyncio.create_subprocess_exec(*task["cmd"], stdout=asyncio.subprocess.PIPE,
                                                           stderr=asyncio.subprocess.PIPE)
            output, errors = await process.communicate()
            result = {"task_id": task["task_id"], "ok": process.returncode == 0, "stdout": output.decode(),
                      "stderr": errors.decode(), "ts": time.time()}
            await stream.publish(f"peer.result.{task['task_id']}", json.dumps(result).encode())
            await message.ack_sync()

    await asyncio.gather(*(slot() for _ in range(slots)))
    return {}


async def collect(client) -> asyncio.Queue:
    results: asyncio.Queue = asyncio.Queue()

    async def take(message) -> None:
        results.put_nowait(json.loads(message.data)["ok"])

    await client.subscribe("peer.result.*", cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    return results


def task(number: int) -> bytes:
    return json.dumps({"task_id": f"{os.getpid()}-{number}", "cmd": ["/bin/true"]}).encode()


async def throughput(count: int) -> dict:
    client, stream = await connect()
    results = await collect(client)
    began = time.monotonic()
    for start in range(0, count, 500):
        await asyncio.gather(*(stream.publish("peer.task", task(number)) for number in range(start, min(count, start + 500))))
    submitted = time.monotonic() - began
    for _ in range(count):
        await asyncio.wait_for(results.get(), 300)
    elapsed = time.monotonic() - began
    await client.close()
    return {"jobs": count, "per_second": count / elapsed, "submitted_per_second": count / submitted}


async def latency(count: int) -> dict:
    client, stream = await connect()
    results = await collect(client)
    seconds = []
    for number in range(count):
        began = time.monotonic()
        await stream.publish("peer.task", task(number))
        await asyncio.wait_for(results.get(), 60)
        seconds.append(1e3 * (time.monotonic() - began))
    await client.close()
    ordered = sorted(seconds)
    return {"jobs": count, "p50_ms": ordered[count // 2], "p99_ms": ordered[min(count - 1, count * 99 // 100)]}


MODES = {"prepare": prepare, "worker": worker, "throughput": throughput, "latency": latency}
