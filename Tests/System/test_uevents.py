"""Messages about devices through a real netlink socket, in a network namespace where nobody else hears them."""

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from harness import BIN_DIR

# The multicast groups, and the socket that hears both.
KERNEL, UDEV = 1, 2
NETLINK_KOBJECT_UEVENT = 15
PATH = "/devices/pci0000:00/0000:00:01.0/0000:03:00.0/drm/card5"


def properties(*more: str) -> bytes:
    return b"".join(one.encode() + b"\0" for one in ("ACTION=change", f"DEVPATH={PATH}", "SUBSYSTEM=drm", *more))


def kernel(*more: str) -> bytes:
    return f"change@{PATH}".encode() + b"\0" + properties(*more)


def udev(*more: str) -> bytes:
    body = properties(*more)
    return b"libudev\0" + struct.pack("!I", 0xFEEDCAFE) + struct.pack("=III", 40, 40, len(body)) + bytes(16) + body


def converse() -> None:
    """Runs in the namespace: sends, and prints what the program under test has heard."""
    sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)
    sender.bind((0, 0))
    probe = subprocess.Popen([str(BIN_DIR / "GPUProbe"), "uevents"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True)
    assert probe.stdin and probe.stdout
    assert probe.stdout.readline() == "listening\n"

    def heard() -> list:
        probe.stdin.write("\n")
        probe.stdin.flush()
        return json.loads(probe.stdout.readline())

    told: dict[str, list] = {"silence": heard()}
    sender.sendto(kernel("WEDGED=rebind,bus-reset"), (0, KERNEL))
    told["kernel"] = heard()
    sender.sendto(udev("WEDGED=none"), (0, UDEV))
    sender.sendto(kernel("HOTPLUG=1"), (0, KERNEL))
    told["udev and another"] = heard()
    for nonsense in (b"\0", b"change@", bytes(range(256)) * 20, udev("WEDGED=none")[:30]):
        sender.sendto(nonsense, (0, KERNEL))
    # To the program alone, by no group: anybody could send that. The kernel gives a process's first socket its pid.
    sender.sendto(kernel("WEDGED=rebind"), (probe.pid, 0))
    sender.sendto(kernel("WEDGED=none"), (0, KERNEL))
    told["nonsense, a forgery, and one that counts"] = heard()
    # More than the socket holds: what is lost is lost, and the next ones are heard.
    for _ in range(5000):
        sender.sendto(kernel("WEDGED=none"), (0, KERNEL))
    while heard():
        pass
    sender.sendto(kernel("WEDGED=rebind"), (0, KERNEL))
    told["after a storm"] = heard()
    probe.stdin.close()
    print(json.dumps(told | {"status": probe.wait(30)}))


def test_a_wedged_card_is_heard_of_through_a_real_socket():
    # A user who is not root is root in a user namespace of its own, where the machine allows that.
    namespace = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-n"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine gives no network namespace to this user")
    ran = subprocess.run([*namespace, sys.executable, Path(__file__)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    card = {"action": "change", "pci": "0000:03:00.0"}
    recovered, wedged = card | {"severity": "probation"}, card | {"severity": "quarantine"}
    assert json.loads(ran.stdout) == {
        "silence": [], "kernel": [wedged], "udev and another": [recovered, card],
        "nonsense, a forgery, and one that counts": [recovered], "after a storm": [wedged], "status": 0,
    }


if __name__ == "__main__":
    converse()
