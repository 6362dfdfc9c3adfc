"""Back-tests of series short enough to check by hand."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
import backtest  # noqa: E402  (found by the line above)

SCRIPT = Path(backtest.__file__)


def series(*close):
    return np.array(close, dtype=float)


def prices(*close):
    return backtest.Prices([f"2020-01-{day:02}" for day in range(1, len(close) + 1)], series(*close))


def test_moving_average_is_the_mean_of_the_last_values():
    averages = backtest.moving_average(series(1, 2, 3, 6), 2)
    assert np.isnan(averages[0])
    assert averages[1:].tolist() == [1.5, 2.5, 4.5]


def test_moving_average_of_too_few_values_is_never_a_number():
    assert np.isnan(backtest.moving_average(series(1, 2), 3)).all()


def test_exponential_average_moves_by_its_weight():
    assert backtest.exponential_average(series(10, 20, 20), 0.5).tolist() == [10, 15, 17.5]


def test_relative_strength_is_100_while_rising_0_while_falling_and_50_when_still():
    assert backtest.relative_strength(series(1, 2, 3, 4), 2)[2:].tolist() == [100, 100]
    assert backtest.relative_strength(series(4, 3, 2, 1), 2)[2:].tolist() == [0, 0]
    assert backtest.relative_strength(series(5, 5, 5, 5), 2)[2:].tolist() == [50, 50]


def test_relative_strength_by_hand():
    # Gains 0 2 0, losses 0 0 1, weight 1/2: average gain 0.5, average loss 0.5 after the third bar.
    assert backtest.relative_strength(series(10, 12, 11), 2)[2] == pytest.approx(50)


def test_hold_between_keeps_a_position_until_it_is_left():
    enter = np.array([0, 1, 0, 0, 0, 1, 1], dtype=bool)
    leave = np.array([1, 0, 0, 1, 0, 0, 1], dtype=bool)
    assert backtest.hold_between(enter, leave).tolist() == [0, 1, 1, 0, 0, 1, 0]


def test_sma_is_invested_while_the_fast_average_is_above():
    # Averages of 1: 1 2 3 2 1; of 2: - 1.5 2.5 2.5 1.5
    assert backtest.sma(series(1, 2, 3, 2, 1), 1, 2).tolist() == [0, 1, 1, 0, 0]


def test_momentum_compares_with_the_price_of_some_bars_ago():
    assert backtest.momentum(series(5, 4, 6, 4, 4), 2).tolist() == [0, 0, 1, 0, 0]


def test_macd_follows_a_turn():
    close = series(*([10] * 6 + [11, 12, 13, 14] + [13, 12, 11, 10, 9, 8]))
    position = backtest.macd(close, 2, 4, 3)
    assert position[:6].tolist() == [0] * 6
    assert position[6:9].tolist() == [1, 1, 1]
    assert position[-3:].tolist() == [0, 0, 0]


def test_rsi_buys_weakness_and_sells_strength():
    close = series(10, 9, 8, 7, 8, 9, 10, 11)
    position = backtest.rsi(close, 2, 20, 80)
    assert position[3] == 1, "three falls in a row: bought"
    assert position[0] == 0 and position[-1] == 0, "not before, and sold after the rise"


def test_a_position_earns_the_next_bar_and_never_its_own():
    # The jump from 1 to 2 happens in bar 1. Deciding at its close is too late; the fall that follows is earned.
    equity = backtest.run(series(1, 2, 1), np.array([0.0, 1.0, 0.0]), fee=0)
    assert equity.tolist() == [1, 1, 0.5]


def test_each_change_of_position_costs_the_fee():
    equity = backtest.run(series(1, 1, 1, 1), np.array([1.0, 0.0, 1.0, 0.0]), fee=0.1)
    assert equity == pytest.approx([1, 0.9, 0.81, 0.729])


def test_drawdown_is_measured_from_the_highest_value_before():
    assert backtest.max_drawdown(series(1, 2, 1.5, 3, 1.2)) == pytest.approx(0.6)
    assert backtest.max_drawdown(series(1, 2, 3)) == 0


def test_sharpe_by_hand():
    # Returns +10 % and -10 % have the mean 0; +20 % and 0 % have mean and spread 0.1.
    assert backtest.sharpe(series(1, 1.1, 0.99), 252) == pytest.approx(0)
    assert backtest.sharpe(series(1, 1.2, 1.2), 4) == pytest.approx(2)
    assert backtest.sharpe(series(1, 1, 1), 252) == 0


def test_figures_of_a_whole_run():
    figures = backtest.evaluate(prices(1, 2, 4, 2, 1), "momentum", {"lookback": 1}, "2020", "2021", 0, 252)
    # Positions at the closes: 0 1 1 0 0. Held 2 -> 4 (x2) and 4 -> 2 (x0.5).
    assert figures["return"] == pytest.approx(0)
    assert figures["max_drawdown"] == pytest.approx(0.5)
    assert figures["trades"] == 1
    assert figures["exposure"] == pytest.approx(0.5)
    assert figures["buy_and_hold"] == 0
    assert figures["bars"] == 5
    assert figures["curve"]["equity"] == [1, 1, 2, 1, 1]


def test_indicators_warm_up_before_the_range():
    # With the bars before the range known, the first bar inside is already invested.
    figures = backtest.evaluate(prices(1, 2, 3, 4, 5), "momentum", {"lookback": 2}, "2020-01-03", "2021", 0, 252)
    assert figures["bars"] == 3
    assert figures["exposure"] == 1
    assert figures["return"] == pytest.approx(5 / 3 - 1)


def test_bars_after_the_range_change_nothing():
    short = backtest.evaluate(prices(1, 3, 2, 4), "macd", {"fast": 1, "slow": 2, "signal": 1}, "2020", "2020-01-05", 0, 252)
    long = backtest.evaluate(prices(1, 3, 2, 4, 9, 1), "macd", {"fast": 1, "slow": 2, "signal": 1}, "2020", "2020-01-05", 0, 252)
    assert short == long


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--strategy", "magic", "--symbol", "GOOG"], "no strategy is called magic"),
        (["--strategy", "sma", "--symbol", "XXX"], "no prices for XXX"),
        (["--strategy", "sma", "--symbol", "GOOG", "--params", "fast=50,slow=10"], "fast < slow"),
        (["--strategy", "sma", "--symbol", "GOOG", "--params", "fast=50"], "slow"),
        (["--strategy", "sma", "--symbol", "GOOG", "--params", "fast=x"], "not name=number"),
        (["--strategy", "momentum", "--symbol", "GOOG", "--params", "lookback=1", "--end", "1999"], "only 0 bars"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_code_2(arguments, reason):
    ended = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert reason in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(("symbol", "bars"), [("GOOG", 2148), ("EURUSD", 5000), ("BTCUSD", 156)])
def test_the_shipped_prices(symbol, bars, tmp_path):
    output = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, SCRIPT, "--strategy", "momentum", "--symbol", symbol, "--params", "lookback=10", "--output", output],
        check=True,
    )
    figures = json.loads(output.read_text())
    assert figures["bars"] == bars
    assert figures["symbol"] == symbol and figures["params"] == {"lookback": 10}
    assert 0 < figures["exposure"] < 1 and figures["trades"] > 0
    assert len(figures["curve"]["dates"]) == len(figures["curve"]["equity"]) <= 120
