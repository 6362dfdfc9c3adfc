"""A pool of real processes for the tests: nats-server, maestro and gpu-worker, and a client that knows only the wire.

Nothing here shares code with the system: subjects, fields and states are those of docs/PROTOCOL.md. Everything waits for
events with a deadline, and nothing sleeps.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.js.api
from nats.js.errors import NotFoundError

TOP = Path(__file__).resolve().parents[2]
BIN_DIR = Path(os.environ.get("BIN_DIR", TOP / ".build/release"))
NATS_SERVER = os.environ.get("NATS_SERVER", "nats-server")

# Generous: a loaded two-core machine must not fail a test that a quick one passes.
DEADLINE = float(os.environ.get("TEST_DEADLINE_SEC", "60"))

TERMINAL = {"done", "failed", "cancelled", "rejected"}


class DeadlinePassed(AssertionError):
    """What a test waited for did not come; the text says what, and what did come."""


# Those that were given out: a server that is not started yet, or is down, keeps its port.
_given_ports: set[int] = set()


def free_port() -> int:
    """A port for a server of this test run. Below those that the system gives to outgoing connections, which could take
    the port of a server while that is down."""
    for port in random.sample(range(16_000, 32_000), 1000):
        if port in _given_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given_ports.add(port)
            return port
    raise AssertionError("no port from 16000 to 31999 is free")


# ----------------------------------------------------------------------------------------------------- processes


class Daemon:
    """A child process whose output is kept, and can be waited for line by line."""

    def __init__(self, name: str, command: list[str | Path], log: Path, environment: dict[str, str] | None = None):
        self.name = name
        self.log = log
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"output of {name}")
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout
        with self.log.open("ab") as log, self.process.stdout as stream:
            for raw in stream:
                log.write(raw)
                log.flush()
                with self._changed:
                    self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for_line(self, pattern: str, deadline: float = DEADLINE) -> str:
        """The first line, from the start on, in which `pattern` is found."""
        expression = re.compile(pattern)

        def found() -> str | None:
            return next((line for line in self.lines if expression.search(line)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, deadline)
            line = found()
        if line is None:
            tail = "\n".join(self.lines[-15:])
            raise DeadlinePassed(f"{self.name}: no line matches {pattern!r}; the last ones:\n{tail}")
        return line

    def kill(self) -> None:
        """SIGKILL, as from a crash."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def pause(self) -> None:
        """SIGSTOP, as of a machine that hangs; returns when it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self, deadline: float = DEADLINE) -> int:
        """SIGTERM; answers the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(deadline)

    def wait(self, deadline: float = DEADLINE) -> int:
        try:
            status = self.process.wait(deadline)
        except subprocess.TimeoutExpired as error:
            raise DeadlinePassed(f"{self.name} (pid {self.pid}) did not end; see {self.log}") from error
        self._reader.join()
        return status

    @property
    def running(self) -> bool:
        return self.process.poll() is None


class Server:
    """A nats-server with JetStream that can be killed and started again on the same port and store.

    `program` may be changed between two starts, and then is what is started next. With a `machine` (netspace.Machine) it
    runs there.
    """

    def __init__(self, directory: Path, settings: str = "", program: str | Path = NATS_SERVER, machine: Any = None):
        self.directory = directory
        self.program = program
        self.machine = machine
        self.port = free_port()
        address = machine.address if machine else "127.0.0.1"
        self.url = f"nats://{address}:{self.port}"
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "server.conf"
        self.config.write_text(
            f'listen: "{address}:{self.port}"\nmax_payload: 16MB\n'
            f'jetstream {{ store_dir: "{directory}/store", max_file_store: 32GB, max_memory_store: 256MB }}\n{settings}\n'
        )
        self.daemon: Daemon | None = None

    def start(self) -> None:
        wrapper = self.machine.wrapper if self.machine else []
        self.daemon = Daemon("nats-server", [*wrapper, self.program, "-c", self.config], self.directory / "server.log")
        self.daemon.wait_for_line("Server is ready")

    def kill(self) -> None:
        if self.daemon:
            self.daemon.kill()

    def stop(self) -> None:
        if self.daemon and self.daemon.running:
            self.daemon.terminate()


# ------------------------------------------------------------------------------------------------------- the bus


