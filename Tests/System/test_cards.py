"""Workers of made-up cards: heat, sickness, and what the leader asks of them."""

import os
import signal
from typing import Any

import pytest
from harness import Pipe, Pool

# Quick looks at the cards, and losses that are found soon.
QUICK = {"METRICS_SEC": "0.2", "HEARTBEAT_SEC": "0.5"}


def wait_hold(pool: Pool, gpu: int, code: str | None) -> dict:
    """The first metrics from now on whose hold has that code; None: the first without one."""
    seen = len(pool.events.all("gpu.worker.metrics", gpu_id=gpu))

    def probe() -> dict | None:
        for message in pool.events.all("gpu.worker.metrics", gpu_id=gpu)[seen:]:
            if (message.json.get("hold") or {}).get("code") == code:
                return message.json
        return None

    return pool.events.wait_until(probe, what=f"card {gpu} to be held by {code}")


def attempt(pool: Pool, task_id: str) -> dict:
    record = pool.wait_state(task_id, "running")
    return {"task_id": task_id, "attempt_id": record["attempt_id"]}


def sleeping_job(task_id: str, pipe: Pipe, **more: Any) -> dict:
    return {"task_id": task_id, "type": "shell", "shell": f"echo started $GPU_ID > {pipe}; exec sleep 1000"} | more


def test_a_card_whose_temperature_is_unknown_runs_nothing(make_pool, make_rig, task_id: str):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    rig.fault(0, "hwmon/temp1_input", "errno 5")
    pool.start_worker(0, **rig.environment)
    held = wait_hold(pool, 0, "sensor")
    assert "temp_c" not in held and held["temp_limit_c"] == 78
    pool.bus.submit(task_id=task_id, cmd=["true"])
    wait_hold(pool, 0, "sensor")
    assert pool.record(task_id)["state"] in ("enqueued", "waiting_gpu", "scheduled")
    rig.fault(0, "hwmon/temp1_input", None)
    result = pool.wait_result(task_id)
    assert result["ok"] and result["tries"] == 1


def test_the_operator_may_allow_an_unknown_temperature(make_pool, make_rig, task_id: str):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    rig.fault(0, "hwmon/temp1_input", "errno 5")
    pool.start_worker(0, ALLOW_UNKNOWN_TEMP="yes", **rig.environment)
    assert pool.run(task_id=task_id, cmd=["true"])["ok"]


def test_a_job_on_a_card_that_overheats_goes_back_without_blame(make_pool, make_rig, task_id: str, pipe: Pipe):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    pool.start_worker(0, MAX_TEMP_C=70, **rig.environment)
    pool.bus.submit(**sleeping_job(task_id, pipe, max_retries=0))
    assert pipe.line() == "started 0"
    # Hot: no new job; the one that runs goes on.
    rig.heat(0, 80)
    assert wait_hold(pool, 0, "hot")["temp_limit_c"] == 70
    assert pool.record(task_id)["state"] == "running"
    rig.heat(0, 91)
    error = pool.events.wait("gpu.task.err", task_id=task_id).json
    assert error["code"] == "overheated" and error["will_retry"] and "91" in error["error"]
    assert wait_hold(pool, 0, "overheated")["hold"]["reason"] in error["error"]
    record = pool.record(task_id)
    assert record["state"] in ("enqueued", "waiting_gpu") and record["lost"] == 1
    rig.heat(0, 60)
    assert wait_hold(pool, 0, "cooling")["temp_c"] == 60


def test_a_job_on_a_card_that_is_lost_ends_well_on_another(make_pool, make_rig, task_id: str, pipe: Pipe):
    pool, rig = make_pool(**QUICK), make_rig("2xgtx1660")
    pool.start_maestro()
    for gpu in (0, 1):
        pool.start_worker(gpu, **rig.environment)
    pool.bus.submit(**sleeping_job(task_id, pipe, max_retries=0))
    first = int(pipe.line().split()[1])
    rig.nvml(first, "return", 15)
    error = pool.events.wait("gpu.task.err", task_id=task_id).json
    assert error["code"] == "card_failed" and error["gpu_id"] == first and "GPU is lost" in error["error"]
    held = wait_hold(pool, first, "unhealthy")
    assert held["health"][0]["severity"] == "quarantine"
    assert pipe.line() == f"started {1 - first}"
    record = pool.record(task_id)
    assert record["tries"] == 2 and record["lost"] == 1


