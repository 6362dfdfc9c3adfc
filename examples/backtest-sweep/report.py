"""What the sweep found, as a table, a CSV file and a picture."""

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as mdates  # noqa: E402  (the backend is chosen before)
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator  # noqa: E402

# Colours that people with a colour vision deficiency can tell apart (Okabe and Ito), always in this order.
COLOURS = {"sma": "#0072B2", "rsi": "#D55E00", "macd": "#009E73", "momentum": "#CC79A7"}
HOLD_COLOUR = "#777777"
INK = "#222222"
WORSE_TINT = "#FBEFE8"
LATER_TINT = "#F4F1EC"

# A parameter set that traded less often in-sample was lucky or not, but nobody can tell which.
FEWEST_TRADES = 3


@dataclass(frozen=True)
class Outcome:
    """One finished job."""

    symbol: str
    strategy: str
    params: tuple[tuple[str, int], ...]
    period: str
    figures: dict


@dataclass(frozen=True)
class Candidate:
    """One parameter set with its figures in both periods."""

    symbol: str
    strategy: str
    params: tuple[tuple[str, int], ...]
    inside: dict
    outside: dict

    @property
    def label(self) -> str:
        return "/".join(str(value) for _, value in self.params)

    @property
    def long_label(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.params)


def pair(outcomes: list[Outcome]) -> list[Candidate]:
    """Joins the two periods of each parameter set; one that lacks either (its job failed) is left out."""
    found: dict[tuple, dict] = defaultdict(dict)
    for outcome in outcomes:
        found[(outcome.symbol, outcome.strategy, outcome.params)][outcome.period] = outcome.figures
    return [Candidate(*key, periods["in"], periods["out"]) for key, periods in found.items() if len(periods) == 2]


def choose(candidates: list[Candidate]) -> Candidate | None:
    """The best of them by what could be known at the time: the in-sample Sharpe ratio, never the later one."""
    serious = [one for one in candidates if one.inside["trades"] >= FEWEST_TRADES]
    return max(serious, key=lambda one: one.inside["sharpe"], default=None)


def choices(candidates: list[Candidate]) -> dict[tuple[str, str], Candidate]:
    """The choice of each (symbol, strategy), in the order of the candidates."""
    groups: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for one in candidates:
        groups[(one.symbol, one.strategy)].append(one)
    chosen = {key: choose(group) for key, group in groups.items()}
    return {key: one for key, one in chosen.items() if one is not None}


def rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Spearman's: 1 when both numbers order the pairs alike, 0 when one says nothing about the other."""

    def ranks(values: list[float]) -> list[float]:
        ordered = sorted(values)
        # Equal values share the middle of their places.
        places = defaultdict(list)
        for place, value in enumerate(ordered):
            places[value].append(place)
        return [sum(places[value]) / len(places[value]) for value in values]

    first, second = ranks([one for one, _ in pairs]), ranks([two for _, two in pairs])
    mean = (len(pairs) - 1) / 2
    covariance = sum((a - mean) * (b - mean) for a, b in zip(first, second, strict=True))
    spread = math.sqrt(sum((a - mean) ** 2 for a in first) * sum((b - mean) ** 2 for b in second))
    return covariance / spread if spread else 0.0


def percent(value: float) -> str:
    """A signed percentage, or how many times as much where that would be long: at most seven characters."""
    if value >= 10:
        return f"x{1 + value:.0f}"
    scaled = 100 * value
    return f"{scaled:+.1f}%" if abs(scaled) < 100 else f"{scaled:+.0f}%"


