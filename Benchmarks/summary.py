"""The figures that are compared: from the rounds of a run to one value with its spread for each name."""

from measure import ratios, spread

WORKER = "gpu-worker@0"


def rate(one: dict) -> float:
    return one["throughput"]["per_second"]


def spawn_limit(one: dict) -> float:
    return one["limits"]["spawn"]["side_by_side_per_second"]


def shared_rounds(figures: dict, peer: str) -> list[dict]:
    return [one for one in figures["rounds"] if peer in one["peers"]]


def cost_per_job(one: dict) -> float:
    """Microseconds of maestro and the workers for a job, less what the parent of a bare posix_spawn pays."""
    costs = one["ours"]["throughput"]["cpu_us_per_job"]
    ours = sum(cost for name, cost in costs.items() if name != "nats-server")
    return ours - one["limits"]["spawn"]["parent_us"]


def compared(figures: dict) -> dict[str, dict]:
    """Ratios within a round: what `make bench-check` compares with its baseline, and the table's targets are told by."""
    rounds = figures["rounds"]
    ours = [rate(one["ours"]) for one in rounds]
    found = {
        "jobs/s of the spawn limit": ratios(ours, [spawn_limit(one) for one in rounds]),
        "p99 / p50": ratios([one["ours"]["latency"]["p99_ms"] for one in rounds],
                            [one["ours"]["latency"]["p50_ms"] for one in rounds]),
        "maestroctl submit of async publish": ratios(
            figures["maestroctl"]["submit_per_second"],
            [one["limits"]["jetstream"]["async_per_second"] for one in rounds]),
        "cost of a job / a bare spawn": ratios([cost_per_job(one) for one in rounds],
                                              [1e6 / one["limits"]["spawn"]["per_second"] for one in rounds]),
    }
    for peer in sorted({name for one in rounds for name in one["peers"]}):
        both = shared_rounds(figures, peer)
        found[f"jobs/s of {peer}"] = ratios([rate(one["ours"]) for one in both], [rate(one["peers"][peer]) for one in both])
        found[f"p50 of {peer}"] = ratios([one["ours"]["latency"]["p50_ms"] for one in both],
                                         [one["peers"][peer]["latency"]["p50_ms"] for one in both])
    return found


def bounds(figures: dict) -> dict[str, dict]:
    """What two cores would reach if maestro and the workers cost nothing: they spawn, and do what the server did for a job."""
    rounds, cores = figures["rounds"], 2
    spawning = [1e6 * cores / spawn_limit(one) for one in rounds]
    serving = [one["ours"]["throughput"]["cpu_us_per_job"]["nats-server"] for one in rounds]
    found = {"jobs/s, share of the spawn limit": ratios(spawning, [a + b for a, b in zip(spawning, serving, strict=True)])}
    for cards, one in figures["scheduler"]["dispatch"].items():
        most = 1e6 * cores / one["processes"]["nats-server"]["us_per_job"]
        found[f"dispatch, {cards} cards"] = spread([most * one["writes_per_job"] / one["async_per_second"]])
    return found


def absolute(figures: dict) -> dict[str, dict]:
    """Figures with units, for the table; they hold for this machine at this hour."""
    rounds = figures["rounds"]
    return {
        "cost_us": spread(cost_per_job(one) for one in rounds),
        "start_to_ready_ms": spread(one["ours"]["start_to_ready_ms"] for one in rounds),
        "show_ms": spread(figures["maestroctl"]["show_ms"]),
        "list_ms": spread(figures["maestroctl"]["list_ms"]),
        "submit": spread(figures["maestroctl"]["submit_per_second"]),
    }


def fleet_worker(figures: dict) -> dict[str, float]:
    """The median worker of twelve on one host."""
    workers = [one for name, one in figures["fleet"].items() if name.startswith("gpu-worker")]
    return {key: spread(one[key] for one in workers)["median"] for key in workers[0]}
