"""A worker that was told the submitters' public keys runs nothing else."""

import json
import os
import re
import subprocess
from pathlib import Path

import nkeys
import pytest
from harness import BIN_DIR, TOP, Pool


def make_key(directory: Path, name: str) -> tuple[Path, str]:
    """A file with a new seed, and the public key."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    path = directory / f"{name}.nk"
    path.write_bytes(seed + b"\n")
    return path, nkeys.from_seed(bytearray(seed)).public_key.decode()


@pytest.fixture
def anna(tmp_path: Path) -> tuple[Path, str]:
    return make_key(tmp_path, "anna")


@pytest.fixture
def pool(make_pool, tmp_path: Path, anna) -> Pool:
    """Its worker knows anna alone."""
    trusted = tmp_path / "submitters"
    trusted.write_text(f"# people\n{anna[1]} anna\n")
    pool = make_pool()
    pool.start_maestro()
    pool.start_worker(0, TRUSTED_SUBMITTERS=trusted)
    return pool


def submit(pool: Pool, *arguments: object, **settings: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BIN_DIR / "maestroctl", "submit", "--config", "/dev/null", *map(str, arguments)],
        env=pool.environment(**settings), capture_output=True, text=True,
    )


def refusal(pool: Pool, job: str) -> str:
    result = pool.wait_result(job)
    assert (result["state"], result["code"]) == ("rejected", "forbidden")
    return result["error"]


def test_signed_tasks_run(pool: Pool, anna, tmp_path: Path):
    done = submit(pool, "--sign-with", anna[0], "--wait", "--", "echo", "signed")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "signed"), done.stderr
    done = submit(pool, "--wait", "--", "echo", "by the configuration", SIGN_WITH=anna[0])
    assert done.returncode == 0, done.stderr
    lines = tmp_path / "jobs.jsonl"
    lines.write_text('{"task_id":"one","cmd":["true"]}\n{"task_id":"two","cmd":["true"]}\n')
    assert submit(pool, "--sign-with", anna[0], "--from-file", lines).returncode == 0
    assert {pool.wait_result(job)["state"] for job in ("one", "two")} == {"done"}
    again = subprocess.run([BIN_DIR / "maestroctl", "retry", "--config", "/dev/null", "--sign-with", anna[0], "one"],
                           env=pool.environment(), capture_output=True, text=True)
    assert pool.wait_result(again.stdout.strip())["state"] == "done"


def test_nothing_else_does(pool: Pool, anna, tmp_path: Path):
    pool.bus.submit(task_id="unsigned", cmd=["true"])
    assert "it is not signed" in refusal(pool, "unsigned")
    stranger, name = make_key(tmp_path, "stranger")
    assert submit(pool, "--sign-with", stranger, "--id", "strange", "--", "true").returncode == 0
    assert f"signed by {name}" in refusal(pool, "strange")

    assert submit(pool, "--sign-with", anna[0], "--id", "good", "--", "echo", "mine").returncode == 0
    signed = pool.wait_result("good") and json.dumps(pool.record("good")["task"], separators=(",", ":"))
    assert ',"signature":"' in signed
    for job, forged in {
        "changed": signed.replace('"mine"', '"ours"').replace('"good"', '"changed"'),
        "renamed": signed.replace('"good"', '"renamed"'),
    }.items():
        pool.bus.store("gpu.task.enqueue", forged.encode(), f"sub:{job}")
        assert "was changed after it was signed" in refusal(pool, job)


def test_a_signed_task_that_names_no_id_is_not_run(pool: Pool, anna):
    """It could be submitted again and again."""
    body = b'{"cmd":["true"]}'
    seed = anna[0].read_bytes().strip()
    signature = nkeys.from_seed(bytearray(seed)).sign(body).hex()
    pool.bus.store("gpu.task.enqueue", body[:-1] + f',"signature":"{anna[1]}:{signature}"}}'.encode(), None)
    result = pool.events.wait("gpu.task.err", code="forbidden")
    assert "name their task_id" in result.json["error"]


def test_the_snippet_of_the_protocol_signs(pool: Pool, anna):
    text = (TOP / "docs/PROTOCOL.md").read_text()
    snippet = re.search(r"```python\n(def sign.*?)```", text, re.DOTALL)
    assert snippet
    names: dict = {}
    exec("import json\nimport nkeys\n" + snippet.group(1), names)
    payload = names["sign"]({"task_id": "by-python", "cmd": ["true"]}, anna[0].read_bytes().strip())
    pool.bus.store("gpu.task.enqueue", payload, "sub:by-python")
    assert pool.wait_result("by-python")["state"] == "done"


def test_a_list_that_cannot_be_read_keeps_the_worker_from_starting(pool: Pool, tmp_path: Path):
    wrong = tmp_path / "wrong"
    wrong.write_text("# people\nanna\n")
    worker = pool.start_worker(1, wait=False, TRUSTED_SUBMITTERS=wrong)
    assert worker.wait() == 78
    assert worker.wait_for_line(r"TRUSTED_SUBMITTERS: .*wrong line 2: \"anna\" is no public NKey")
