"""What maestro decides about cards: cordons, drains, quarantines, probation, limits, and the log of its placements."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Pipe, Pool

# Quick looks at the cards, and losses that are found soon.
QUICK = {"METRICS_SEC": "0.2", "HEARTBEAT_SEC": "0.5"}


def api(pool: Pool, verb: str, content: Any = None) -> dict:
    return pool.bus.request(f"maestro.api.{verb}", {} if content is None else content)


def row(pool: Pool, gpu: Any) -> dict:
    return next(row for row in api(pool, "gpus")["gpus"] if row["gpu_id"] == gpu)


def wait_row(pool: Pool, gpu: Any, probe: Callable[[dict], bool], what: str) -> dict:
    """The first row of a card in `gpus` that is as the probe says; asked for anew with each event."""

    def ask() -> dict | None:
        found = row(pool, gpu)
        return found if probe(found) else None

    return pool.events.wait_until(ask, what=what)


def told(pool: Pool, event: str, count: int = 1) -> dict:
    return pool.maestro_events.wait("maestro.state", event=event, count=count).json


def ask(pool: Pool, verb: str, gpu: Any, **more: Any) -> dict:
    answer = api(pool, verb, {"gpu_id": gpu, "reason": "for the test"} | more)
    assert answer["ok"], answer
    return answer


def two_workers(make_pool: Callable[..., Pool], **settings: Any) -> Pool:
    pool = make_pool(**QUICK, **settings)
    pool.start_maestro()
    for gpu in (0, 1):
        pool.start_worker(gpu)
        pool.maestro_events.wait("maestro.state", event="gpu_up", gpu_id=gpu)
    return pool


def test_a_cordoned_card_gets_no_job_whoever_leads(make_pool, task_id: str):
    pool = two_workers(make_pool)
    assert ask(pool, "cordon", 1)["state"] == "cordoned"
    _, stored = pool.bus.last("ORG_CTL", "gpu.ctl.card-1")
    assert stored["gpu_id"] == 1 and stored["cordon"]["reason"] == "for the test"
    pool.bus.submit(task_id=task_id, cmd=["true"], gpu=1)
    record = pool.wait_state(task_id, "waiting_gpu")
    assert record["reason"] == "pinned to card 1: cordoned: for the test"
    pool.maestros[0].terminate()
    pool.start_maestro()
    wait_row(pool, 1, lambda card: card["state"] == "cordoned", "the next leader to know of the cordon")
    assert pool.run(task_id=f"{task_id}-other", cmd=["true"])["ok"]
    assert pool.record(task_id)["state"] in ("waiting_gpu", "enqueued")
    assert api(pool, "why", {"task_id": task_id})["cards"][0]["reason"] == "cordoned: for the test"
    assert ask(pool, "uncordon", 1)["state"] == "up"
    assert pool.wait_result(task_id)["ok"]


def test_a_drained_card_gives_back_what_runs_when_its_time_has_come(make_pool, task_id: str, pipe: Pipe):
    pool = two_workers(make_pool)
    pool.bus.submit(task_id=task_id, type="shell", max_retries=0, shell=f"echo $GPU_ID > {pipe}; exec sleep 1000")
    first = int(pipe.line())
    pool.wait_state(task_id, "running")
    assert ask(pool, "drain", first)["state"] == "draining"
    assert row(pool, first)["reason"] == "draining: for the test; one job is left"
    assert ask(pool, "drain", first, deadline=0.5)["state"] == "draining"
    error = pool.events.wait("gpu.task.err", task_id=task_id).json
    assert error["code"] == "drained" and error["error"] == f"card {first} is drained: for the test"
    assert int(pipe.line()) == 1 - first
    assert pool.record(task_id)["lost"] == 1
    wait_row(pool, first, lambda card: card["state"] == "cordoned", "the drained card to be empty")
    api(pool, "cancel", {"task_id": task_id})
    pool.wait_state(task_id, "cancelled")


@pytest.mark.parametrize(
    ("verb", "content", "code"),
    [
        ("cordon", {"gpu_id": 7}, "unknown_card"), ("gpu", {"gpu_id": "rig1-3"}, "unknown_card"),
        ("clear", {}, "bad_request"), ("cordon", {"gpu_id": "a b"}, "bad_request"), ("cordon", {"gpu_id": -1}, "bad_request"),
        ("cordon", {"gpu_id": 0, "reason": 7}, "bad_request"), ("quarantine", {"gpu_id": 0, "reason": "x" * 1025}, "bad_request"),
        ("drain", {"gpu_id": 0, "deadline": -1}, "bad_request"), ("drain", {"gpu_id": 0, "deadline": "soon"}, "bad_request"),
        ("drain", [0], "bad_request"), ("cordon", b"nonsense", "bad_request"), ("explode", {"gpu_id": 0}, "unknown_request"),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(shared: Pool, verb: str, content: Any, code: str):
    answer = api(shared, verb, content)
    assert not answer["ok"] and answer["code"] == code and answer["error"]
    assert shared.bus.last("ORG_CTL", "gpu.ctl.card-0") is None


def test_an_unknown_card_is_refused_with_the_names_of_the_others(shared: Pool):
    assert api(shared, "cordon", {"gpu_id": 7})["error"] == "there is no card 7; there are 0, 1"


def test_a_record_of_a_newer_version_is_left_alone_and_so_is_its_card(make_pool, task_id: str):
    pool = make_pool(**QUICK)
    pool.start_maestro()
    pool.start_worker(0)
    newer = {"v": 2, "gpu_id": 0, "op": "x", "lent": True}
    pool.bus.store("gpu.ctl.card-0", newer)
    card = wait_row(pool, 0, lambda card: card["state"] == "cordoned", "the record to be heard of")
    assert "version 2" in card["reason"]
    refused = api(pool, "uncordon", {"gpu_id": 0})
    assert refused["code"] == "unreadable_record"
    pool.bus.submit(task_id=task_id, cmd=["true"])
    assert "version 2" in pool.wait_state(task_id, "waiting_gpu")["reason"]
    assert pool.bus.last("ORG_CTL", "gpu.ctl.card-0")[1] == newer


def test_a_card_on_which_jobs_fail_that_succeed_elsewhere_is_quarantined_and_tried_again(make_pool, task_id: str):
    pool = two_workers(make_pool, RETRY_BACKOFF_SEC="0")
    jobs = [f"{task_id}-{number}" for number in range(12)]
    for job in jobs:
        pool.bus.submit(task_id=job, type="shell", shell='sleep 0.1; test "$GPU_ID" = 0')
    for job in jobs:
        assert pool.wait_result(job)["ok"]
    quarantined = told(pool, "gpu_quarantined")
    assert (quarantined["gpu_id"], quarantined["kind"]) == (1, "failures")
    assert task_id in quarantined["evidence"]
    assert row(pool, 1)["state"] == "quarantined" and row(pool, 0)["state"] == "up"
    # The card itself is well: a probe brings it back, one job at a time.
    assert told(pool, "gpu_probed")["ok"]
    assert told(pool, "gpu_probation")["gpu_id"] == 1
    for number in range(3):
        assert pool.run(task_id=f"{task_id}-good-{number}", cmd=["true"], gpu=1)["ok"]
    assert told(pool, "gpu_recovered")["gpu_id"] == 1
    assert "probation" not in row(pool, 1)


def test_a_sweep_that_fails_everywhere_quarantines_nothing(make_pool, task_id: str):
    pool = two_workers(make_pool)
    jobs = [f"{task_id}-{number}" for number in range(60)]
    for job in jobs:
        pool.bus.submit(task_id=job, type="shell", shell="exit 2", max_retries=1)
    for job in jobs:
        assert pool.wait_result(job)["code"] == "exit"
    assert pool.run(task_id=f"{task_id}-good", cmd=["true"])["ok"]
    assert pool.maestro_events.all("maestro.state", event="gpu_quarantined") == []


def test_a_sick_card_is_not_used_until_a_probe_has_succeeded(make_pool, make_rig, task_id: str):
    pool, rig = make_pool(**QUICK), make_rig("2xgtx1660")
    pool.start_maestro()
    for gpu in (0, 1):
        pool.start_worker(gpu, **rig.environment)
    rig.nvml(1, "return", 15)
    quarantined = told(pool, "gpu_quarantined")
    assert (quarantined["gpu_id"], quarantined["kind"]) == (1, "health") and "GPU is lost" in quarantined["evidence"]
    pool.bus.submit(task_id=task_id, cmd=["true"], gpu=1)
    assert "quarantined: lost" in pool.wait_state(task_id, "waiting_gpu")["reason"]
    # A person's word starts a probe at once; it does not help while the card is lost.
    ask(pool, "clear", 1)
    assert told(pool, "gpu_probed")["ok"] is False
    told(pool, "gpu_quarantined", count=2)
    assert "GPU is lost" in row(pool, 1)["quarantine"]["probe_evidence"]
    rig.nvml(1, "return")
    ask(pool, "clear", 1)
    assert pool.wait_result(task_id)["ok"]


def test_a_card_tells_everything_that_is_known_of_it(make_pool, make_rig):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    pool.start_worker(0, **rig.environment)
    rig.heat(0, 90)
    held = wait_row(pool, 0, lambda card: card["state"] == "hot", "the hot card to be held")
    assert held["pci"] == rig.cards[0] and held["temp_c"] == 90 and held["temp_limit_c"] == 78
    assert held["hold"]["code"] == "hot" and held["reason"].startswith("hot: ")
    assert held["vram_total_bytes"] > held["vram_used_bytes"] > 0 and held["power_w"] > 0 and held["model"]
    assert told(pool, "gpu_held")["gpu_id"] == 0
    answer = api(pool, "gpu", {"gpu_id": 0})
    assert answer["state"] == "hot" and answer["state_age"] >= 0
    ages = [sample["age"] for sample in answer["history"]]
    assert ages == sorted(ages, reverse=True) and answer["history"][-1]["temp_c"] == 90
    assert {"temp_c", "busy_percent", "power_w", "age"} <= set(answer["history"][0])


def test_every_placement_is_logged_and_goes_to_the_best_card(make_pool, make_rig, task_id: str, tmp_path: Path):
    log = tmp_path / "decisions"
    pool, rig = make_pool(**QUICK, DECISION_LOG=log), make_rig("3xrx580")
    for card, celsius in enumerate((60, 40, 50)):
        rig.heat(card, celsius)
    pool.start_maestro()
    for gpu in range(3):
        pool.start_worker(gpu, **rig.environment)
        wait_row(pool, gpu, lambda card: "temp_c" in card, "the first reading")
    jobs = [f"{task_id}-{number}" for number in range(20)]
    for job in jobs:
        pool.bus.submit(task_id=job, cmd=["sleep", "0.05"])
    for job in jobs:
        assert pool.wait_result(job)["ok"]
    decisions = [json.loads(line) for line in log.read_text().splitlines()]
    assert [decision["task_id"] for decision in decisions] == jobs
    for decision in decisions:
        assert [card["gpu_id"] for card in decision["candidates"]] == [0, 1, 2]
        fit = [card for card in decision["candidates"] if not card["objection"]]
        best = min(fit, key=lambda card: (card["load"] >= card["slots"], card["load"], card["score"], card["gpu_id"]))
        assert decision["gpu"] == best["gpu_id"] and decision["attempt_id"] and decision["ts"] > 0
        for card in decision["candidates"]:
            assert card["score"] == card["busy_percent"] + 0.5 * card["temp_c"] + (30 if card["stale"] else 0)
    assert decisions[0]["gpu"] == 1


def test_a_log_of_decisions_that_cannot_be_written_ends_maestro(make_pool, tmp_path: Path):
    pool = make_pool()
    maestro = pool.start_maestro(leading=False, DECISION_LOG=tmp_path / "none" / "decisions")
    assert maestro.wait() == 78
    assert any("DECISION_LOG" in line and "No such file" in line for line in maestro.lines)


def test_fewer_cards_work_by_night(make_pool, task_id: str, pipe: Pipe):
    pool = two_workers(make_pool, NIGHT_MAX_CARDS=1, DAY_WINDOW="00-24")
    pool.bus.publish("circadian.phase", {"phase": "dusk"})
    pool.bus.publish("circadian.phase", {"phase": "night"})
    assert told(pool, "phase")["phase"] == "night"
    for number in range(2):
        pool.bus.submit(task_id=f"{task_id}-{number}", type="shell", shell=f"echo $GPU_ID > {pipe}; exec sleep 1000")
    first = int(pipe.line())
    idle = wait_row(pool, 1 - first, lambda card: card["state"] == "night", "the other card to stay idle")
    assert idle["reason"] == "night: as many cards work as NIGHT_MAX_CARDS allows (1)"
    pool.bus.publish("circadian.phase", {"phase": "day"})
    assert int(pipe.line()) == 1 - first
    for number in range(2):
        api(pool, "cancel", {"task_id": f"{task_id}-{number}"})
        pool.wait_state(f"{task_id}-{number}", "cancelled")
