"""Fixtures: a pool for a whole file of tests, and one of its own for a test that breaks things."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netspace  # noqa: E402  (found by the line above)
from harness import Pipe, Pool  # noqa: E402
from rig import Rig  # noqa: E402
from smalldisk import SmallDisk  # noqa: E402

# A shell starts what it runs in the background with Ctrl-C ignored, which programs inherit, those under test too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One maestro and two workers, for tests that leave them as they are."""
    pool = Pool(tmp_path_factory.mktemp("pool"))
    try:
        pool.start_maestro()
        pool.start_worker(0)
        pool.start_worker(1)
        yield pool
    finally:
        pool.close()


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """Makes a pool of the test's own, with settings, nothing but the server running yet."""
    pools: list[Pool] = []

    def make(**settings: object) -> Pool:
        pools.append(Pool(tmp_path / f"pool{len(pools)}", **settings))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def task_id(request: pytest.FixtureRequest) -> str:
    """An id that names the test, and is a legal one."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:100].strip("-")


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """A named pipe that a job can write lines into, for the test to wait for."""
    made = Pipe(tmp_path / "pipe")
    yield made
    made.close()


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Makes a machine of made-up cards, such as `12xrx580,1xgtx1660`."""
    rigs: list[Rig] = []

    def make(cards: str, seed: int = 1) -> Rig:
        rigs.append(Rig(cards, seed))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def switch() -> Iterator[netspace.Switch]:
    """Machines with cables that can be pulled, as network namespaces."""
    if why := netspace.obstacle():
        pytest.skip(why)
    made = netspace.Switch()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def make_disk() -> Iterator[Callable[[Path, int], SmallDisk]]:
    """Mounts a disk of so many megabytes at a place."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disks: list[SmallDisk] = []

    def make(place: Path, megabytes: int) -> SmallDisk:
        disks.append(SmallDisk(place, megabytes))
        return disks[-1]

    yield make
    for disk in disks:
        disk.close()
