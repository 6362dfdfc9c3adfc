"""Compares what jobs did with what the streams say of them. Knows the wire contract, and nothing of the system's code.

* every submission has one record, in a terminal state that fits what the job was, and exactly one result that agrees;
* every start belongs to an attempt of its own, no two attempts of a job overlap, and there are no more starts than the
  record counts; each start after the first is explained by a loss or a failed attempt that was told;
* nothing is left in ORG_WQ and ORG_RUN, and no process of a job is left;
* the directory of each job that was done is that of the accepted attempt, and no worker has an attempt open.
"""

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness import Pool, process_alive
from workload import Plan


@dataclass
class Evidence:
    """All that is known of one job."""

    records: list[dict] = field(default_factory=list)
    results: list[dict] = field(default_factory=list)
    done: list[dict] = field(default_factory=list)
    errors: list[dict] = field(default_factory=list)
    marks: list[tuple[str, str]] = field(default_factory=list)  # attempt, and start or end

    @property
    def record(self) -> dict:
        return self.records[-1]

    @property
    def starts(self) -> list[str]:
        return [attempt for attempt, what in self.marks if what == "start"]

    @property
    def told_lost(self) -> set[str]:
        return {error["attempt_id"] for error in self.errors if error["code"] in ("lost", "drained")}

    @property
    def told_failed(self) -> set[str]:
        return {error["attempt_id"] for error in self.errors if error.get("will_retry")} - self.told_lost


def gather(pool: Pool, marks: Path) -> dict[str, Evidence]:
    """What streams and marks hold, by job."""
    found: dict[str, Evidence] = defaultdict(Evidence)
    for message in pool.bus.every("ORG_JOBS", "gpu.task.state.*"):
        found[message.subject.rpartition(".")[2]].records.append(message.json)
    for message in pool.bus.every("ORG_EVENTS", "gpu.task.result.*"):
        found[message.subject.rpartition(".")[2]].results.append(message.json)
    for message in pool.bus.every("ORG_EVENTS", "gpu.task.done"):
        found[message.json["task_id"]].done.append(message.json)
    for message in pool.bus.every("ORG_EVENTS", "gpu.task.err"):
        found[message.json["task_id"]].errors.append(message.json)
    for line in marks.read_text().splitlines():
        task_id, attempt, _, what = line.split()
        found[task_id].marks.append((attempt, what))
    return found


def judge(pool: Pool, plans: list[Plan], marks: Path) -> list[str]:
    """Every way in which marks, records, events and results disagree; none is what we want to see."""
    evidence = gather(pool, marks)
    faults = [f"{task_id}: a record that nobody submitted" for task_id in evidence.keys() - {one.task_id for one in plans}]
    for one in plans:
        faults += [f"{one.task_id} ({one.kind}): {fault}" for fault in job_faults(one, evidence[one.task_id])]
    states = Counter(one.record["state"] for one in evidence.values() if one.records)
    if sum(states.values()) != len(plans):
        faults.append(f"{len(plans)} submitted, but {sum(states.values())} ended: {dict(states)}")
    for stream in ("ORG_WQ", "ORG_RUN"):
        if left := pool.bus.count(stream):
            faults.append(f"{left} messages are left in {stream}")
    print(f"ended: {dict(sorted(states.items()))}; lost attempts {sum(one.record['lost'] for one in evidence.values() if one.records)}; "
          f"starts {sum(len(one.starts) for one in evidence.values())}", flush=True)
    return faults


def judge_machine(pool: Pool, plans: list[Plan], marks: Path) -> list[str]:
    """What the workers left on their disks and among the processes; to be asked when they were stopped in order."""
    faults = [f"process {pid} of a job still runs: {command}" for pid, command in leftovers(marks)]
    for machine in pool.directory.glob("logs/gpu*"):
        lines = [json.loads(line) for file in machine.glob("attempts-*.jsonl") for line in file.read_text().splitlines() if line]
        closed = {line["attempt_id"] for line in lines if line.get("closed")}
        faults += [f"attempt {attempt} of {machine.name} is open" for attempt in {line["attempt_id"] for line in lines} - closed]
    known = {one.task_id for one in plans}
    faults += [f"{place}: the directory of no job" for place in pool.directory.glob("gpucache/gpu*/tasks/*")
               if place.name not in known]
    return faults


