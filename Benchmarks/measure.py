"""What is measured of processes, and how repeated figures are summed up."""

import statistics
import time
from collections.abc import Iterable
from pathlib import Path


def spread(values: Iterable[float]) -> dict:
    """The median of the rounds, with the lowest and highest: rounds differ, and a mean hides that."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "low": ordered[0], "high": ordered[-1], "rounds": ordered}


def ratios(ours: list[float], theirs: list[float]) -> dict:
    """Round by round, so that what slows a whole round down does not count."""
    return spread(one / other for one, other in zip(ours, theirs, strict=True) if other > 0)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, by its own clock (clock_getcpuclockid(3)); the children that
    it has waited for are left out."""
    return time.clock_gettime((~pid << 3) | 2)


def memory_mb(pid: int) -> dict:
    """Resident, its own part (what no other process shares), proportional (shared pages divided), and what no file backs."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) / 1024
    return {"resident_mb": fields["Rss"], "private_mb": fields["Private_Clean"] + fields["Private_Dirty"],
            "proportional_mb": fields["Pss"], "anonymous_mb": fields["Anonymous"]}


def children(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except FileNotFoundError:
                continue
    return found


def idle_share(pids: list[int], seconds: float) -> dict[int, float]:
    """The share of one processor that each process takes while nothing happens. The one wait that is a measurement."""
    before = {pid: cpu_seconds(pid) for pid in pids}
    time.sleep(seconds)
    return {pid: (cpu_seconds(pid) - before[pid]) / seconds for pid in pids}