@dataclass(frozen=True)
class Message:
    """One message as it came."""

    subject: str
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Events:
    """Every message of one subscription, in order, to be looked through and waited for."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._changed = threading.Condition()

    def add(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def all(self, subject: str = "", **fields: Any) -> list[Message]:
        """Those whose subject starts with `subject` and whose JSON has these fields."""
        with self._changed:
            return [message for message in self._messages if _fits(message, subject, fields)]

    def wait(self, subject: str = "", *, deadline: float = DEADLINE, count: int = 1, **fields: Any) -> Message:
        """The `count`-th of those, once it is there."""
        return self.wait_until(lambda: (self.all(subject, **fields) + [None] * count)[count - 1], deadline,
                               f"{subject} {fields}")

    def wait_until(self, probe: Callable[[], Any], deadline: float = DEADLINE,
                   what: str | Callable[[], str] = "") -> Any:
        """Looks with `probe` after each message until it answers something true."""
        until = time.monotonic() + deadline
        while True:
            with self._changed:
                seen = len(self._messages)
            found = probe()
            if found:
                return found
            with self._changed:
                # A second at most: what the probe reads may change without a message.
                left = until - time.monotonic()
                if left <= 0:
                    break
                if len(self._messages) == seen:
                    self._changed.wait(min(1.0, left))
        tail = "\n".join(f"{one.subject} {one.data[:300]!r}" for one in self.all()[-12:])
        missing = what if isinstance(what, str) else what()
        raise DeadlinePassed(f"waited {deadline:.0f} s for {missing}; the last messages:\n{tail}")

    def wait_for_count(self, count: int, deadline: float = DEADLINE) -> None:
        """Until `count` messages have come, whatever they are: cheap enough for a measurement."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._messages) >= count, deadline):
                raise DeadlinePassed(f"only {len(self._messages)} of {count} messages came in {deadline:.0f} s")


def _fits(message: Message, subject: str, fields: dict[str, Any]) -> bool:
    if not message.subject.startswith(subject):
        return False
    if not fields:
        return True
    try:
        content = message.json
    except ValueError:
        return False
    return isinstance(content, dict) and all(content.get(name) == value for name, value in fields.items())


