"""The chaos test in a size for every day; `make chaos` is the full one."""

import os
import random
from pathlib import Path

import chaos


def test_every_job_ends_exactly_once_whatever_is_killed(tmp_path: Path):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(1 << 32)))
    faults = chaos.run(tmp_path / "chaos", jobs=400, kills=9, seed=seed)
    assert not faults, f"CHAOS_SEED={seed}"
