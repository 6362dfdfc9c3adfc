"""A proxy of our own between a program and its server, which can stop the traffic at a named message.

It copies the frames of the NATS protocol one by one. A `Trap` stops a connection at the first frame that fits, before or
after it went on, and tells the test: there the program stands at a point that no clock could hit. `Weather` adds delay, loss
and narrowness. TCP hides a lost segment behind a pause of one retransmission time, doubled for each further loss, so that is what
loss looks like here.
"""

import asyncio
import contextlib
import json
import random
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from harness import DEADLINE, DeadlinePassed

# What Linux waits at least before it sends a lost segment again.
RETRANSMISSION_SEC = 0.2
WITH_PAYLOAD = re.compile(rb"^(PUB|HPUB|MSG|HMSG) ", re.IGNORECASE)


@dataclass(frozen=True)
class Frame:
    """One operation on the wire."""

    verb: str
    subject: str
    reply: str
    payload: bytes
    raw: bytes

    @property
    def to_server(self) -> bool:
        return self.verb in ("PUB", "HPUB")


def parse(line: bytes, body: bytes) -> Frame:
    verb, *fields = line.split()
    name = verb.decode().upper()
    # PUB subject [reply] size; HPUB subject [reply] headers size; MSG and HMSG have the subscription after the subject.
    fixed = 1 + (name in ("MSG", "HMSG"))
    sizes = 1 + (name in ("HPUB", "HMSG"))
    headers = int(fields[-2]) if sizes == 2 else 0
    reply = fields[fixed].decode() if len(fields) == fixed + sizes + 1 else ""
    return Frame(name, fields[0].decode(), reply, body[headers:-2], line + body)


@dataclass(frozen=True)
class Weather:
    """What a bad line does to each frame: seconds of delay, and the chance that its segment is lost. What one connection may
    carry in a second each way, in bytes; 0 for whatever comes."""

    delay: float = 0.0
    loss: float = 0.0
    width: float = 0.0

    def hold_up(self, chance: random.Random) -> float:
        waits = self.delay
        again = RETRANSMISSION_SEC
        while self.loss and chance.random() < self.loss and again < 10:
            waits += again
            again *= 2
        return waits


class Trap:
    """Stops one connection at the first frame that fits, both ways, until `release` or `cut`.

    With `after` the frame itself still goes on, and what follows it does not.
    """

    def __init__(self, fits: Callable[[Frame], bool], after: bool = False):
        self.fits, self.after = fits, after
        self.proxy: "Proxy | None" = None
        self._sprung = threading.Event()

    def spring(self, proxy: "Proxy") -> None:
        self.proxy = proxy
        self._sprung.set()

    @property
    def is_sprung(self) -> bool:
        return self._sprung.is_set()

    def wait(self, deadline: float = DEADLINE) -> "Proxy":
        """The proxy whose program stands at the point now."""
        if not self._sprung.wait(deadline):
            raise DeadlinePassed("no message came to the point where the proxy waits for it")
        assert self.proxy
        return self.proxy


class Direction:
    """What goes one way on a connection: in order, each frame when the weather lets it arrive."""

    ROOM = 1000

    def __init__(self, proxy: "Proxy", writer: asyncio.StreamWriter):
        self.proxy, self.writer = proxy, writer
        self.chance = random.Random(proxy.seed)
        self.due = 0.0
        self.under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(self.ROOM)

    async def send(self, raw: bytes) -> None:
        now = asyncio.get_running_loop().time()
        # One that comes later never overtakes: behind a lost segment everything waits.
        self.due = max(self.due, now + self.proxy.weather.hold_up(self.chance))
        if self.proxy.weather.width:
            self.due += len(raw) / self.proxy.weather.width
        if self.due <= now and self.under_way.empty():
            self.writer.write(raw)
            await self.writer.drain()
        else:
            await self.under_way.put((self.due, raw))

    async def deliver(self) -> None:
        """Sends what was held up, each at its time."""
        while True:
            due, raw = await self.under_way.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            self.writer.write(raw)
            await self.writer.drain()


class Link:
    """One connection of a program through the proxy."""

    def __init__(self, proxy: "Proxy"):
        self.proxy = proxy
        self.open = asyncio.Event()
        self.open.set()
        # What the program calls this connection.
        self.name = ""
        self.tasks: list[asyncio.Task] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.proxy.server_port, limit=1 << 25)
        except OSError:
            return self.cut()
        self.writers.append(server_writer)
        for source, target in ((reader, server_writer), (server_reader, writer)):
            direction = Direction(self.proxy, target)
            self.tasks += [asyncio.ensure_future(self.copy(source, direction)), asyncio.ensure_future(direction.deliver())]
        await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        self.cut()

    async def copy(self, reader: asyncio.StreamReader, direction: Direction) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                if WITH_PAYLOAD.match(line):
                    body = await reader.readexactly(int(line.split()[-1]) + 2)
                    await self.meet(parse(line, body), direction)
                else:
                    if line.startswith(b"CONNECT "):
                        self.name = json.loads(line.removeprefix(b"CONNECT "))["name"]
                    await self.open.wait()
                    await direction.send(line)

    async def meet(self, frame: Frame, direction: Direction) -> None:
        await self.open.wait()
        trap = self.proxy.trap
        if trap is None or trap.is_sprung or not trap.fits(frame):
            return await direction.send(frame.raw)
        self.open.clear()
        if trap.after:
            await direction.send(frame.raw)
        trap.spring(self.proxy)
        await self.open.wait()
        if not trap.after:
            await direction.send(frame.raw)

    def cut(self) -> None:
        for task in self.tasks:
            task.cancel()
        for writer in self.writers:
            writer.transport.abort()
        self.proxy.links.discard(self)


class Proxy:
    """Listens on a port of its own and passes everything on to the server's port."""

    def __init__(self, server_port: int, seed: int = 0):
        self.server_port, self.seed = server_port, seed
        self.trap: Trap | None = None
        self.weather = Weather()
        self.links: set[Link] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="proxy")
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, sock=self._listener, limit=1 << 25))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self)
        self.links.add(link)
        await link.run(reader, writer)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    async def _each(self, what: Callable[[Link], None]) -> None:
        for link in list(self.links):
            what(link)

    def cut(self) -> None:
        """Breaks every connection; what the proxy holds is lost."""
        self._run(self._each(Link.cut))

    def freeze(self, name: str = "") -> None:
        """Keeps everything, both ways, and breaks nothing: a line that has gone silent; all lines, or those of that name."""
        self._run(self._each(lambda link: link.open.clear() if name in ("", link.name) else None))

    def release(self) -> None:
        """Lets go on what is held."""
        self._run(self._each(lambda link: link.open.set()))

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
