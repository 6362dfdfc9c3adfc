"""The table of a run: systems side by side, then the targets with what was reached."""

from measure import spread
from summary import absolute, bounds, compared, fleet_worker, rate, spawn_limit


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ranged(one: dict) -> str:
    return f"{number(one['median'])} ({number(one['low'])}-{number(one['high'])})"


def row(name: str, *cells: str) -> str:
    return f"{name:15}" + "".join(f"{cell:>21}" for cell in cells)


def side_by_side(figures: dict) -> list[str]:
    rounds = figures["rounds"]
    limit = spread(spawn_limit(one) for one in rounds)

    def line(name: str, ones: list[dict], memory: str) -> str:
        shares = [rate(one) / spawn_limit(whole) for one, whole in zip(ones, rounds, strict=False)]
        return row(name, ranged(spread(rate(one) for one in ones)), ranged(spread(shares)),
                   ranged(spread(one["latency"]["p50_ms"] for one in ones)),
                   ranged(spread(one["latency"]["p99_ms"] for one in ones)), memory)

    def resident(one: dict) -> str:
        return number(sum(sum(values) for values in one["resident_mb"].values()))

    lines = [row("/bin/true", "jobs/s", "of the limit", "p50 ms", "p99 ms", "resident MB"), "-" * 120,
             row("posix_spawn", ranged(limit), "1", ranged(spread(one["limits"]["spawn"]["p50_ms"] for one in rounds)),
                 ranged(spread(one["limits"]["spawn"]["p99_ms"] for one in rounds)), "")]
    footprint = rounds[-1]["ours"]["footprint"]
    lines.append(line("maestro", [one["ours"] for one in rounds],
                      number(sum(one["resident_mb"] for one in footprint.values()))))
    for peer in sorted({name for one in rounds for name in one["peers"]}):
        ones = [one["peers"][peer] for one in rounds if peer in one["peers"]]
        lines.append(line(peer, ones, resident(ones[-1])))
    lines += [row(name, "not measured: " + why) for name, why in figures["unavailable"].items()]
    return lines


def targets(figures: dict) -> list[tuple[str, str, str, bool]]:
    """What is asked, what was measured, whether it is met."""
    ratios, values, worker = compared(figures), absolute(figures), fleet_worker(figures)

    def least(name: str, key: dict, bound: float) -> tuple[str, str, str, bool]:
        return name, f">= {bound}", ranged(key), key["median"] >= bound

    def most(name: str, key: dict, bound: float) -> tuple[str, str, str, bool]:
        return name, f"< {bound}", ranged(key), key["median"] < bound

    def one(name: str, value: float, bound: float) -> tuple[str, str, str, bool]:
        return name, f"< {bound}", number(value), value < bound

    found = [least("jobs/s, share of the spawn limit", ratios["jobs/s of the spawn limit"], 0.5)]
    if "jobs/s of celery" in ratios:
        found += [least("jobs/s, times Celery", ratios["jobs/s of celery"], 3),
                  most("p50, times Celery's", ratios["p50 of celery"], 1)]
    return found + [
        *scheduler_targets(figures["scheduler"]),
        most("p99 / p50", ratios["p99 / p50"], 3),
        least("submit --from-file, jobs/s", values["submit"], 50_000),
        most("cost of a job, us (spawn excluded)", values["cost_us"], 150),
        one("worker of 12: resident MB", worker["resident_mb"], 12),
        one("worker of 12: private MB", worker["private_mb"], 3),
        one("worker of 12: idle CPU, % of a core", worker["idle_cpu_percent"], 0.05),
        most("worker: start to ready, ms", values["start_to_ready_ms"], 50),
        most("maestroctl show, ms", values["show_ms"], 30),
        most(f"maestroctl list, 50 of {figures['maestroctl']['waiting']}, ms", values["list_ms"], 30),
    ]


def scheduler_targets(figures: dict) -> list[tuple[str, str, str, bool]]:
    """What is asked of maestro alone: one measurement each, so without a range."""
    found = []
    for cards, one in figures["dispatch"].items():
        found.append((f"dispatch, {cards} cards: share of async publish / {one['writes_per_job']}", ">= 0.6",
                      number(one["share"]), one["share"] >= 0.6))
    for cards, one in figures["core"].items():
        found.append((f"decision, {cards} cards, {one['jobs']} jobs, us", "< 2",
                      number(one["decision_us"]["p50"]), one["decision_us"]["p50"] < 2))
    share, waiting = figures["fleet"]["processes"]["maestro"]["cpu_percent"], figures["waiting"]
    return found + [
        (f"life of {figures['fleet']['cards']} workers, % of a core", "< 25", number(share), share < 25),
        (f"maestro, {waiting['jobs']} jobs waiting: MB", "< 350", number(waiting["resident_mb"]), waiting["resident_mb"] < 350),
        ("the same, ready after a restart, s", "< 15", number(waiting["restart_seconds"]), waiting["restart_seconds"] < 15),
    ]


def processes(figures: dict) -> list[str]:
    lines = [f"{'process':22}{'resident MB':>14}{'private MB':>14}{'proportional MB':>18}{'idle CPU %':>14}", "-" * 82]
    for title, group in (("", figures["rounds"][-1]["ours"]["footprint"]), ("of 12: ", figures["fleet"])):
        seen = set()
        for name, one in group.items():
            kind = name.partition("@")[0]
            if kind in seen:
                continue
            seen.add(kind)
            lines.append(f"{title + kind:22}{one['resident_mb']:>14.1f}{one['private_mb']:>14.1f}"
                         f"{one['proportional_mb']:>18.1f}{one['idle_cpu_percent']:>14.3f}")
    return lines


def table(figures: dict) -> str:
    lines = side_by_side(figures)
    lines += ["", f"{'target':48}{'asked':>12}{'measured: median (range)':>30}   ", "-" * 96]
    lines += [f"{name:48}{asked:>12}{measured:>30}   {'met' if met else 'missed'}"
              for name, asked, measured, met in targets(figures)]
    lines += ["", "on two cores, if maestro and the workers cost nothing, and the server what it does:"]
    lines += [f"{name:60}{ranged(value):>30}" for name, value in bounds(figures).items()]
    limits = [one["limits"]["jetstream"] for one in figures["rounds"]]
    lines += ["", *processes(figures), "",
              f"JetStream, publishes of {limits[0]['bytes']} bytes into a file stream: "
              f"{ranged(spread(one['sync_per_second'] for one in limits))}/s one after the other, "
              f"{ranged(spread(one['async_per_second'] for one in limits))}/s many under way",
              f"load of the machine before the rounds: {ranged(figures['machine']['load'])}"]
    return "\n".join(lines)
