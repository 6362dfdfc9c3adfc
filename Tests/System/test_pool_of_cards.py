"""A pool of made-up cards: each with its own values and jobs, jobs where they belong, sick cards out of the way."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import BIN_DIR, DEADLINE, Pool
from rig import Rig

MAX_TEMP = 70
MAX_BUSY = 95


def start(make_pool: Callable[..., Pool], rig: Rig, **settings: object) -> Pool:
    """A maestro, and a worker on each card."""
    pool = make_pool(MAX_TEMP_C=MAX_TEMP, MAX_BUSY_PERCENT=MAX_BUSY, METRICS_SEC=0.3, **settings)
    pool.start_maestro()
    for card in range(len(rig.cards)):
        pool.start_worker(card, wait=False, **rig.environment)
    for card in range(len(rig.cards)):
        pool.events.wait("gpu.worker.metrics", gpu_id=card)
        pool.events.wait("gpu.worker.heartbeat", gpu_id=card)
    return pool


def maestroctl(pool: Pool, *arguments: str, status: int = 0) -> str:
    done = subprocess.run([BIN_DIR / "maestroctl", *arguments], env=pool.environment(), capture_output=True, text=True,
                          timeout=DEADLINE, check=False)
    assert done.returncode == status, f"maestroctl {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def cards_of(pool: Pool) -> dict[int, dict]:
    return {card["gpu_id"]: card for card in json.loads(maestroctl(pool, "gpus", "--json"))}


def wait_card(pool: Pool, card: int, what: str, holds: Callable[[dict], object]) -> dict:
    """The card as the leader sees it, once `holds`."""
    seen: dict = {}

    def probe() -> dict | None:
        rows = pool.bus.request("maestro.api.gpus", {})["gpus"]
        seen.update(next((row for row in rows if row["gpu_id"] == card), {}))
        return dict(seen) if holds(seen) else None

    return pool.events.wait_until(probe, DEADLINE, lambda: f"card {card} to be {what}; it is {seen}")


def wait_state(pool: Pool, card: int, state: str) -> dict:
    return wait_card(pool, card, state, lambda row: row.get("state") == state)


def wait_quarantine(pool: Pool, card: int) -> dict:
    """The quarantine, once it is stored."""
    return wait_card(pool, card, "quarantined", lambda row: row.get("quarantine"))["quarantine"]


def values(number: int) -> dict[str, int]:
    """What card N is set to: no two alike."""
    return {"busy": 10 + number, "temperature": 40 + number, "power": 50 + number}


# --------------------------------------------------------------------------------------------------- its own values


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_card_shows_its_own_values_whatever_the_numbers_of_its_nodes(make_pool, make_rig, seed: int):
    rig = make_rig("2xrx580,1xintel,2xgtx1660,2xrx580,1xgtx1060", seed)
    for card in range(len(rig.cards)):
        rig.load(card, values(card)["busy"])
        rig.heat(card, values(card)["temperature"])
        rig.draw(card, values(card)["power"])
    pool = start(make_pool, rig)

    listed = subprocess.run([BIN_DIR / "gpu-worker", "--list", "--json"], env=pool.environment(**rig.environment),
                            capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert {card["gpu_id"]: card["pci"] for card in json.loads(listed.stdout)["cards"]} == {
        number: pci for number, pci in enumerate(rig.cards)}
    assert [card["pci"] for card in json.loads(listed.stdout)["left_out"]] == rig.integrated

    for card in range(len(rig.cards)):
        wait_card(pool, card, "read", lambda row: "busy_percent" in row)
    shown = cards_of(pool)
    for card, pci in enumerate(rig.cards):
        expected = values(card)
        metrics = pool.events.wait("gpu.worker.metrics", gpu_id=card, pci=pci).json
        assert (metrics["gpu_busy_percent"], metrics["temp_c"], metrics["power_w"]) == (
            expected["busy"], expected["temperature"], expected["power"])
        assert pool.events.wait("gpu.worker.heartbeat", gpu_id=card).json["slots"] == 1
        row = shown[card]
        assert (row["pci"], row["state"]) == (pci, "up")
        assert ("GTX" if rig.is_nvidia(card) else "580") in row["model"]
        assert (row["busy_percent"], row["temp_c"], row["power_w"]) == (
            expected["busy"], expected["temperature"], expected["power"])


# ---------------------------------------------------------------------------------------------------- its own jobs


def test_a_job_sees_exactly_its_card(make_pool, make_rig):
    rig = make_rig("2xrx580,2xgtx1660")
    pool = start(make_pool, rig)
    for card, pci in enumerate(rig.cards):
        # What the job asks for would give it another card.
        result = pool.run(task_id=f"env-{card}", cmd=["env"], gpu=card,
                          env={"CUDA_VISIBLE_DEVICES": "0,1,2,3", "HIP_VISIBLE_DEVICES": "3", "PLAIN": "stays"})
        told = dict(line.split("=", 1) for line in result["data"]["stdout"].splitlines())
        assert told["GPU_PCI_ADDRESS"] == pci
        assert told["GPU_ID"] == str(card)
        assert told["PLAIN"] == "stays"
        assert "CUDA_VISIBLE_DEVICES" in told["GPU_BINDING_REPLACED"]
        assert "LD_PRELOAD" not in told
        facts = pool.events.wait("gpu.worker.up", gpu_id=card).json
        if rig.is_nvidia(card):
            assert told["CUDA_VISIBLE_DEVICES"] == facts["uuid"]
            assert told["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        else:
            assert "CUDA_VISIBLE_DEVICES" not in told
            assert told["GPU_RENDER_NODE"] == facts["render_node"]
            assert told["DRI_PRIME"] == "pci-" + pci.replace(":", "_").replace(".", "_")


def test_an_integrated_card_and_a_processor_are_bound_too(make_pool, make_rig):
    rig = make_rig("1xintel,1xrx580")
    pool = make_pool()
    pool.start_maestro()
    # Only the other one is left out: the integrated one is card 0. It has no sensor of its own for its temperature.
    pool.start_worker(0, **(rig.environment | {"GPU_EXCLUDE": rig.cards[0], "ALLOW_UNKNOWN_TEMP": "yes"}))
    pool.start_worker(1)
    told = {}
    for card in (0, 1):
        result = pool.run(task_id=f"env-{card}", cmd=["env"], gpu=card, env={"CUDA_VISIBLE_DEVICES": "0", "DRI_PRIME": "1"})
        told[card] = dict(line.split("=", 1) for line in result["data"]["stdout"].splitlines())
        assert told[card]["CUDA_VISIBLE_DEVICES"] == ""
        assert told[card]["GPU_BINDING_REPLACED"] == "CUDA_VISIBLE_DEVICES DRI_PRIME"
    assert (told[0]["GPU_VENDOR"], told[0]["GPU_PCI_ADDRESS"]) == ("intel", rig.integrated[0])
    assert told[0]["DRI_PRIME"] == "pci-" + rig.integrated[0].replace(":", "_").replace(".", "_")
    assert (told[1]["GPU_VENDOR"], told[1]["POCL_DEVICES"]) == ("cpu", "pthread")
    assert "GPU_PCI_ADDRESS" not in told[1] and "DRI_PRIME" not in told[1]


# ----------------------------------------------------------------------------------------------------- where jobs go


def score(candidate: dict) -> float:
    """The rule of the design."""
    busy = candidate.get("busy_percent")
    temperature = candidate.get("temp_c")
    return ((50 if busy is None else busy) + 0.5 * (60 if temperature is None else temperature)
            + (30 if candidate["stale"] else 0))


def test_jobs_go_where_the_score_says_and_to_no_card_over_its_limit(make_pool, make_rig, tmp_path: Path):
    rig = make_rig("12xrx580")
    log = tmp_path / "decisions.jsonl"
    pool = start(make_pool, rig, DECISION_LOG=log)
    hot = set()
    for number in range(200):
        # Readings that change while the jobs run: each card in its own rhythm, one in three gets too hot at times.
        card = number * 5 % 12
        rig.load(card, number * 7 % 90)
        celsius = 45 + number * 11 % 40
        hot |= {card} if celsius > MAX_TEMP else set()
        rig.heat(card, celsius)
        pool.bus.submit(task_id=f"scored-{number}", type="shell", shell="sleep 0.05")
    for number in range(200):
        assert pool.wait_result(f"scored-{number}")["ok"] is True
    assert hot

    decisions = [json.loads(line) for line in log.read_text().splitlines()]
    assert {one["task_id"] for one in decisions} >= {f"scored-{number}" for number in range(200)}
    compared = 0
    for one in decisions:
        candidates = {candidate["gpu_id"]: candidate for candidate in one["candidates"]}
        chosen = candidates[one["gpu"]]
        assert not chosen.get("objection")
        assert chosen["stale"] or chosen.get("temp_c", 0) <= MAX_TEMP
        assert chosen["score"] == pytest.approx(score(chosen))
        for other in candidates.values():
            # Of the cards that may be used and hold as little, none is better.
            if not other.get("objection") and other["load"] == chosen["load"]:
                assert score(chosen) <= score(other) + 1e-9, one
                compared += 1
            assert other["stale"] or other.get("temp_c", 0) <= MAX_TEMP or other["objection"], one
    assert compared > len(decisions)


def test_a_card_that_heats_up_is_left_and_taken_again_when_it_has_cooled(make_pool, make_rig):
    rig = make_rig("2xrx580")
    pool = start(make_pool, rig, COOL_SEC=1)
    rig.heat(0, MAX_TEMP + 2)
    row = wait_state(pool, 0, "hot")
    assert str(MAX_TEMP) in row["reason"]
    pool.bus.submit(task_id="pinned", cmd=["true"], gpu=0)
    pool.wait_state("pinned", "waiting_gpu")
    why = maestroctl(pool, "why", "pinned")
    assert "hot" in why
    assert all(pool.run(task_id=f"away-{number}", cmd=["true"])["data"]["gpu_id"] == 1 for number in range(5))
    # Under the limit again, and not yet cool: the hysteresis holds.
    seen = len(pool.events.all("gpu.worker.metrics", gpu_id=0))
    rig.heat(0, MAX_TEMP - 1)
    pool.events.wait("gpu.worker.metrics", gpu_id=0, count=seen + 3)
    assert pool.record("pinned")["state"] == "waiting_gpu"
    rig.heat(0, 40)
    assert pool.wait_result("pinned")["ok"] is True
    wait_state(pool, 0, "up")


def test_a_job_on_a_card_that_overheats_ends_and_runs_elsewhere_for_no_retry(make_pool, make_rig, tmp_path: Path):
    rig = make_rig("1xrx580,1xgtx1660")
    pool = start(make_pool, rig, COOL_SEC=1)
    radeon, geforce = 0, 1
    rig.load(geforce, 90)
    wait_card(pool, geforce, "busy", lambda row: row.get("busy_percent") == 90)
    go = tmp_path / "go"
    pool.bus.submit(task_id="heats", type="shell", max_retries=0,
                    shell=f"echo $GPU_ID; while [ ! -e {go} ]; do sleep 0.1; done")
    assert pool.wait_state("heats", "running")["gpu"] == radeon
    rig.heat(radeon, 92)
    error = pool.events.wait("gpu.task.err", task_id="heats").json
    assert error["code"] == "overheated"
    assert "92" in error["error"]
    go.touch()
    result = pool.wait_result("heats")
    assert (result["ok"], result["data"]["gpu_id"]) == (True, geforce)
    assert pool.record("heats")["lost"] == 1


def test_a_day_of_typos_quarantines_nothing(make_pool, make_rig):
    rig = make_rig("3xrx580,1xgtx1660")
    pool = start(make_pool, rig)
    typos = [{"cmd": ["pyhton3", "train.py"]}, {"type": "shell", "shell": "pyhton3 train.py"},
             {"cmd": ["python3", "no-such-file.py"]}, {"type": "shell", "shell": "exit 3"}]
    for number in range(200):
        pool.bus.submit(task_id=f"typo-{number}", max_retries=1, **typos[number % 4])
    for number in range(200):
        assert pool.wait_result(f"typo-{number}")["ok"] is False
    assert {row["state"] for row in cards_of(pool).values()} == {"up"}


def test_a_card_on_which_alone_jobs_fail_is_quarantined_and_the_jobs_end_well(make_pool, make_rig):
    rig = make_rig("3xrx580")
    pool = start(make_pool, rig)
    sick = 1
    for number in range(30):
        pool.bus.submit(task_id=f"work-{number}", type="shell", max_retries=3,
                        shell=f'sleep 0.05; [ "$GPU_ID" != {sick} ] || exit 9')
    for number in range(30):
        assert pool.wait_result(f"work-{number}")["ok"] is True
    quarantine = wait_quarantine(pool, sick)
    assert quarantine["kind"] == "failures"
    assert "work-" in quarantine["evidence"]
    assert {number for number, row in cards_of(pool).items() if row["state"] == "up"} == {0, 2}
    maestroctl(pool, "clear", str(sick))
    wait_card(pool, sick, "cleared", lambda row: row.get("state") != "quarantined")


# -------------------------------------------------------------------------------------------------------- sick cards

SICK = {
    "gone": ("rx580", lambda rig, card: rig.pull(card)),
    "unreachable": ("rx580", lambda rig, card: rig.attribute(card, "config").write_bytes(b"\xff" * 64)),
    "driver_failed": ("rx580", lambda rig, card: rig.answer(card, "accel_working", 0)),
    "lost": ("gtx1660", lambda rig, card: rig.nvml(card, "return", 15)),
    "reset_required": ("gtx1660", lambda rig, card: rig.nvml(card, "return", 16)),
    "driver_mismatch": ("gtx1660", lambda rig, card: rig.nvml(card, "return", 18)),
    "xid": ("gtx1660", lambda rig, card: rig.nvml(card, "xid", 79)),
}


@pytest.mark.parametrize("reason", SICK)
def test_a_sick_card_is_quarantined_with_evidence_and_its_job_ends_well_elsewhere(make_pool, make_rig, tmp_path, reason):
    kind, break_it = SICK[reason]
    rig = make_rig(f"1x{kind},1xrx580")
    pool = start(make_pool, rig)
    sick, well = 0, 1
    rig.load(sick, 0)
    rig.load(well, 90)
    wait_card(pool, sick, "idle", lambda row: row.get("busy_percent") == 0)
    wait_card(pool, well, "busy", lambda row: row.get("busy_percent") == 90)
    go = tmp_path / "go"
    pool.bus.submit(task_id="victim", type="shell", max_retries=0, shell=f"while [ ! -e {go} ]; do sleep 0.1; done")
    assert pool.wait_state("victim", "running")["gpu"] == sick
    break_it(rig, sick)
    quarantine = wait_quarantine(pool, sick)
    assert quarantine["kind"] == "health"
    assert quarantine["reason"] == reason
    assert quarantine["evidence"]
    assert pool.events.wait("gpu.task.err", task_id="victim").json["code"] == "card_failed"
    go.touch()
    result = pool.wait_result("victim")
    assert (result["ok"], result["data"]["gpu_id"]) == (True, well)
    shown = maestroctl(pool, "gpus", "show", str(sick))
    assert quarantine["evidence"] in " ".join(shown.split())


def test_a_card_whose_driver_dumped_its_state_is_tried_with_one_job_at_a_time(make_pool, make_rig, tmp_path: Path):
    rig = make_rig("2xrx580")
    pool = start(make_pool, rig)
    go = tmp_path / "go"
    pool.bus.submit(task_id="victim", type="shell", max_retries=0, shell=f"while [ ! -e {go} ]; do sleep 0.1; done")
    sick = pool.wait_state("victim", "running")["gpu"]
    node = next((rig.attribute(sick, "drm")).glob("card*"))
    (node / "device/devcoredump").mkdir(parents=True)
    (node / "device/devcoredump/data").write_text("dump")
    error = pool.events.wait("gpu.task.err", task_id="victim").json
    assert (error["code"], error["gpu_id"]) == ("card_failed", sick) and "devcoredump" in error["error"]
    assert wait_card(pool, sick, "on probation", lambda row: row.get("probation"))["probation"]["strikes"] >= 0
    go.touch()
    assert pool.wait_result("victim")["ok"] is True
    for number in range(3):
        assert pool.run(task_id=f"trial-{number}", cmd=["true"], gpu=sick)["ok"] is True
    wait_card(pool, sick, "trusted again", lambda row: row["state"] == "up" and not row.get("probation"))


def test_a_card_whose_sensor_fails_is_unknown_and_gets_no_job_unless_told(make_pool, make_rig):
    rig = make_rig("2xrx580")
    broken, well = 0, 1
    pool = start(make_pool, rig)
    for content in ("garbage", "", "-273000", "511000", "9" * 5000):
        if content:
            rig.set(broken, "hwmon/temp1_input", content)
        else:
            rig.fault(broken, "hwmon/temp1_input", "errno 5")
        wait_state(pool, broken, "sensor")
        assert pool.run(task_id=f"sensor-{len(content)}-{content[:3]}", cmd=["true"])["data"]["gpu_id"] == well
        if not content:
            rig.fault(broken, "hwmon/temp1_input", None)
        rig.heat(broken, 40)
        wait_state(pool, broken, "up")
    pool.workers["0"].terminate()
    pool.start_worker(0, **(rig.environment | {"ALLOW_UNKNOWN_TEMP": "yes"}))
    rig.fault(broken, "hwmon/temp1_input", "errno 5")
    pool.events.wait("gpu.worker.metrics", gpu_id=0, sensor_faults={"temperature": "EIO"})
    assert pool.run(task_id="allowed", cmd=["true"], gpu=0)["ok"] is True


def test_a_hanging_sensor_delays_neither_heartbeats_nor_jobs(make_pool, make_rig):
    rig = make_rig("1xrx580")
    pool = start(make_pool, rig)
    rig.fault(0, "hwmon/power1_input", "delay 30000")
    beats = len(pool.events.all("gpu.worker.heartbeat"))
    started = time.monotonic()
    for number in range(5):
        assert pool.run(task_id=f"while-hanging-{number}", cmd=["true"])["ok"] is True
    pool.events.wait("gpu.worker.heartbeat", count=beats + 3)
    # The sensor still hangs: all this happened within one read of it.
    assert time.monotonic() - started < 30


# ------------------------------------------------------------------------------------------------ an operator's word


def test_cordon_drain_quarantine_and_clear(make_pool, make_rig, tmp_path: Path):
    rig = make_rig("2xrx580")
    pool = start(make_pool, rig)
    first, second = 0, 1
    maestroctl(pool, "cordon", "0", "--reason", "new fan")
    row = wait_state(pool, first, "cordoned")
    assert "new fan" in row["reason"]
    assert all(pool.run(task_id=f"cordoned-{number}", cmd=["true"])["data"]["gpu_id"] == 1 for number in range(3))
    # A maestro that takes over knows it too.
    pool.maestros[-1].kill()
    pool.start_maestro()
    wait_state(pool, first, "cordoned")
    maestroctl(pool, "uncordon", "0")
    wait_state(pool, first, "up")
    assert pool.run(task_id="back", cmd=["true"], gpu=0)["ok"] is True

    go = tmp_path / "go"
    pool.bus.submit(task_id="long", type="shell", max_retries=0, gpu=1, shell="sleep 1000")
    pool.bus.submit(task_id="mobile", type="shell", max_retries=0, shell=f"while [ ! -e {go} ]; do sleep 0.1; done")
    pool.wait_state("long", "running")
    pool.wait_state("mobile", "running")
    maestroctl(pool, "drain", "0", "--deadline", "1s", "--reason", "dust")
    assert pool.events.wait("gpu.task.err", task_id="mobile").json["code"] == "drained"
    assert wait_state(pool, first, "cordoned")
    pool.bus.request("maestro.api.cancel", {"task_id": "long"})
    go.touch()
    result = pool.wait_result("mobile")
    assert (result["ok"], result["data"]["gpu_id"]) == (True, second)

    maestroctl(pool, "quarantine", "1", "--reason", "smells")
    assert "smells" in wait_state(pool, second, "quarantined")["reason"]
    maestroctl(pool, "clear", "1")
    wait_state(pool, second, "up")
    maestroctl(pool, "cordon", "7", "--reason", "x", status=66)


def test_two_workers_of_one_card(make_pool, make_rig):
    rig = make_rig("1xrx580")
    pool = start(make_pool, rig)
    first = pool.workers["0"]
    second = pool.start_worker(0, wait=False, **rig.environment)
    assert second.wait() == 73
    assert str(first.pid) in "\n".join(second.lines)
    pool.workers["0"] = first
    beyond = pool.start_worker(1, wait=False, **rig.environment)
    assert beyond.wait() == 78