class Bus:
    """A NATS client for tests: nats-py behind ordinary calls that block."""

    def __init__(self, url: str, machine: Any = None):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="bus")
        self._thread.start()
        if machine:
            self._run(self._move_to(machine))
        self._client = self._run(nats.connect(
            url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1, connect_timeout=5, error_cb=_ignore,
            pending_size=64 * 1024 * 1024,
        ))
        self._jetstream = self._client.jetstream(timeout=10)

    @staticmethod
    async def _move_to(machine: Any) -> None:
        """The thread of this client, where all its sockets are made."""
        machine.enter()

    def _run(self, coroutine: Any, deadline: float = DEADLINE) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(deadline)

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        with contextlib.suppress(Exception):
            self._run(self._client.close(), 10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def subscribe(self, subject: str) -> Events:
        """From now on; the server has the subscription when this returns."""
        events = Events()
        self.listen(subject, events.add)
        return events

    def listen(self, subject: str, take: Callable[[Message], None]) -> None:
        """The same, each message to a function that does not block."""

        async def deliver(message: Any) -> None:
            take(Message(message.subject, message.data, dict(message.headers or {})))

        async def subscribe() -> None:
            subscription = await self._client.subscribe(subject, cb=deliver, pending_msgs_limit=-1, pending_bytes_limit=-1)
            del subscription
            await self._client.flush()

        self._run(subscribe())

    def publish(self, subject: str, content: Any, reply: str = "") -> None:
        """A core publish: nobody says whether anything kept it."""

        async def publish() -> None:
            await self._client.publish(subject, encode(content), reply)
            await self._client.flush()

        self._run(publish())

    def store(
        self, subject: str, content: Any, message_id: str | None = None, deadline: float | None = None
    ) -> nats.js.api.PubAck:
        """A JetStream publish: returns what the stream answered."""
        headers = {"Nats-Msg-Id": message_id} if message_id else None
        return self._run(self._jetstream.publish(subject, encode(content), headers=headers, timeout=deadline))

    def submit(self, **task: Any) -> nats.js.api.PubAck:
        """Submits as a careful client does: with an id, through JetStream."""
        return self.store("gpu.task.enqueue", task, f"sub:{task['task_id']}")

    def store_all(self, subject: str, contents: list[Any], ids: list[str]) -> list[nats.js.api.PubAck]:
        """Many JetStream publishes at once."""

        async def store() -> list[nats.js.api.PubAck]:
            return await asyncio.gather(*(
                self._jetstream.publish(subject, encode(content), headers={"Nats-Msg-Id": message_id})
                for content, message_id in zip(contents, ids, strict=True)
            ))

        return self._run(store())

    def request(self, subject: str, content: Any, deadline: float = 10) -> Any:
        async def request() -> bytes:
            return (await self._client.request(subject, encode(content), timeout=deadline)).data

        return json.loads(self._run(request()))

    def last(self, stream: str, subject: str) -> tuple[int, Any] | None:
        """The sequence and content of the newest message of a subject, by the stream's leader; None if there is none."""
        try:
            message = self._run(self._jetstream.get_last_msg(stream, subject))
        except NotFoundError:
            return None
        return message.seq, json.loads(message.data)

    def every(self, stream: str, subject: str) -> list[Message]:
        """All that a stream holds of a subject, oldest first."""

        if self.last(stream, subject) is None:
            return []

        async def read() -> list[Message]:
            subscription = await self._jetstream.subscribe(subject, stream=stream, ordered_consumer=True,
                                                           pending_msgs_limit=-1, pending_bytes_limit=-1)
            found: list[Message] = []
            pending = 1
            while pending:
                message = await subscription.next_msg(timeout=30)
                found.append(Message(message.subject, message.data, dict(message.headers or {})))
                pending = message.metadata.num_pending
            await subscription.unsubscribe()
            return found

        return self._run(read(), 300)

    def count(self, stream: str) -> int:
        """How many messages a stream holds."""
        return self._run(self._jetstream.stream_info(stream)).state.messages

    def api(self, verb: str, content: Any = None, deadline: float = 10) -> Any:
        """A raw JetStream API request."""
        return self.request(f"$JS.API.{verb}", content or {}, deadline)


def encode(content: Any) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


async def _ignore(_: Exception) -> None:
    """Lost connections are part of the tests; nats-py reconnects by itself."""


# ------------------------------------------------------------------------------------------------------ the pool


class Pool:
    """A server, maestros and workers in a directory of their own, and a bus that listens to everything."""

    # Short, so that losses are found quickly; every test may override them.
    SETTINGS = {"HEARTBEAT_SEC": "1", "METRICS_SEC": "1", "HEARTBEAT_TTL_SEC": "4", "METRICS_TTL_SEC": "4",
                "LEASE_SEC": "2", "RETRY_BACKOFF_SEC": "0.1", "KILL_GRACE_SEC": "1", "RESULTS_LAG_SEC": "0"}

    def __init__(self, directory: Path, server: Any = None, **settings: Any):
        self.directory = directory
        self.settings = self.SETTINGS | {name: str(value) for name, value in settings.items()}
        self.server = server or Server(directory / "nats")
        self.server.start()
        self.bus = Bus(self.server.url, getattr(self.server, "machine", None))
        self.events = self.bus.subscribe("gpu.>")
        self.maestro_events = self.bus.subscribe("maestro.>")
        self.maestros: list[Daemon] = []
        self.workers: dict[str, Daemon] = {}

    def environment(self, **more: Any) -> dict[str, str]:
        """What a process of the pool gets: nothing of the tester's own settings."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return kept | {"NATS_URL": self.server.url} | self.settings | {name: str(value) for name, value in more.items()}

    def gpucache(self, gpu: Any) -> Path:
        """The cache directory of a card."""
        return self.directory / "gpucache" / f"gpu{gpu}"

    def start_maestro(
        self, *arguments: str, leading: bool = True, wrapper: Sequence[str] = (), **settings: Any
    ) -> Daemon:
        """`wrapper` is a command that becomes the program, such as `ip netns exec NAME`."""
        seen = len(self.maestro_events.all("maestro.state", event="leading")) if leading else 0
        config = self.directory / "maestro.conf"
        config.touch()
        maestro = Daemon(
            f"maestro {len(self.maestros)}", [*wrapper, BIN_DIR / "maestro", *arguments],
            self.directory / f"maestro-{len(self.maestros)}.log", self.environment(MAESTRO_CONF=config, **settings),
        )
        self.maestros.append(maestro)
        if leading:
            self.maestro_events.wait("maestro.state", event="leading", count=seen + 1)
        return maestro

    def start_worker(
        self, gpu: Any = 0, *arguments: str, wait: bool = True, wrapper: Sequence[str] = (), **settings: Any
    ) -> Daemon:
        seen = len(self.events.all("gpu.worker.up", gpu_id=gpu)) if wait else 0
        roots = {
            "MERGE_ROOT": self.directory / "gpucache", "BASE_ROOT": self.directory / "base",
            "RAM_ROOT": self.directory / "ram", "LOG_ROOT": self.directory / "logs",
        }
        for root in roots.values():
            root.mkdir(exist_ok=True)
        roots |= settings
        worker = Daemon(
            f"gpu-worker {gpu}", [*wrapper, BIN_DIR / "gpu-worker", *arguments], self.directory / f"worker-{gpu}.log",
            self.environment(GPU_ID=gpu, **roots),
        )
        self.workers[str(gpu)] = worker
        if wait:
            self.events.wait("gpu.worker.up", gpu_id=gpu, count=seen + 1)
        return worker

    def stop_programs(self) -> None:
        """Ends maestros and workers in order."""
        for daemon in [*self.workers.values(), *self.maestros]:
            if daemon.running:
                daemon.resume()
                daemon.process.terminate()
        for daemon in [*self.workers.values(), *self.maestros]:
            try:
                daemon.wait(20)
            except DeadlinePassed:
                daemon.kill()

    def close(self) -> None:
        self.stop_programs()
        self.bus.close()
        self.server.stop()

    # What a client sees of a job

    def record(self, task_id: str) -> dict | None:
        found = self.bus.last("ORG_JOBS", f"gpu.task.state.{task_id}")
        return found[1] if found else None

    def wait_state(self, task_id: str, *states: str, deadline: float = DEADLINE) -> dict:
        """The record once it is in one of these states (default: any terminal one)."""
        wanted = set(states) or TERMINAL

        def probe() -> dict | None:
            record = self.record(task_id)
            return record if record and record["state"] in wanted else None

        return self.events.wait_until(
            probe, deadline, lambda: f"job {task_id} to be {' or '.join(sorted(wanted))}; its record: {self.record(task_id)}")

    def wait_result(self, task_id: str, deadline: float = DEADLINE) -> dict:
        """The result event, read from the stream."""

        def probe() -> tuple[int, dict] | None:
            return self.bus.last("ORG_EVENTS", f"gpu.task.result.{task_id}")

        return self.events.wait_until(
            probe, deadline, lambda: f"the result of {task_id}; its record: {self.record(task_id)}")[1]

    def run(self, deadline: float = DEADLINE, **task: Any) -> dict:
        """Submits and answers the result."""
        self.bus.submit(**task)
        return self.wait_result(task["task_id"], deadline)

    def wait_empty(self, deadline: float = DEADLINE) -> None:
        """Until nothing is left to admit or to run."""
        self.events.wait_until(
            lambda: self.bus.count("ORG_WQ") == 0 and self.bus.count("ORG_RUN") == 0, deadline, "empty ORG_WQ and ORG_RUN")


@contextlib.contextmanager
def pool(directory: Path, **settings: Any) -> Iterator[Pool]:
    made = Pool(directory, **settings)
    try:
        yield made
    finally:
        made.close()


# ------------------------------------------------------------------------------------------------- what jobs leave


def process_alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not: it only waits for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def wait_gone(pid: int, deadline: float = DEADLINE) -> None:
    """Until a process that is not ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([descriptor], [], [], deadline)[0]:
            raise DeadlinePassed(f"process {pid} still runs: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
    finally:
        os.close(descriptor)


class Pipe:
    """A named pipe through which a job tells the test something: `echo started > PIPE`."""

    def __init__(self, path: Path):
        os.mkfifo(path)
        self.path = path
        # Open for writing too, so that the pipe does not end with its first writer.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def line(self, deadline: float = DEADLINE) -> str:
        """The next line."""
        until = time.monotonic() + deadline
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                raise DeadlinePassed(f"no job wrote a line into {self.path}")
            self._rest += os.read(self._descriptor, 65536)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        os.close(self._descriptor)

    def __str__(self) -> str:
        return str(self.path)