def directory_faults(pool: Pool, plans: list[Plan]) -> list[str]:
    """Jobs whose record names an attempt that is not the one which left its token in their directory."""
    faults = []
    for one in plans:
        record = pool.record(one.task_id)
        if not record or record["state"] != "done":
            continue
        token = pool.gpucache(record["gpu"]) / "tasks" / one.task_id / "attempt"
        left = token.read_text().strip() if token.exists() else "nothing"
        if left != record["attempt_id"]:
            faults.append(f"{one.task_id}: done by attempt {record['attempt_id']}, its directory holds {left}")
    return faults


def job_faults(one: Plan, seen: Evidence) -> Iterator[str]:
    if len(seen.records) != 1:
        yield f"{len(seen.records)} records; {len(seen.marks)} marks"
        return
    yield from _result_faults(one, seen)
    yield from _start_faults(seen)
    yield from _end_faults(one, seen)


def _result_faults(one: Plan, seen: Evidence) -> Iterator[str]:
    record, state, tries = seen.record, seen.record["state"], seen.record["tries"]
    # A job that lost its worker too often may fail for that; it must say so.
    if state not in one.allowed and not (state == "failed" and record["outcome"]["code"] == "lost"):
        yield f"ended {state}: {record}"
    if len(seen.results) != 1:
        yield f"{len(seen.results)} results"
    elif (seen.results[0]["state"], seen.results[0]["tries"]) != (state, tries) or seen.results[0]["ok"] != (state == "done"):
        yield f"the result says {seen.results[0]['state']} after {seen.results[0]['tries']}, the record {state} after {tries}"


def _start_faults(seen: Evidence) -> Iterator[str]:
    starts, record = seen.starts, seen.record
    if len(set(starts)) != len(starts):
        yield f"an attempt started twice: {starts}"
    if len(starts) > record["tries"]:
        yield f"{len(starts)} starts, but {record['tries']} attempts in the record"
    order = [attempt for attempt, _ in seen.marks]
    if order != sorted(order, key=order.index):
        yield f"two attempts overlapped: {seen.marks}"
    if len(starts) - 1 > record["lost"] + len(seen.told_failed):
        yield f"{len(starts)} starts, explained are {record['lost']} losses and {len(seen.told_failed)} failures"
    for attempt in starts[:-1]:
        if attempt not in seen.told_lost | seen.told_failed:
            yield f"attempt {attempt} was followed by another, and no event says why"


def _end_faults(one: Plan, seen: Evidence) -> Iterator[str]:
    record, state = seen.record, seen.record["state"]
    own = record["tries"] - record["lost"]
    if state == "done":
        if (record["attempt_id"], "end") not in seen.marks:
            yield f"done by attempt {record['attempt_id']}, which did not come to its end: {seen.marks}"
        if {event["attempt_id"] for event in seen.done} != {record["attempt_id"]}:
            yield f"gpu.task.done of {[event['attempt_id'] for event in seen.done]}, the record names {record['attempt_id']}"
        # When its first attempt was lost instead of failing, the next one succeeds at once.
        failed_once = one.kind == "fails_once" and any(error["code"] == "exit" for error in seen.errors)
        if own - 1 != failed_once:
            yield f"{own - 1} failures in the record"
    elif seen.done:
        yield f"gpu.task.done of a job that ended {state}"
    if state == "failed" and record["outcome"]["code"] != "lost" and own != 3:
        yield f"failed after {own} attempts of its own instead of 3"
    if state == "rejected" and seen.marks:
        yield "rejected, but it ran"


def leftovers(marks: Path) -> list[tuple[int, str]]:
    """Processes that still mention the file of marks."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                command = (directory / "cmdline").read_bytes()
                if str(marks).encode() in command and process_alive(int(directory.name)):
                    found.append((int(directory.name), command.replace(b"\0", b" ").decode(errors="replace")[:200]))
    return found
