"""The journal of submissions on real programs: what a disaster takes from the pool is submitted again, once."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from harness import BIN_DIR, DEADLINE, Pool


class Client:
    """maestroctl, with a journal of its own."""

    def __init__(self, pool: Pool, journal: Path):
        self.pool = pool
        self.journal = journal

    def __call__(self, *arguments: str, status: int = 0, stdin: str | None = None,
                 state: Path | None = None) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [BIN_DIR / "maestroctl", *arguments], input=stdin, capture_output=True, text=True, timeout=DEADLINE * 2,
            env=self.pool.environment(XDG_STATE_HOME=state or self.journal),
        )
        assert ended.returncode == status, (arguments, ended)
        return ended

    def reconcile(self, *arguments: str, status: int = 0) -> tuple[dict[str, str], dict]:
        """What was done about each job that has not ended, and the counts."""
        lines = [json.loads(line) for line in self("reconcile", "--json", *arguments, status=status).stdout.splitlines()]
        return {line["task_id"]: line["action"] for line in lines[:-1]}, lines[-1]

    def files(self) -> list[Path]:
        return sorted(self.journal.rglob("*.jsonl"))


@pytest.fixture
def client(make_pool, tmp_path: Path) -> Client:
    return Client(make_pool(), tmp_path / "state")


def task(name: str, **more: object) -> str:
    return json.dumps({"task_id": name, "type": "shell", "shell": "true"} | more) + "\n"


def test_what_a_lost_disk_took_is_submitted_again_and_runs_once(client: Client):
    pool = client.pool
    pool.start_maestro()
    pool.start_worker(0)
    client("submit", "--from-file", "-", stdin="".join(task(f"before-{n}") for n in range(20)))
    client("wait", *(f"before-{n}" for n in range(20)))
    client("submit", "--from-file", "-", stdin="".join(task(f"seen-late-{n}") for n in range(5)))
    for n in range(5):
        pool.wait_result(f"seen-late-{n}")
    # Their ends are seen now, and forgotten.
    actions, counts = client.reconcile()
    assert actions == {} and counts["ended"] == 5 and counts["ok"] is True
    pool.workers["0"].terminate()
    client("submit", "--from-file", "-", stdin="".join(task(f"after-{n}") for n in range(30)))
    pool.wait_state("after-29", "waiting_gpu", "enqueued")

    # The disk is gone, with all that was on it.
    pool.maestros[0].kill()
    pool.server.kill()
    shutil.rmtree(pool.server.directory / "store")
    pool.server.start()
    # Its own client may come back too late to hear that it leads.
    heard = len(pool.maestro_events.all("maestro.heartbeat", alive=True))
    pool.start_maestro(leading=False)
    pool.maestro_events.wait("maestro.heartbeat", alive=True, count=heard + 1)
    actions, counts = client.reconcile("--dry-run")
    assert set(actions.values()) == {"would_resubmit"} and len(actions) == 30 and counts["resubmitted"] == 0
    assert all(pool.record(name) is None for name in actions)
    actions, counts = client.reconcile()
    assert actions == {f"after-{n}": "resubmitted" for n in range(30)} and counts["resubmitted"] == 30
    pool.start_worker(0)
    for n in range(30):
        assert pool.wait_state(f"after-{n}")["state"] == "done"
    # Whoever asks again gets the same answer, and nothing runs twice.
    actions, counts = client.reconcile()
    assert actions == {} and counts["ended"] == 30
    assert pool.record("after-0")["tries"] == 1 and pool.record("before-0") is None
    pool.wait_empty()


def test_submissions_are_synced_together_before_they_are_sent(client: Client):
    client.pool.start_maestro()
    lines = "".join(task(f"job-{n}") for n in range(10_000))
    ended = client("submit", "--from-file", "-", "--json", stdin=lines)
    assert len(ended.stdout.splitlines()) == 10_000
    journal, = client.files()
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [entry["task_id"] for entry in entries] == [f"job-{n}" for n in range(10_000)]
    assert entries[7]["task"] + "\n" == task("job-7")
    assert journal.stat().st_mode & 0o077 == 0, "what was submitted is nobody else's business"


def test_the_same_ids_are_known_wherever_the_pool_has_moved(client: Client, make_pool):
    client.pool.start_maestro()
    client("submit", "--id", "moving", "--shell", "true")
    client.pool.maestros[0].terminate()
    client.pool.server.stop()
    moved = make_pool()
    moved.start_maestro()
    there = Client(moved, client.journal)
    actions, _ = there.reconcile()
    assert actions == {}, "the journal of another address is another pool's"
    actions, _ = there.reconcile("--moved-from", client.pool.server.url)
    assert actions == {"moving": "resubmitted"}


def test_what_is_older_than_ids_are_remembered_is_told_and_not_submitted(client: Client):
    pool = client.pool
    pool.start_maestro()
    client("submit", "--id", "old", "--shell", "true")
    journal, = client.files()
    entry = json.loads(journal.read_text())
    entry["at"] = time.time() - 8 * 24 * 3600
    journal.write_text(json.dumps(entry | {"task_id": "forgotten", "task": task("forgotten")}) + "\n")
    actions, counts = client.reconcile(status=1)
    assert actions == {"forgotten": "too_old"} and counts["ok"] is False
    assert pool.record("forgotten") is None
    assert client.reconcile()[0] == {}, "it was told"


def test_without_a_journal_nothing_is_written(client: Client):
    client.pool.start_maestro()
    client("submit", "--no-journal", "--shell", "true")
    assert client.files() == []
    said = client("reconcile").stderr
    assert "no submission" in said


def test_a_journal_that_cannot_be_written_stops_only_who_named_it(client: Client, tmp_path: Path):
    client.pool.start_maestro()
    blocked = tmp_path / "file"
    blocked.write_text("")
    ended = client("submit", "--journal", str(blocked / "journal"), "--shell", "true", status=74)
    assert str(blocked) in ended.stderr and ended.stdout == "", "nothing was sent"
    ended = client("submit", "--shell", "true", state=blocked)
    assert ended.stdout.strip() and "not journalled" in ended.stderr


def test_a_full_queue_ends_with_its_own_code_and_is_not_submitted_later(client: Client):
    pool = client.pool
    pool.start_maestro()
    pool.maestros[0].terminate()
    config = pool.bus.api("STREAM.INFO.ORG_WQ")["config"] | {"max_msgs": 2}
    assert "error" not in pool.bus.api("STREAM.UPDATE.ORG_WQ", config)
    client("submit", "--from-file", "-", stdin=task("a") + task("b"))
    ended = client("submit", "--id", "c", "--shell", "true", status=75)
    assert "queue is full" in ended.stderr
    ended = client("submit", "--from-file", "-", stdin=task("d") + task("e"), status=75)
    assert "queue is full" in ended.stderr and ended.stdout == ""
    # Whoever submitted them was told: only what was taken is remembered.
    actions, _ = client.reconcile("--dry-run")
    assert actions == {"a": "none", "b": "none"}


def test_two_that_submit_at_once_share_the_journal(client: Client):
    client.pool.start_maestro()
    environment = client.pool.environment(XDG_STATE_HOME=client.journal)
    programs = [
        subprocess.Popen([BIN_DIR / "maestroctl", "submit", "--from-file", "-"], stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, env=environment, text=True) for _ in range(3)
    ]
    for number, program in enumerate(programs):
        assert program.stdin
        program.stdin.write("".join(task(f"job-{number}-{n}") for n in range(500)))
        program.stdin.close()
    assert [program.wait(DEADLINE) for program in programs] == [0, 0, 0]
    journal, = client.files()
    names = [json.loads(line)["task_id"] for line in journal.read_text().splitlines()]
    assert len(names) == len(set(names)) == 1500
    assert os.path.getsize(journal) < 1 << 20
