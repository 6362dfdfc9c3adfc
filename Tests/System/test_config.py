"""A wrong command line, configuration or address is one line that says what to do."""

import os
import subprocess
from pathlib import Path

import pytest
from harness import BIN_DIR, Pool, free_port

PROGRAMS = ["maestro", "gpu-worker"]


def start(program: str, *arguments: str, config: Path | None = None, **settings: str) -> subprocess.CompletedProcess:
    """Runs a program that is expected to end by itself."""
    environment = {"PATH": os.environ["PATH"], "NATS_URL": f"nats://127.0.0.1:{free_port()}", "GPU_ID": "0"} | settings
    if config:
        environment["MAESTRO_CONF"] = str(config)
    return subprocess.run([BIN_DIR / program, *arguments], env=environment, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=60, check=False)


def only_line(ended: subprocess.CompletedProcess) -> str:
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "maestro.conf"


def test_an_unknown_key_is_named_with_its_file_and_line(config: Path):
    config.write_text("# a pool\nMAX_TEMP_C=70\nMAX_TEMPC=75\n")
    ended = start("maestro", config=config)
    assert ended.returncode == 78
    line = only_line(ended)
    assert "MAX_TEMPC" in line and f"{config} line 3" in line
    assert "MAX_TEMP_C" in line, "it names what was probably meant"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MAX_TEMP_C=hot\n", ["MAX_TEMP_C", "hot", "line 1"]),
        ("HEARTBEAT_TTL_SEC=-5\n", ["HEARTBEAT_TTL_SEC", "-5"]),
        ("MAX_QUEUE=99999999999999999999999\n", ["MAX_QUEUE"]),
        ("STREAM_JOBS=a.b\n", ["STREAM_JOBS"]),
        ("NATS_URL=http://127.0.0.1:1\n", ["NATS_URL", "nats://"]),
    ],
)
def test_a_wrong_value_is_one_line(config: Path, text: str, words: list[str]):
    config.write_text(text)
    environment_free = {"NATS_URL": "nats://127.0.0.1:1"} if "NATS_URL" not in text else {"NATS_URL": ""}
    ended = start("maestro", config=config, **environment_free)
    assert ended.returncode == 78, ended
    line = only_line(ended)
    for word in words:
        assert word in line


def test_a_configuration_file_that_was_named_but_is_missing(config: Path):
    ended = start("maestro", config=config)
    assert ended.returncode == 78
    assert str(config) in only_line(ended)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("arguments", [["--no-such-option"], ["surplus"], ["--server"]])
def test_a_wrong_command_line(program: str, arguments: list[str]):
    ended = start(program, *arguments)
    assert ended.returncode == 64
    assert "--help" in (ended.stdout + ended.stderr)
    assert len((ended.stdout + ended.stderr).strip().splitlines()) <= 2


@pytest.mark.parametrize("program", [*PROGRAMS, "maestroctl"])
def test_help_and_version(program: str):
    ended = start(program, "--help")
    assert ended.returncode == 0
    assert program in ended.stdout and not ended.stderr
    assert max(map(len, ended.stdout.splitlines())) <= 100
    ended = start(program, "--version")
    assert ended.returncode == 0 and ended.stdout.strip()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("address", ["http://127.0.0.1:4222", "nats://127.0.0.1:notaport", "nats://"])
def test_an_address_that_can_never_work(program: str, address: str):
    ended = start(program, NATS_URL=address)
    assert ended.returncode == 78
    line = only_line(ended)
    assert "NATS_URL" in line or "server" in line
    assert "nats://" in line


@pytest.mark.parametrize("gpu", ["", "-1", "a.b", "x y", "*"])
def test_a_card_that_cannot_be(gpu: str):
    ended = start("gpu-worker", GPU_ID=gpu)
    assert ended.returncode == 78
    assert "GPU_ID" in only_line(ended)


class TestMaestroctl:
    @pytest.mark.parametrize(
        ("arguments", "status", "words"),
        [
            (["no-such-verb"], 64, ["no-such-verb", "help"]),
            (["submit"], 64, ["--shell"]),
            (["submit", "--shell", "true", "--timeout", "soon"], 64, ["timeout", "soon"]),
            (["submit", "--no-such-option"], 64, ["--no-such-option"]),
            (["show"], 64, ["ID"]),
            (["list", "--server", "http://x"], 78, ["nats://"]),
            (["submit", "--from-file", "/no/such/file"], 66, ["/no/such/file"]),
        ],
    )
    def test_a_wrong_command_line(self, arguments: list[str], status: int, words: list[str]):
        ended = start("maestroctl", *arguments)
        assert ended.returncode in (status, 64 if status == 78 else status), ended
        assert not ended.stdout
        for word in words:
            assert word in ended.stderr
        assert len(ended.stderr.strip().splitlines()) <= 2

    @pytest.mark.parametrize("arguments", [["list"], ["show", "x"], ["submit", "--shell", "true"], ["gpus"], ["smoke"]])
    def test_no_server(self, arguments: list[str]):
        port = free_port()
        ended = start("maestroctl", *arguments, "--server", f"nats://127.0.0.1:{port}")
        assert ended.returncode == 69 or arguments == ["smoke"] and ended.returncode in (1, 69)
        said = ended.stdout + ended.stderr
        assert f"127.0.0.1:{port}" in said
        assert "maestroctl up" in said or "NATS_URL" in said or "--server" in said, "it says what to do"


def test_older_keys_are_accepted_with_a_warning_that_names_the_newer(make_pool):
    pool: Pool = make_pool()
    older = ["SCHEDULE_TICK_SEC=1", "RUN_SUBJECT=gpu.task.run", "SUBMIT_SUBJECT=gpu.task.enqueue",
             "DONE_SUBJECT=gpu.task.done", "ERR_SUBJECT=gpu.task.err"]
    (pool.directory / "maestro.conf").write_text("\n".join(older) + "\n")
    maestro = pool.start_maestro()
    pool.start_worker(0)
    for number, key in enumerate((line.partition("=")[0] for line in older), start=1):
        warning = maestro.wait_for_line(key)
        assert f"maestro.conf line {number}" in warning
    assert "RUN_SUBJECT_PREFIX" in maestro.wait_for_line("RUN_SUBJECT[^_]")
    assert "ENQ_SUBJECT" in maestro.wait_for_line("SUBMIT_SUBJECT")
    assert pool.run(task_id="after", cmd=["true"])["ok"] is True


def test_the_environment_overrides_the_file(make_pool):
    pool: Pool = make_pool()
    (pool.directory / "maestro.conf").write_text("NATS_URL=nats://127.0.0.1:1\nMAX_RETRIES=5\n")
    pool.start_maestro(MAX_RETRIES=0)
    pool.start_worker(0)
    assert pool.run(task_id="once", cmd=["false"])["tries"] == 1


def test_an_older_layout_of_streams_is_left_alone_and_explained(make_pool):
    pool: Pool = make_pool()
    pool.bus.api("STREAM.CREATE.ORG_EVENTS", {"name": "ORG_EVENTS", "subjects": ["gpu.task.state.*", "gpu.worker.*"]})
    before = pool.bus.api("STREAM.INFO.ORG_EVENTS")["config"]
    maestro = pool.start_maestro(leading=False)
    assert maestro.wait() == 78
    line = next(line for line in maestro.lines if "ORG_EVENTS" in line)
    assert "gpu.task.state" in line
    assert pool.bus.api("STREAM.INFO.ORG_EVENTS")["config"] == before
