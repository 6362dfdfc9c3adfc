"""Everything that is done to a running pool: each fault strikes one part, and is healed some time later."""

import base64
import heapq
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout

import nats.errors
import nats.js.errors
from harness import Daemon, Message, Pool
from recovery import Start, Stopwatch, Stopwatches
from server_cluster import ServerCluster

# What a question to a server in trouble may end with.
NO_ANSWER = (nats.errors.Error, nats.js.errors.Error, FutureTimeout)


class Faults:
    """Strikes the parts of a pool, never one that is down already, and heals them when their time has come."""

    def __init__(self, pool: Pool, watches: Stopwatches, chance: random.Random, start_worker: Callable[[str], Daemon],
                 start_maestro: Callable[[], Daemon], maestros: list[Daemon]):
        self.pool, self.watches, self.chance = pool, watches, chance
        self.start_worker, self.start_maestro, self.maestros = start_worker, start_maestro, maestros
        self.struck: Counter[str] = Counter()
        self.heartbeat_ttl = float(pool.settings["HEARTBEAT_TTL_SEC"])
        self.lease = float(pool.settings["LEASE_SEC"])
        self._down: set[str] = set()
        self._healings: list[tuple[float, int, str, Callable[[], None]]] = []
        self._number = itertools.count()

    @property
    def names(self) -> dict[str, Callable[[], bool]]:
        """The faults that this pool can have. Each answers false when it cannot strike now."""
        common = {
            "worker killed": self.kill_worker, "host dead": self.kill_host, "worker hung": self.hang_worker,
            "leader killed": self.kill_leader, "leader hung": self.hang_leader, "standby killed": self.kill_standby,
        }
        if isinstance(self.pool.server, ServerCluster):
            return common | {"leading server killed": self.kill_leading_node, "server killed": self.kill_any_node,
                             "server hung": self.hang_any_node}
        return common | {"server killed": self.kill_server, "server hung": self.hang_server}

    def strike(self, name: str) -> bool:
        try:
            struck = self.names[name]()
        except NO_ANSWER:
            return False  # the server, which is down, has to say whom to strike
        if struck:
            self.struck[name] += 1
        return struck

    # Healing

    def _strike(self, part: str, heal_after: float, heal: Callable[[], None]) -> None:
        self._down.add(part)
        heapq.heappush(self._healings, (time.monotonic() + heal_after, next(self._number), part, heal))

    def heal_due(self) -> float:
        """Heals what is due; answers how long until the next is."""
        while self._healings and self._healings[0][0] <= time.monotonic():
            _, _, part, heal = heapq.heappop(self._healings)
            heal()
            self._down.discard(part)
        return max(0.0, self._healings[0][0] - time.monotonic()) if self._healings else float("inf")

    def heal_all(self) -> None:
        while self._healings:
            _, _, part, heal = heapq.heappop(self._healings)
            heal()
            self._down.discard(part)

    # Workers

    def _worker(self) -> str | None:
        free = [gpu for gpu in self.pool.workers if f"worker {gpu}" not in self._down]
        for gpu in free:
            worker = self.pool.workers[gpu]
            assert worker.running, f"worker {gpu} ended by itself ({worker.process.returncode}): {worker.lines[-1:]}"
        # One must be left, or a job that lost its card waits for nothing but the healing.
        return self.chance.choice(free) if len(free) > 1 else None

    def kill_worker(self) -> bool:
        if (gpu := self._worker()) is None:
            return False
        victims = self.watches.on_card(gpu)
        self.pool.workers[gpu].kill()

        def restart() -> None:
            self.start_worker(gpu)
            self.watches.begin(Stopwatch(
                "worker killed: its restart, its job runs again", time.monotonic(),
                on_start=lambda start: start.task_id in victims if victims else start.gpu == gpu))

        self._strike(f"worker {gpu}", self.chance.uniform(0, 0.5), restart)
        return True

    def kill_host(self) -> bool:
        """A worker that does not come back before it is given up."""
        if (gpu := self._worker()) is None:
            return False
        victims = self.watches.on_card(gpu)
        self.pool.workers[gpu].kill()
        if victims:
            self.watches.begin(Stopwatch("host dead: its death, its job runs elsewhere", time.monotonic(),
                                         on_start=lambda start: start.task_id in victims))
        self._strike(f"worker {gpu}", self.heartbeat_ttl + 2, lambda: self.start_worker(gpu))
        return True

    def hang_worker(self) -> bool:
        """SIGSTOP for less or more time than it may be silent."""
        if (gpu := self._worker()) is None:
            return False
        worker = self.pool.workers[gpu]
        worker.pause()

        def resume() -> None:
            worker.resume()
            self.watches.begin(Stopwatch("worker hung: SIGCONT, it runs a job", time.monotonic(),
                                         on_start=lambda start: start.gpu == gpu))

        self._strike(f"worker {gpu}", self.chance.uniform(1, 2 * self.heartbeat_ttl), resume)
        return True

    # Maestros

    def _leader(self) -> Daemon | None:
        """The maestro that the lease names, unless it is down, or the server that has to say so."""
        if "server" in self._down and not isinstance(self.pool.server, ServerCluster):
            return None
        answer = self.pool.bus.api("STREAM.MSG.GET.ORG_CTL", {"last_by_subj": "gpu.ctl.leader"}, deadline=1)
        if "message" not in answer:
            return None
        pid = json.loads(base64.b64decode(answer["message"]["data"]))["pid"]
        return next((one for one in self.maestros if one.pid == pid and f"maestro {pid}" not in self._down), None)

    def _scheduling(self, fault: str) -> None:
        """Times how long it takes until another leader has scheduled a job."""
        leading = []

        def proves(message: Message) -> bool:
            if message.subject == "maestro.state":
                leading.extend([message] * (message.json.get("event") == "leading"))
                return False
            return bool(leading) and message.json["state"] == "scheduled"

        self.watches.begin(Stopwatch(fault, time.monotonic(), on_message=proves))

    def kill_leader(self) -> bool:
        if len(self.maestros) < 2 or (leader := self._leader()) is None:
            return False
        self._replace(leader)
        self._scheduling("leader killed: its death, another one schedules")
        return True

    def kill_standby(self) -> bool:
        leader = self._leader()
        others = [one for one in self.maestros if one is not leader and f"maestro {one.pid}" not in self._down]
        if leader is None or not others:
            return False
        self._replace(self.chance.choice(others))
        return True

    def _replace(self, maestro: Daemon) -> None:
        maestro.kill()
        self.maestros.remove(maestro)
        self._strike(f"maestro {maestro.pid}", self.chance.uniform(0, 2),
                     lambda: self.maestros.append(self.start_maestro()))

    def hang_leader(self) -> bool:
        """SIGSTOP for less or more time than the lease."""
        if len(self.maestros) < 2 or (leader := self._leader()) is None:
            return False
        leader.pause()
        pause = self.chance.uniform(0.5, 3 * self.lease)
        if pause > self.lease + 2:
            self._scheduling("leader hung: SIGSTOP, another one schedules")
        self._strike(f"maestro {leader.pid}", pause, leader.resume)
        return True

    # One server

    def _work_flows(self, fault: str) -> None:
        self.watches.begin(Stopwatch(fault, time.monotonic(), on_start=lambda start: isinstance(start, Start)))

    def kill_server(self) -> bool:
        if "server" in self._down:
            return False
        self.pool.server.kill()

        def restart() -> None:
            self.pool.server.start()
            self._work_flows("server killed: it is ready, a job begins")

        self._strike("server", self.chance.uniform(0, 1), restart)
        return True

    def hang_server(self) -> bool:
        if "server" in self._down:
            return False
        server = self.pool.server.daemon
        server.pause()

        def resume() -> None:
            server.resume()
            self._work_flows("server hung: SIGCONT, a job begins")

        self._strike("server", self.chance.uniform(0.5, 4), resume)
        return True

    # A cluster of servers: one of its nodes at a time

    def _leading_node(self) -> str | None:
        return self.pool.server.leader_of(self.pool.bus, "ORG_JOBS")

    def kill_leading_node(self) -> bool:
        """The node that leads the stream of the records: what every step of a job waits for."""
        if "server" in self._down or (name := self._leading_node()) is None:
            return False
        self._kill_node(name, "leading server killed: its death, a job begins")
        return True

    def kill_any_node(self) -> bool:
        if "server" in self._down:
            return False
        self._kill_node(self.chance.choice(ServerCluster.NAMES), "any server killed: its death, a job begins")
        return True

    def _kill_node(self, name: str, fault: str) -> None:
        self.pool.server.kill(name)
        self._work_flows(fault)
        self._strike("server", self.chance.uniform(1, 4), lambda: self.pool.server.start_node(name))

    def hang_any_node(self) -> bool:
        if "server" in self._down:
            return False
        node = self.pool.server.nodes[self.chance.choice(ServerCluster.NAMES)]
        node.pause()
        self._work_flows("any server hung: SIGSTOP, a job begins")
        self._strike("server", self.chance.uniform(1, 6), node.resume)
        return True