def test_a_job_that_fails_with_its_card_is_not_to_blame(make_pool, make_rig, task_id: str, pipe: Pipe):
    # The next look by the clock comes too late for this job.
    pool, rig = make_pool(METRICS_SEC=300, METRICS_TTL_SEC=600), make_rig("1xgtx1660")
    pool.start_maestro()
    pool.start_worker(0, **rig.environment)
    job = sleeping_job(task_id, pipe, max_retries=0)
    pool.bus.submit(**job | {"shell": f"trap 'exit 9' USR1; echo $$ > {pipe}; while :; do sleep 0.05; done"})
    pid = int(pipe.line())
    rig.nvml(0, "return", 15)
    os.kill(pid, signal.SIGUSR1)
    error = pool.events.wait("gpu.task.err", task_id=task_id).json
    assert error["code"] == "card_failed" and error["data"]["returncode"] == 9
    assert pool.events.wait("gpu.worker.metrics", count=2).json["hold"]["code"] == "unhealthy"


def test_only_a_probe_ends_a_sickness(make_pool, make_rig, task_id: str):
    pool, rig = make_pool(**QUICK), make_rig("1xgtx1660")
    pool.start_maestro()
    pool.start_worker(0, PROBE_CMD='echo "sees $GPU_PCI_ADDRESS"; test ! -e sick', **rig.environment)

    def probe() -> dict:
        return pool.bus.request("gpu.worker.0.probe", {}, 60)

    rig.nvml(0, "return", 15)
    wait_hold(pool, 0, "unhealthy")
    answer = probe()
    assert not answer["ok"] and "GPU is lost" in answer["evidence"]
    # It answers again, and is tried before it is used.
    rig.nvml(0, "return")
    wait_hold(pool, 0, "unhealthy")
    (pool.gpucache(0) / "sick").touch()
    answer = probe()
    assert not answer["ok"] and "exit status 1" in answer["evidence"]
    wait_hold(pool, 0, "unhealthy")
    (pool.gpucache(0) / "sick").unlink()
    answer = probe()
    assert answer["ok"] and f"sees {rig.cards[0]}" in answer["evidence"]
    assert "health" not in wait_hold(pool, 0, None)
    assert pool.run(task_id=task_id, cmd=["true"])["ok"]


def test_a_reset_spoils_what_runs_and_nothing_else(make_pool, make_rig, task_id: str, pipe: Pipe):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    pool.start_worker(0, **rig.environment)
    pool.bus.submit(**sleeping_job(task_id, pipe, max_retries=0))
    pipe.line()
    rig.answer(0, "vram_lost", 1)
    error = pool.events.wait("gpu.task.err", task_id=task_id).json
    assert error["code"] == "card_failed" and "from 0 to 1" in error["error"]
    # Given back, and started once more.
    assert pipe.line() == "started 0"


def test_an_evicted_job_is_given_back_with_the_leaders_reason(shared: Pool, task_id: str, pipe: Pipe):
    shared.bus.submit(**sleeping_job(task_id, pipe, max_retries=0, gpu=1))
    pipe.line()
    running = attempt(shared, task_id)
    refused = shared.bus.request("gpu.worker.1.evict", running | {"code": "exit"})
    assert not refused["ok"] and "drained" in refused["error"]
    assert shared.bus.request("gpu.worker.1.evict", running | {"code": "drained", "reason": "for the test"})["ok"]
    error = shared.events.wait("gpu.task.err", task_id=task_id).json
    assert error["code"] == "drained" and error["error"] == "for the test" and error["will_retry"]
    assert pipe.line() == "started 1"
    again = attempt(shared, task_id)
    assert again["attempt_id"] != running["attempt_id"]
    assert not shared.bus.request("gpu.worker.1.evict", running | {"code": "drained"})["ok"]
    shared.bus.request("maestro.api.cancel", {"task_id": task_id})
    shared.wait_state(task_id, "cancelled")


