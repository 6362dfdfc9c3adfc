"""The points between two steps of a job at which a crash hurts most, each named by the message that marks it.

A proxy stands between each program and the server (wireproxy.py). It holds the message of a point, before or after it went
on, and so the program stands still there: no clock decides, and the program knows nothing of it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from wireproxy import Frame


@dataclass(frozen=True)
class Point:
    """Where a program stands when `fits` matches; `after`: when that message went on and nothing else did."""

    name: str
    program: str  # maestro or worker
    fits: Callable[[Frame], bool]
    after: bool = False
    # What the record must say before the blow, where the server has to have stored it first.
    stored: str | None = None


def writes(state: str) -> Callable[[Frame], bool]:
    """The write of a revision in this state."""
    return lambda frame: (frame.to_server and frame.subject.startswith("gpu.task.state.")
                          and json.loads(frame.payload)["state"] == state)


def delivers(stream: str) -> Callable[[Frame], bool]:
    """The server hands out a message of a stream, to be acked."""
    return lambda frame: not frame.to_server and frame.reply.startswith(f"$JS.ACK.{stream}.")


def acks(stream: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.to_server and frame.subject.startswith(f"$JS.ACK.{stream}.") and frame.payload == b"+ACK"


def publishes(subject: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.to_server and frame.subject.startswith(subject)


POINTS = [
    Point("after enqueue", "maestro", delivers("ORG_WQ")),
    Point("admitted, before the ack of the submission", "maestro", acks("ORG_WQ")),
    Point("between the schedule and the run message", "maestro", publishes("gpu.task.run.")),
    Point("dispatched, before the claim", "worker", delivers("ORG_RUN")),
    Point("between claim and spawn", "worker", writes("running"), after=True, stored="running"),
    Point("between exit and commit", "worker", writes("done")),
    Point("between commit and the events", "worker", writes("done"), after=True, stored="done"),
    Point("between the events and the result", "worker", publishes("gpu.task.result.")),
    Point("between commit and ack", "worker", acks("ORG_RUN")),
]
