"""The chaos runs in a size for every day; `make chaos` is the full one."""

import os
import random
from pathlib import Path

import chaos
import pytest


@pytest.mark.parametrize("scenario", ["old", "cluster"])
def test_every_job_ends_exactly_once_whatever_happens(tmp_path: Path, scenario: str):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(1 << 32)))
    found = chaos.run(tmp_path / "chaos", chaos.Storm(scenario, jobs=1000, seed=seed, striking=45))
    assert not found, f"CHAOS_SEED={seed}"