@pytest.mark.parametrize("verb, content", [("evict", b"nonsense"), ("evict", {}), ("probe", b"["), ("cancel", [1])])
def test_a_malformed_request_is_answered(shared: Pool, verb: str, content: Any):
    answer = shared.bus.request(f"gpu.worker.0.{verb}", content)
    assert not answer["ok"] and answer["error"]


def test_a_processor_is_never_held(shared: Pool):
    assert shared.bus.request("gpu.worker.0.probe", {}, 60)["ok"]
    assert "hold" not in shared.events.wait("gpu.worker.metrics", gpu_id=0).json


def test_metrics_say_whose_the_processes_on_the_card_are(make_pool, make_rig, task_id: str, pipe: Pipe):
    pool, rig = make_pool(**QUICK), make_rig("1xgtx1660")
    pool.start_maestro()
    pool.start_worker(0, **rig.environment)
    pool.bus.submit(task_id=task_id, type="shell", shell=f"sh -c 'echo $$ > {pipe}; exec sleep 1000' & wait")
    pid = int(pipe.line())
    rig.nvml(0, "process", pid)

    def probe() -> list | None:
        return pool.events.all("gpu.worker.metrics", gpu_id=0)[-1].json.get("processes")

    used = pool.events.wait_until(probe, what="the processes of the card")
    assert used == [{"pid": pid, "task_id": task_id, "vram_bytes": 256 << 20}]


def test_the_registration_tells_the_facts_of_the_card(make_pool, make_rig):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    pool.start_worker(0, **rig.environment)
    _, registration = pool.bus.last("ORG_CTL", "gpu.ctl.worker-0")
    up = pool.events.wait("gpu.worker.up", gpu_id=0).json
    assert registration["facts"]["pci"] == rig.cards[0]
    assert registration["facts"] == {name: value for name, value in up.items() if name in registration["facts"]}


# ------------------------------------------------------------------------------------------------ power and profiles


def wait_metrics(pool: Pool, gpu: int, **fields: Any) -> dict:
    """The first metrics from now on with these fields."""
    seen = len(pool.events.all("gpu.worker.metrics", gpu_id=gpu, **fields))
    return pool.events.wait("gpu.worker.metrics", gpu_id=gpu, **fields, count=seen + 1).json


def test_the_power_of_a_radeon_is_set_and_put_back(make_pool, make_rig):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    worker = pool.start_worker(0, POWER_CAP_W=110, PERF_LEVEL="low", **rig.environment)
    assert wait_metrics(pool, 0)["power_cap_w"] == 110
    assert rig.value(0, "power_dpm_force_performance_level") == "low"
    worker.terminate()
    assert rig.value(0, "hwmon/power1_cap") == "145000000"
    assert rig.value(0, "power_dpm_force_performance_level") == "auto"


def test_the_power_of_a_geforce_is_set_within_its_bounds_and_put_back(make_pool, make_rig):
    pool, rig = make_pool(**QUICK), make_rig("1xgtx1660")
    pool.start_maestro()
    worker = pool.start_worker(0, POWER_CAP_W=50, PERF_LEVEL="low", **rig.environment)
    assert wait_metrics(pool, 0)["power_cap_w"] == 70
    worker.wait_for_line("50.0 W is beyond what the card takes; 70.0 W is set")
    worker.wait_for_line("performance level: this card has none that can be set")
    worker.terminate()
    assert rig.nvml_value(0, "power_cap") == "120000"


def test_a_killed_workers_power_cap_is_put_back_by_its_next_life(make_pool, make_rig, task_id: str):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    pool.start_worker(0, POWER_CAP_W=110, **rig.environment).kill()
    assert rig.value(0, "hwmon/power1_cap") == "110000000"
    # Killed once more: what the card had before the first of them counts.
    pool.start_worker(0, POWER_CAP_W=90, **rig.environment).kill()
    assert rig.value(0, "hwmon/power1_cap") == "90000000"
    pool.start_worker(0, **rig.environment)
    assert rig.value(0, "hwmon/power1_cap") == "145000000"
    assert pool.run(task_id=task_id, cmd=["true"])["ok"]


