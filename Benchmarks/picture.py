"""The picture of a run: throughput and latency of all systems, each round a dot."""

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the choice of a backend without a screen)

from report import number  # noqa: E402
from summary import rate, spawn_limit  # noqa: E402

OURS = "#1f6fb2"
OTHERS = "#8a8a8a"


def series(figures: dict) -> dict[str, list[dict]]:
    rounds = figures["rounds"]
    peers = sorted({name for one in rounds for name in one["peers"]})
    return {"maestro": [one["ours"] for one in rounds]} | {
        name: [one["peers"][name] for one in rounds if name in one["peers"]] for name in peers
    }


def dots(axis, names: list[str], values: list[list[float]], label: str) -> None:
    """A dot for each round, a line over their range, the median in figures."""
    for position, (name, row) in enumerate(zip(names, values, strict=True)):
        colour = OURS if name == "maestro" else OTHERS
        axis.plot([min(row), max(row)], [position, position], color=colour, linewidth=2, alpha=0.5)
        axis.plot(row, [position] * len(row), "o", color=colour, markersize=5)
        axis.annotate(f"  {number(statistics.median(row))}", (max(row), position), va="center", fontsize=9)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlim(min(min(row) for row in values) / 2, max(max(row) for row in values) * 3)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_xlabel(label)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def draw(figures: dict, path: Path) -> None:
    systems = series(figures)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.5 * len(systems) + 2.2), constrained_layout=True)
    names = ["posix_spawn (limit)", *systems]
    dots(left, names, [[spawn_limit(one) for one in figures["rounds"]], *([rate(one) for one in ones]
                                                                           for ones in systems.values())],
         "jobs/s of /bin/true (log scale)")
    dots(right, list(systems), [[one["latency"]["p50_ms"] for one in ones] for ones in systems.values()],
         "p50 from submission to result, ms (log scale)")
    figure.suptitle(f"{figures['machine']['processors']} processors, {figures['machine']['server']}; "
                    f"a dot is one of {len(figures['rounds'])} rounds, the figure their median", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
