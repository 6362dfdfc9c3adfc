"""Network namespaces: machines of our own, joined by cables that can be pulled.

A pulled cable drops what is on it without a word, as a dead switch does: nobody's connection is reset. Needs root, and a
kernel that lets it make namespaces.
"""

import ctypes
import itertools
import os
import subprocess

CLONE_NEWNET = 0x40000000
_number = itertools.count()


def obstacle() -> str | None:
    """Why no namespaces can be made here; None if they can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    return f"this kernel makes no network namespaces: {tried.stderr.strip()}" if tried.returncode else None


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class Machine:
    """A namespace with one address, on one cable."""

    def __init__(self, switch: "Switch", number: int):
        self.switch = switch
        self.namespace = f"{switch.namespace}-{number}"
        self.address = f"10.77.0.{number}"
        self.port = f"port{number}"
        ip("netns", "add", self.namespace)
        ip("-n", switch.namespace, "link", "add", self.port, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("-n", switch.namespace, "link", "set", self.port, "master", "bridge", "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", device, "up")

    @property
    def wrapper(self) -> list[str]:
        """What runs a command on this machine, as the command's own process."""
        return ["ip", "netns", "exec", self.namespace]

    def enter(self) -> None:
        """Moves the calling thread here, and the sockets that it opens from now on."""
        descriptor = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {self.namespace}")
        finally:
            os.close(descriptor)

    def pull(self) -> None:
        """Its cable: nothing goes in or out."""
        ip("-n", self.switch.namespace, "link", "set", self.port, "down")

    def plug(self) -> None:
        ip("-n", self.switch.namespace, "link", "set", self.port, "up")


class Switch:
    """What the cables of the machines run to; itself a namespace, so that this machine's network is left alone."""

    def __init__(self) -> None:
        self.namespace = f"mt{os.getpid()}n{next(_number)}"
        self.machines: list[Machine] = []
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.namespace, "link", "set", "bridge", "up")

    def machine(self) -> Machine:
        self.machines.append(Machine(self, len(self.machines) + 1))
        return self.machines[-1]

    def close(self) -> None:
        for namespace in [*(machine.namespace for machine in self.machines), self.namespace]:
            ip("netns", "del", namespace)