def test_what_may_not_be_set_is_told_once_and_harms_nothing(make_pool, make_rig, task_id: str):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    rig.write_fault(0, "hwmon/power1_cap", "errno 13")
    worker = pool.start_worker(0, POWER_CAP_W=110, **rig.environment)
    worker.wait_for_line("power cap: not changed: Permission denied .* that takes root")
    assert pool.run(task_id=task_id, cmd=["true"])["ok"]
    for _ in range(3):
        wait_metrics(pool, 0)
    assert sum("power cap: not changed" in line for line in worker.lines) == 1
    assert worker.terminate() == 0


def test_a_driver_that_is_busy_is_asked_again(make_pool, make_rig):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    rig.write_fault(0, "hwmon/power1_cap", "errno 16")
    worker = pool.start_worker(0, POWER_CAP_W=110, **rig.environment)
    worker.wait_for_line("power cap: not changed: Device or resource busy")
    rig.write_fault(0, "hwmon/power1_cap", None)
    wait_metrics(pool, 0, power_cap_w=110)


def test_a_sleeping_card_is_not_woken_for_its_power_cap(make_pool, make_rig):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    rig.set(0, "power/runtime_status", "suspended")
    pool.start_worker(0, POWER_CAP_W=110, **rig.environment)
    assert "hold" not in wait_metrics(pool, 0, asleep=True)
    assert rig.value(0, "hwmon/power1_cap") == "145000000"
    rig.set(0, "power/runtime_status", "active")
    wait_metrics(pool, 0, power_cap_w=110)


def test_night_and_day_change_limits_and_power(make_pool, make_rig):
    # It is day for the clock all day long.
    pool, rig = make_pool(**QUICK, DAY_WINDOW="00-24"), make_rig("1xrx580")
    pool.start_maestro()
    pool.start_worker(0, NIGHT_POWER_CAP_W=90, NIGHT_MAX_TEMP_C=60, DAY_MAX_TEMP_C=75, **rig.environment)
    assert wait_metrics(pool, 0, temp_limit_c=75)["power_cap_w"] == 145
    pool.bus.publish("circadian.phase", {"phase": "dusk"})
    pool.events.wait_until(lambda: any("phase must be day or night" in one.json["message"]
                                       for one in pool.events.all("gpu.worker.log")), what="a word about a bad phase")
    pool.bus.publish("circadian.phase", {"phase": "night"})
    night = wait_metrics(pool, 0, temp_limit_c=60)
    assert night["hold"]["code"] == "hot" and night["temp_c"] == 67
    wait_metrics(pool, 0, power_cap_w=90)
    pool.bus.publish("circadian.phase", {"phase": "day"})
    wait_metrics(pool, 0, temp_limit_c=75)
    wait_metrics(pool, 0, power_cap_w=145)


def test_the_width_of_the_link_is_remembered(make_pool, make_rig):
    pool, rig = make_pool(**QUICK), make_rig("1xrx580")
    pool.start_maestro()
    rig.set(0, "current_link_width", 8)
    worker = pool.start_worker(0, **rig.environment)
    wait_metrics(pool, 0, pcie_width=8)
    worker.terminate()
    rig.set(0, "current_link_width", 1)
    pool.start_worker(0, **rig.environment)

    def narrowed() -> list:
        return [one.json for one in pool.events.all("gpu.worker.metrics")
                if any(finding["reason"] == "link_narrowed" for finding in one.json.get("health", []))]

    found = pool.events.wait_until(narrowed, what="a narrow link")
    assert "it had x8" in found[0]["health"][0]["evidence"] and "hold" not in found[0]
    # A probe that succeeds makes the present width the measure.
    assert pool.bus.request("gpu.worker.0.probe", {}, 60)["ok"]
    for _ in range(5):
        wait_metrics(pool, 0)
    assert "health" not in pool.events.all("gpu.worker.metrics")[-1].json


@pytest.mark.parametrize("key, value", [("POWER_CAP_W", "much"), ("PERF_LEVEL", "warp"), ("DAY_WINDOW", "7 to 22"),
                                        ("MAX_TEMP_C", "200"), ("ALLOW_UNKNOWN_TEMP", "perhaps")])
def test_nonsense_in_the_configuration_stops_the_start(make_pool, key: str, value: str):
    worker = make_pool().start_worker(0, wait=False, **{key: value})
    assert worker.wait() == 78
    assert any(key in line and value in line for line in worker.lines)