def table(candidates: list[Candidate]) -> str:
    """Eighty columns: the choice of each symbol and strategy, and the best of all with how it did later."""
    lines = [
        f"{'':30}in-sample         out-of-sample          buy+hold",
        f"{'symbol':8}{'strategy':10}{'parameters':11}{'Sharpe':>7}{'return':>9}  "
        f"{'Sharpe':>7}{'return':>8}{'fall':>7}{'return':>10}",
        "-" * 80,
    ]
    last_symbol = None
    chosen = choices(candidates)
    for (symbol, strategy), one in chosen.items():
        lines.append(
            f"{symbol if symbol != last_symbol else '':8}{strategy:10}{one.label:11}"
            f"{one.inside['sharpe']:7.2f}{percent(one.inside['return']):>9}  "
            f"{one.outside['sharpe']:7.2f}{percent(one.outside['return']):>8}"
            f"{percent(-one.outside['max_drawdown']):>7}{percent(one.outside['buy_and_hold']):>10}"
        )
        last_symbol = symbol
    best = choose(candidates)
    if best:
        beaten = best.outside["sharpe"] > best.outside["buy_and_hold_sharpe"]
        lines += [
            "-" * 80,
            f"Best in-sample of {len(candidates)}: {best.strategy} ({best.long_label}) on {best.symbol}.",
            f"Afterwards: Sharpe {best.outside['sharpe']:.2f} against {best.outside['buy_and_hold_sharpe']:.2f} of buying "
            f"and holding. {'It held up.' if beaten else 'It did not hold up.'}",
        ]
    return "\n".join(lines)


def write_csv(outcomes: list[Outcome], path: Path) -> None:
    """One row for each job."""
    columns = ["return", "sharpe", "max_drawdown", "trades", "exposure", "buy_and_hold", "buy_and_hold_sharpe", "bars"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["symbol", "strategy", "params", "period", "start", "end", *columns])
        for outcome in outcomes:
            params = " ".join(f"{name}={value}" for name, value in outcome.params)
            writer.writerow([
                outcome.symbol, outcome.strategy, params, outcome.period, outcome.figures["start"],
                outcome.figures["end"], *(outcome.figures[column] for column in columns),
            ])


# ------------------------------------------------------------------------------------------------------- picture


def draw(candidates: list[Candidate], path: Path) -> None:
    """Above, every parameter set by its Sharpe ratio before and after; below, what the chosen ones earned."""
    symbols = list(dict.fromkeys(one.symbol for one in candidates))
    chosen = choices(candidates)
    figure, axes = plt.subplots(
        2, len(symbols), figsize=(4.9 * len(symbols), 9.4), squeeze=False,
        gridspec_kw={"left": 0.055, "right": 0.985, "top": 0.82, "bottom": 0.06, "hspace": 0.33, "wspace": 0.2},
    )
    for column, symbol in enumerate(symbols):
        mine = [one for one in candidates if one.symbol == symbol]
        picks = [one for (owner, _), one in chosen.items() if owner == symbol]
        draw_scatter(axes[0][column], symbol, mine, picks)
        draw_curves(axes[1][column], symbol, picks)
    axes[0][0].set_ylabel("out-of-sample Sharpe ratio")
    axes[1][0].set_ylabel("value of 1 invested (log scale)")
    draw_heading(figure, candidates)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_heading(figure, candidates: list[Candidate]) -> None:
    best = choose(candidates)
    figure.text(0.055, 0.955, f"{2 * len(candidates)} back-tests: does the past choose well?",
                fontsize=19, fontweight="bold", color=INK)
    if best:
        figure.text(
            0.055, 0.922,
            f"Best in-sample: {best.strategy} ({best.long_label}) on {best.symbol}, Sharpe {best.inside['sharpe']:.2f}. "
            f"Afterwards: {best.outside['sharpe']:.2f}, where buying and holding had "
            f"{best.outside['buy_and_hold_sharpe']:.2f}.",
            fontsize=12, color=INK)
    strategies = [name for name in COLOURS if any(one.strategy == name for one in candidates)]
    handles = [Line2D([], [], marker="o", linestyle="-", color=COLOURS[name], label=name) for name in strategies]
    handles += [
        Line2D([], [], color=HOLD_COLOUR, linewidth=2, label="buy and hold"),
        Line2D([], [], marker="o", linestyle="", markerfacecolor="none", markeredgecolor=INK, markersize=11,
               label="chosen in-sample, one per strategy"),
        Line2D([], [], marker="*", linestyle="", color=INK, markersize=13, label="the symbol's choice"),
        Patch(facecolor=WORSE_TINT, edgecolor="#E8CFC2", label="worse than it looked"),
    ]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.048, 0.912), ncols=len(handles),
                  frameon=False, fontsize=10.5, handletextpad=0.5, columnspacing=1.6)


