"""The choice of the best, its table and its picture, on figures made by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
import report  # noqa: E402  (found by the line above)
import sweep  # noqa: E402


def figures(sharpe, trades=10, start="2020-01-01"):
    return {
        "sharpe": sharpe, "trades": trades, "start": start, "end": "2021-01-01", "bars": 3, "return": sharpe * 1000,
        "max_drawdown": 0.25, "exposure": 0.5, "buy_and_hold": 0.1, "buy_and_hold_sharpe": 0.5,
        "curve": {"dates": ["2020-01-01", "2020-06-01"], "equity": [1, 1 + sharpe], "buy_and_hold": [1, 1.1]},
    }


def outcomes(strategy, value, inside, outside, trades=10):
    params = (("lookback", value),)
    return [
        report.Outcome("GOOG", strategy, params, "in", figures(inside, trades)),
        report.Outcome("GOOG", strategy, params, "out", figures(outside, start="2020-03-01")),
    ]


def test_the_later_period_has_no_part_in_the_choice():
    candidates = report.pair(outcomes("momentum", 1, 2.0, -1.0) + outcomes("momentum", 2, 1.0, 9.0))
    assert report.choose(candidates).params == (("lookback", 1),)


def test_too_few_trades_are_no_evidence():
    candidates = report.pair(outcomes("momentum", 1, 5.0, 1.0, trades=1) + outcomes("momentum", 2, 1.0, 1.0))
    assert report.choose(candidates).params == (("lookback", 2),)
    assert report.choose([]) is None


def test_a_parameter_set_with_a_failed_job_is_left_out():
    assert report.pair(outcomes("momentum", 1, 1.0, 1.0)[:1]) == []


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1, 10), (2, 20), (3, 30)], 1),
        ([(1, 30), (2, 20), (3, 10)], -1),
        ([(1, 5), (2, 5), (3, 5)], 0),
        ([(1, 1), (2, 3), (3, 2)], 0.5),
    ],
)
def test_rank_correlation(pairs, expected):
    assert report.rank_correlation(pairs) == pytest.approx(expected)


def test_the_table_fits_eighty_columns_and_names_the_best():
    text = report.table(report.pair(outcomes("momentum", 250, 3.5, -1.5) + outcomes("rsi", 2, 0.9, 0.1)))
    assert max(map(len, text.splitlines())) == 80
    assert "Best in-sample of 2: momentum (lookback 250) on GOOG" in text
    assert "It did not hold up" in text


def test_the_picture_is_a_png(tmp_path):
    report.draw(report.pair(outcomes("momentum", 1, 2.0, -1.0) + outcomes("sma", 2, 1.0, 0.5)), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_plan_has_at_least_200_jobs_with_ids_that_maestro_takes():
    jobs = sweep.plan("test")
    assert len(jobs) >= 200
    assert len({job.task_id for job in jobs}) == len(jobs)
    assert all(len(job.task_id) <= 128 and job.task_id.replace("-", "").isalnum() for job in jobs)
    assert {job.period for job in jobs} == {"in", "out"}
