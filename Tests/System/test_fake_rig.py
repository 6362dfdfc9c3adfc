"""`maestroctl up --fake-rig`: a pool to be tried without hardware, which says that its cards are not real."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from harness import BIN_DIR

SCRIPT = """
set -e
maestroctl gpus --json
maestroctl submit --wait --gpu 2 --shell 'echo "$GPU_MODEL"; echo "preload=$LD_PRELOAD"' 2>/dev/null | tail -n 2
"""


def up(*arguments: object, path: str | None = None, program: Path = BIN_DIR / "maestroctl", **settings: str) -> subprocess.CompletedProcess:
    environment = {"PATH": path or f"{BIN_DIR}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")} | settings
    if "NATS_SERVER" in os.environ:
        environment["NATS_SERVER"] = os.environ["NATS_SERVER"]
    return subprocess.run([program, "up", *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=180, check=False)


def test_a_pool_of_made_up_cards_works_and_says_what_it_is(tmp_path: Path):
    ended = up("--dir", tmp_path / "pool", "--port", 0, "--fake-rig", "2xrx580,1xgtx1660", "--", "/bin/sh", "-c", SCRIPT)
    assert ended.returncode == 0, ended.stderr
    assert "NOT REAL" in ended.stderr
    address, cards, model, preload = ended.stdout.splitlines()
    assert address.startswith("NATS_URL=nats://127.0.0.1:")
    rows = json.loads(cards)
    assert [row["gpu_id"] for row in rows] == [0, 1, 2]
    assert [row["pci"] for row in rows] == ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"]
    assert all(row["model"].endswith("(fake)") for row in rows), rows
    assert model == "NVIDIA GeForce GTX 1660 (fake)"
    assert preload == "preload=", "jobs see the real machine"


def test_a_rig_that_cannot_be_is_one_line(tmp_path: Path):
    ended = up("--dir", tmp_path / "pool", "--port", 0, "--fake-rig", "3xvoodoo")
    assert ended.returncode == 64
    assert "3xvoodoo" in ended.stderr and "rx580" in ended.stderr, "it names the kinds that there are"


def test_two_pools_do_not_share_a_directory(tmp_path: Path):
    inner = f'"{BIN_DIR}/maestroctl" up --dir "{tmp_path}/pool" --port 0 -- true; echo "ended with $?"'
    ended = up("--dir", tmp_path / "pool", "--port", 0, "--workers", 1, "--", "/bin/sh", "-c", inner)
    assert ended.stdout.splitlines()[-1] == "ended with 73"
    assert "another maestroctl up" in ended.stderr and "--dir" in ended.stderr


def test_the_made_up_machine_explains_itself():
    said = subprocess.run([BIN_DIR / "fake-rig", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "USAGE: fake-rig" in said and "not real" in said and max(map(len, said.splitlines())) <= 100


def test_without_the_program_it_says_where_it_is_from(tmp_path: Path):
    alone = tmp_path / "maestroctl"
    shutil.copy(BIN_DIR / "maestroctl", alone)
    ended = up("--dir", tmp_path / "pool", "--port", 0, "--fake-rig", "1xrx580", program=alone, path=os.environ["PATH"])
    assert ended.returncode == 78
    assert "swift build --product fake-rig" in ended.stderr


def test_the_machine_goes_when_nobody_holds_its_input():
    tool = subprocess.Popen([BIN_DIR / "fake-rig", "1xgtx1060", "--alive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert tool.stdin and tool.stdout
    root = Path(json.loads(tool.stdout.readline())["root"])
    assert root.is_dir()
    tool.stdin.close()
    assert tool.wait(30) == 0
    assert not root.exists()