def draw_scatter(axis, symbol: str, candidates: list[Candidate], picks: list[Candidate]) -> None:
    points = [(one.inside["sharpe"], one.outside["sharpe"]) for one in candidates]
    hold = (candidates[0].inside["buy_and_hold_sharpe"], candidates[0].outside["buy_and_hold_sharpe"])
    values = [value for point in [*points, hold] for value in point]
    low, high = min(values), max(values)
    low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)

    axis.plot([low, high], [low, high], color="#BBBBBB", linewidth=1, linestyle="--", zorder=1)
    axis.fill_between([low, high], [low, high], low, color=WORSE_TINT, zorder=0)
    axis.axhline(hold[1], color=HOLD_COLOUR, linewidth=1.6, zorder=1)
    axis.axvline(hold[0], color=HOLD_COLOUR, linewidth=1.6, zorder=1)
    for strategy, colour in COLOURS.items():
        mine = [(x, y) for (x, y), one in zip(points, candidates, strict=True) if one.strategy == strategy]
        if mine:
            axis.scatter(*zip(*mine, strict=True), s=34, color=colour, alpha=0.75, linewidths=0, zorder=3)
    for pick in picks:
        axis.scatter(pick.inside["sharpe"], pick.outside["sharpe"], s=120, facecolors="none", edgecolors=INK,
                     linewidths=1.2, zorder=4)
    best = choose(picks)
    if best:
        axis.scatter(best.inside["sharpe"], best.outside["sharpe"], s=150, marker="*", color=COLOURS[best.strategy],
                     edgecolors=INK, linewidths=0.9, zorder=5)

    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.yaxis.set_major_locator(MaxNLocator(6))
    axis.set(xlim=(low, high), ylim=(low, high), xlabel="in-sample Sharpe ratio")
    axis.set_title(f"{symbol}   rank correlation {rank_correlation(points):+.2f}", loc="left", fontsize=12.5, color=INK)
    tidy(axis)


def draw_curves(axis, symbol: str, picks: list[Candidate]) -> None:
    if not picks:
        return
    split = datetime.fromisoformat(picks[0].outside["start"])

    def joined(one: Candidate, curve: str) -> tuple[list[datetime], list[float]]:
        before, after = one.inside["curve"], one.outside["curve"]
        dates = [datetime.fromisoformat(date) for date in before["dates"] + after["dates"]]
        return dates, before[curve] + [before[curve][-1] * value for value in after[curve]]

    dates, hold = joined(picks[0], "buy_and_hold")
    axis.plot(dates, hold, color=HOLD_COLOUR, linewidth=1.8, zorder=2)
    best = choose(picks)
    for pick in picks:
        axis.plot(*joined(pick, "equity"), color=COLOURS[pick.strategy], linewidth=2.6 if pick is best else 1.3,
                  zorder=4 if pick is best else 3)
    axis.axvspan(split, dates[-1], color=LATER_TINT, zorder=0)
    axis.axvline(split, color="#8A7F6D", linewidth=1, linestyle="--", zorder=1)
    axis.text(split, 1.015, " out-of-sample →", transform=axis.get_xaxis_transform(), fontsize=9, color="#8A7F6D")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axis.get_ylim()
    if high / low < 2:
        axis.yaxis.set_major_locator(MaxNLocator(6))  # too narrow for steps of 1, 2, 5
    elif high / low < 100:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(dates[0], dates[-1])
    axis.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axis.xaxis.get_major_locator()))
    axis.set_title(symbol, loc="left", fontsize=12.5, color=INK)
    tidy(axis)


def tidy(axis) -> None:
    axis.grid(color="#E6E6E6", linewidth=0.7, zorder=0)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9.5, colors="#555555")
