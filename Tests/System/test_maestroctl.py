"""What people type, on a real pool: every verb, for eyes and for programs, with and without a maestro."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BIN_DIR, DEADLINE, Pool, free_port


class Ctl:
    """maestroctl for one pool, with a journal of its own."""

    def __init__(self, pool: Pool, state: Path):
        self.pool = pool
        self.environment = pool.environment(XDG_STATE_HOME=state)

    def __call__(self, *arguments: object, status: int = 0, **options: object) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [BIN_DIR / "maestroctl", *map(str, arguments)], env=self.environment, capture_output=True, text=True,
            timeout=DEADLINE * 2, check=False, **options,
        )
        assert done.returncode == status, f"maestroctl {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def out(self, *arguments: object, status: int = 0) -> str:
        return self(*arguments, status=status).stdout

    def json(self, *arguments: object, status: int = 0) -> list:
        """What is printed: one JSON value a line."""
        return [json.loads(line) for line in self.out(*arguments, "--json", status=status).splitlines()]


@pytest.fixture(scope="module")
def ctl(shared: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctl]:
    yield Ctl(shared, tmp_path_factory.mktemp("state"))


class TestSubmit:
    def test_the_id_stands_alone_on_standard_output(self, ctl: Ctl):
        done = ctl("submit", "--", "true")
        assert re.fullmatch(r"[0-9a-z]{26}\n", done.stdout) and not done.stderr

    def test_waiting_shows_states_and_output_and_ends_with_the_jobs_code(self, ctl: Ctl, task_id: str):
        done = ctl("submit", "--wait", "--id", task_id, "--retries", 0, "--shell", "echo out; echo err >&2; exit 7", status=7)
        assert done.stdout.endswith("out\n") and "err\n" in done.stderr
        assert f"{task_id} failed after 1 attempt: ended with exit status 7" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "output"),
        [
            (["--type", "shell", "--cmd", 'echo "$TASK_ATTEMPT" | cat'], "1\n"),
            (["--type", "shell", "--cmd", "echo", "two", "words"], "two words\n"),
            (["--type", "cmd", "--cmd", "echo", "--json", "--wait"], "--json --wait\n"),
            (["--cmd", "printf", "%s|", "a b", "c"], "a b|c|"),
            (["--env", "A=1 2", "--env", "B==", "--", "sh", "-c", 'echo "$A$B"'], "1 2=\n"),
            (["--name", "a name", "--timeout", "1m", "--priority", "-3", "--", "echo", "all"], "all\n"),
        ],
    )
    def test_every_way_to_say_what_to_run(self, ctl: Ctl, task_id: str, arguments: list[str], output: str):
        assert ctl.out("submit", "--wait", "--task-id", task_id, *arguments).endswith(output)
        assert ctl.json("show", task_id)[0]["state"] == "done"

    def test_a_pipe_in_the_place_of_a_file_is_read_once(self, ctl: Ctl):
        read, write = os.pipe()
        with os.fdopen(write, "w") as lines:
            lines.writelines(f'{{"cmd":["echo","{number}"]}}\n' for number in range(3))
        done = ctl("submit", "--from-file", f"/dev/fd/{read}", pass_fds=(read,))
        os.close(read)
        assert len(done.stdout.splitlines()) == 3 and "3 jobs submitted" in done.stderr

    def test_ctrl_c_says_how_to_go_on(self, ctl: Ctl, task_id: str, pipe):
        waiting = subprocess.Popen(
            [BIN_DIR / "maestroctl", "submit", "--wait", "--id", task_id, "--shell", f"echo up > {pipe}; sleep 1000"],
            env=ctl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        assert pipe.line() == "up"
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=DEADLINE)
        assert waiting.returncode == 130
        assert f"maestroctl watch {task_id}" in said and f"maestroctl cancel {task_id}" in said
        assert ctl.pool.record(task_id)["state"] == "running"
        assert ctl.out("cancel", task_id) == f"{task_id} is being cancelled: its worker kills it\n"
        assert ctl.pool.wait_result(task_id)["state"] == "cancelled"

    @pytest.mark.parametrize(
        ("arguments", "status", "words"),
        [
            (["submit", "true"], 64, ["'true'", "stands after --"]),
            (["submt"], 64, ["submt", "did you mean submit?"]),
            (["submit", "--gpu", "0.5", "--", "true"], 65, ['not "0.5"']),
            (["submit", "--timeout", "-1", "--", "true"], 64, ["'-1'", "a time is 90, 10m"]),
            (["submit", "--timeout", "0", "--", "true"], 65, ["timeout is 0.0 seconds; allowed are"]),
            (["show", "a b"], 64, ["letters, digits"]),
            (["cordon", "x.y"], 64, ["rig1-3"]),
            (["drain", "0", "--deadline", "soon"], 64, ["90, 10m"]),
            (["list", "--state", "bogus"], 64, ["waiting_gpu", "cancelled"]),
        ],
    )
    def test_a_mistake_is_one_line_that_says_what_to_do(self, ctl: Ctl, arguments: list[str], status: int, words: list[str]):
        said = ctl(*arguments, status=status).stderr
        assert said.count("\n") == 1
        for word in words:
            assert word in said


class TestLookingAtJobs:
    def test_watching_tells_the_states_then_the_output_then_the_result(self, ctl: Ctl, task_id: str):
        ctl("submit", "--wait", "--id", task_id, "--", "echo", "printed")
        watched = subprocess.run([BIN_DIR / "maestroctl", "watch", task_id], env=ctl.environment, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, timeout=DEADLINE, check=True)
        lines = watched.stdout.splitlines()
        assert lines[0].startswith(f"{task_id} done") and lines[1] == "printed"
        assert lines[2] == f"{task_id}: result ok, returned 0, attempts 1" and len(lines) == 3

    def test_tail_state_tells_the_states_alone(self, ctl: Ctl, task_id: str):
        ctl("submit", "--wait", "--id", task_id, "--retries", 0, "--shell", "echo printed; exit 2", status=2)
        told = ctl("tail-state", task_id, status=1)
        assert not told.stdout and told.stderr.startswith(f"{task_id} failed after 1 attempt")
        assert told.stderr == ctl("watch", "--states-only", task_id, status=1).stderr
        assert [record["state"] for record in ctl.json("tail-state", task_id, status=1)] == ["failed"]

    def test_a_job_that_runs_again_names_the_old_one(self, ctl: Ctl, task_id: str):
        ctl("submit", "--wait", "--id", task_id, "--", "echo", "again")
        new = ctl.out("retry", task_id).strip()
        assert ctl.pool.wait_result(new)["data"]["stdout"] == "again\n"
        assert ctl.json("show", new)[0]["task"]["retry_of"] == task_id
        assert f"retry of    {task_id}" in ctl.out("show", new)

    def test_jobs_are_listed_by_state(self, ctl: Ctl, task_id: str):
        ctl("submit", "--wait", "--id", task_id, "--retries", 0, "--", "false", status=1)
        assert task_id in [record["task_id"] for record in ctl.json("list", "--state", "failed", "--limit", 0)]
        assert task_id not in [record["task_id"] for record in ctl.json("list", "--state", "done", "--limit", 0)]

    @pytest.mark.parametrize("verb", ["show", "watch", "tail-state", "result", "logs", "why", "retry", "wait"])
    def test_a_job_that_does_not_exist(self, ctl: Ctl, verb: str):
        done = ctl(verb, "no-such-job", status=66)
        assert "there is no job no-such-job" in done.stderr and not done.stdout

    def test_cancelling_what_nobody_submitted_says_so(self, ctl: Ctl, task_id: str):
        assert "nobody has submitted it" in ctl.out("cancel", task_id)

    def test_a_result_that_is_no_longer_kept_is_said_plainly(self, make_pool, tmp_path: Path):
        pool = make_pool()
        pool.start_maestro()
        pool.start_worker(0)
        ctl = Ctl(pool, tmp_path / "state")
        ctl("submit", "--wait", "--id", "old", "--", "echo", "kept in the record")
        # The leader has made sure that the result was told: nobody has to wait for it.
        sequence, _ = pool.bus.last("ORG_JOBS", "gpu.task.state.old")
        pool.events.wait_until(lambda: (pool.bus.last("ORG_CTL", "gpu.ctl.results") or (0, {"through": 0}))[1]["through"] >= sequence,
                               what="the leader's place among the results")
        pool.bus.api("STREAM.PURGE.ORG_EVENTS")
        pool.bus.api("STREAM.PURGE.ORG_LOGS")
        told = ctl("result", "old", status=66)
        assert "no longer kept" in told.stderr and "maestroctl show old" in told.stderr
        assert "kept in the record" in ctl.out("show", "old")
        assert "no longer kept" in ctl("watch", "old").stderr
        assert "no output of old is kept" in ctl("logs", "old").stderr


def test_everything_is_said_in_eighty_columns_and_as_json(make_pool, make_rig, tmp_path: Path):
    pool, rig = make_pool(), make_rig("2xrx580,1xgtx1660")
    pool.start_maestro()
    for card in range(3):
        pool.start_worker(card, **rig.environment)
        pool.events.wait("gpu.worker.metrics", gpu_id=card)
    ctl = Ctl(pool, tmp_path / "state")
    ctl("submit", "--wait", "--id", "done", "--name", "a name that is so long that no table of eighty columns holds it",
        "--", "echo", "x" * 50)
    ctl("submit", "--id", "waits", "--gpu", 7, "--", "true")
    pool.wait_state("waits", "waiting_gpu")
    ctl("cordon", 1, "--reason", "a reason that somebody took the time to write, and which is therefore long " * 2)
    for command in (["list"], ["gpus"], ["gpus", "show", "1"], ["gpus", "show", "2"], ["show", "done"], ["why", "waits"],
                    ["status"], ["streams"]):
        # What a terminal shows may be cut there; here it has to fit by itself.
        lines = ctl.out(*command).splitlines()
        assert lines and max(map(len, lines)) <= 80, (command, lines)
    for command in (["list"], ["gpus"], ["gpus", "show", "1"], ["show", "done"], ["why", "waits"], ["status"], ["streams"],
                    ["result", "done"], ["logs", "done"], ["watch", "done"], ["wait", "done"], ["uncordon", "1"],
                    ["retry", "done"], ["reconcile"]):
        assert ctl.json(*command), command
    cards = ctl.json("gpus")[0]
    assert [{"gpu_id", "pci", "model", "state"} <= card.keys() for card in cards] == [True] * 3


def test_list_says_the_same_with_a_leader_and_without(make_pool, tmp_path: Path):
    pool = make_pool()
    pool.start_maestro()
    pool.start_worker(0)
    ctl = Ctl(pool, tmp_path / "state")
    for number in range(4):
        ctl("submit", "--wait", "--id", f"done-{number}", "--", "true")
    ctl("submit", "--wait", "--id", "fails", "--retries", 0, "--", "false", status=1)
    for number in range(6):
        ctl("submit", "--id", f"waits-{number}", "--gpu", 9, "--", "true")
    ctl("submit", "--id", "cancelled", "--gpu", 9, "--", "true")
    pool.wait_state("cancelled", "waiting_gpu")
    ctl("cancel", "cancelled")
    for number in range(6):
        pool.wait_state(f"waits-{number}", "waiting_gpu")
    asked = [
        ["--json"], ["--limit", "3", "--json"], ["--state", "done", "--json"], ["--state", "done", "--limit", "2", "--json"],
        ["--state", "failed", "--state", "cancelled", "--json"], ["--state", "running", "--json"], ["--limit", "0", "--json"],
    ]
    with_leader = [ctl.out("list", *options) for options in asked]
    left = ctl("list", "--limit", 2, "--state", "done")
    assert [json.loads(line)["task_id"] for line in with_leader[3].splitlines()] == ["done-3", "done-2"]
    assert "2 older jobs are left out" in left.stderr
    # One that answers nothing, and none at all.
    os.kill(pool.maestros[0].pid, signal.SIGSTOP)
    silent = ctl("list", *asked[1])
    assert silent.stdout == with_leader[1] and "reading all records" in silent.stderr
    os.kill(pool.maestros[0].pid, signal.SIGCONT)
    assert pool.maestros[0].terminate() == 0
    assert [ctl.out("list", *options) for options in asked] == with_leader
    assert ctl("list", "--limit", 2, "--state", "done").stderr.endswith(left.stderr)
    # A new leader knows what happened before.
    pool.start_maestro()
    assert [ctl.out("list", *options) for options in asked] == with_leader


def test_reads_work_while_no_maestro_runs(make_pool, tmp_path: Path):
    pool = make_pool()
    pool.start_maestro()
    pool.start_worker(0)
    ctl = Ctl(pool, tmp_path / "state")
    ctl("submit", "--wait", "--id", "before", "--", "echo", "printed")
    assert pool.maestros[0].terminate() == 0
    assert "printed" in ctl.out("result", "before")
    assert "printed" in ctl.out("logs", "before")
    assert "printed" in ctl.out("watch", "before")
    assert "before" in ctl.out("list")
    assert "done" in ctl.out("show", "before")
    assert "done" in ctl.out("why", "before")
    assert "ORG_JOBS" in ctl.out("streams")
    without = ctl("gpus")
    assert re.match("No maestro (leads|answers)", without.stderr) and re.search(r"(?m)^0 ", without.stdout)
    assert re.match("No maestro (leads|answers)", ctl("gpus", "show", 0).stderr)
    assert "no maestro" in ctl("status", status=69).stdout.lower()
    # A submission is kept, and taken when a maestro is back.
    ctl("submit", "--id", "meanwhile", "--", "echo", "taken")
    assert re.search("no maestro leads|did not answer", ctl("cancel", "meanwhile", status=69).stderr)
    pool.start_maestro()
    assert ctl.out("submit", "--wait", "--id", "meanwhile", "--", "echo", "taken").endswith("taken\n")


VERBS = [["submit", "--", "true"], ["wait", "x"], ["watch", "x"], ["tail-state", "x"], ["show", "x"], ["list"], ["result", "x"],
         ["logs", "x"], ["cancel", "x"], ["retry", "x"], ["why", "x"], ["gpus"], ["gpus", "show", "0"], ["cordon", "0"],
         ["uncordon", "0"], ["drain", "0"], ["quarantine", "0"], ["clear", "0"], ["status"], ["streams"], ["doctor"], ["reconcile"]]


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_every_verb_takes_an_address_and_says_when_nobody_is_there(ctl: Ctl, arguments: list[str]):
    port = free_port()
    # Before --, behind which everything belongs to the job.
    place = arguments.index("--") if "--" in arguments else len(arguments)
    said = ctl(*arguments[:place], "--server", f"nats://127.0.0.1:{port}", *arguments[place:], status=69)
    assert f"127.0.0.1:{port}" in said.stderr and "maestroctl up" in said.stderr and not said.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", ["maestroctl", "maestro", "gpu-worker"])
def test_there_are_completions_for_the_usual_shells(program: str, shell: str):
    script = subprocess.run([BIN_DIR / program, "--generate-completion-script", shell], capture_output=True, text=True,
                            check=True).stdout
    assert program in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_cards_are_redrawn_on_a_terminal_alone(ctl: Ctl):
    parent, child = pty.openpty()
    watching = subprocess.Popen([BIN_DIR / "maestroctl", "gpus", "--watch", "--interval", "0.1s"],
                                env=ctl.environment | {"TERM": "xterm"}, stdout=child, stderr=child)
    os.close(child)
    seen = b""
    while seen.count(b"\x1b[H\x1b[J") < 3:
        seen += os.read(parent, 65536)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(DEADLINE) == 130
    os.close(parent)
    assert b"CARD" in seen
    assert "\x1b" not in ctl.out("gpus")
