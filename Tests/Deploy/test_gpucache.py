"""A cache that is killed at any moment of its saving or mounting comes back as a state that a sync had completed.

Random writes, deletes and renames go to the cache and to a plain directory. Now and then a sync or a mount is killed at a
random point, or the machine loses its memory. What is restored must be the plain directory as it was at the last sync
that ended, or at one that was killed after it had become the truth.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
TOOL = TOP / "deploy/gpucache/gpucache-ctl"
OPERATIONS = int(os.environ.get("GPUCACHE_OPERATIONS", "200"))
SEED = int(os.environ.get("GPUCACHE_SEED", str(random.SystemRandom().randrange(1 << 32))))


def missing() -> str | None:
    """Why overlays cannot be tried here."""
    if os.getuid() != 0:
        return "needs root: it mounts overlays"
    if "overlay" not in Path("/proc/filesystems").read_text() and subprocess.run(["modprobe", "overlay"]).returncode:
        return "this kernel has no overlay file system"
    if not shutil.which("rsync"):
        return "needs rsync"
    return None


pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Rig:
    """A cache of one card in a directory of its own."""

    def __init__(self, directory: Path, **settings: object):
        self.base = directory / "data/gpu0"
        self.snapshots = directory / "data/gpu0.snapshots"
        self.merged = directory / "merge/gpu0"
        self.memory = directory / "ram/gpu0"
        self.base.mkdir(parents=True)
        self.environment = os.environ | {
            "GPU_IDS": "0", "CACHE_MB": "48", "BASE_ROOT": str(directory / "data"), "MIN_FREE_MB": "1",
            "PERSIST_ROOT": str(directory / "data"), "RAM_ROOT": str(directory / "ram"),
            "MERGE_ROOT": str(directory / "merge"), "GPUCACHE_CONF": "/dev/null",
        } | {key: str(value) for key, value in settings.items()}

    def start(self, command: str) -> subprocess.Popen:
        return subprocess.Popen(
            [TOOL, command, "0"], env=self.environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )

    def call(self, command: str) -> str:
        process = self.start(command)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
        return told

    def kill_within(self, command: str, seconds: float) -> bool:
        """Starts a command and kills it after that time; whether it had ended well before that."""
        process = self.start(command)
        time.sleep(seconds)
        return self.killed(process)

    def killed(self, process: subprocess.Popen) -> bool:
        """Kills a command with all that it started; whether it had ended well before that."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, told = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), told
        return process.returncode == 0

    def kill_after_switch(self) -> bool:
        """Kills a sync as soon as its snapshot has become the truth; whether it had ended well before that."""

        def current() -> str | None:
            try:
                return os.readlink(self.snapshots / "current")
            except FileNotFoundError:
                return None

        before = current()
        process = self.start("sync")
        while current() == before and process.poll() is None:
            pass
        return self.killed(process)

    def lose_power(self) -> None:
        """What was in memory is gone."""
        for place in (self.merged, self.memory):
            while subprocess.run(["umount", "--lazy", place], stderr=subprocess.DEVNULL).returncode == 0:
                pass


@pytest.fixture
def rig(tmp_path: Path):
    made = Rig(tmp_path)
    yield made
    made.lose_power()


def manifest(root: Path) -> dict[str, tuple]:
    """All that must come back: kind, mode, owner, content, links, attributes."""
    found: dict[str, tuple] = {}
    first_names: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        facts = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        attributes = {} if path.is_symlink() else {
            key: os.getxattr(path, key) for key in os.listxattr(path) if key.startswith("user.")
        }
        same_as = first_names.setdefault(facts.st_ino, name) if path.is_file() and not path.is_symlink() else None
        found[name] = (facts.st_mode, facts.st_uid, facts.st_gid, content, same_as, tuple(sorted(attributes.items())))
    return found


class Twin:
    """Carries each change out on the cache and on a plain directory."""

    def __init__(self, chance: random.Random, *roots: Path):
        self.chance = chance
        self.roots = roots

    def _paths(self) -> list[str]:
        return sorted(str(path.relative_to(self.roots[1])) for path in self.roots[1].rglob("*"))

    def _files(self) -> list[str]:
        return [name for name in self._paths() if (self.roots[1] / name).is_file() and not (self.roots[1] / name).is_symlink()]

    def _directories(self) -> list[str]:
        return [""] + [name for name in self._paths() if (self.roots[1] / name).is_dir() and not (self.roots[1] / name).is_symlink()]

    def change(self) -> None:
        chance = self.chance
        kind = chance.choice("write write write append delete delete rename rename tree mode attribute link hard hole move".split())
        files = self._files()
        fresh = os.path.join(chance.choice(self._directories()), f"n{chance.randrange(10**6)}")
        name = chance.choice(files) if files else fresh
        data = chance.randbytes(chance.choice([0, 10, 5_000, 200_000]))
        number = chance.randrange(1, 60_000)
        inner = [d for d in self._directories() if d]
        directory = chance.choice(inner) if inner else None
        for root in self.roots:
            path = root / name
            if kind == "write":
                (root / (name if number % 2 else fresh)).write_bytes(data)
            elif kind == "append" and files:
                with path.open("ab") as file:
                    file.write(data)
            elif kind == "delete" and files:
                path.unlink()
            elif kind == "rename" and files:
                path.rename(root / fresh)
            elif kind == "tree":
                (root / fresh / "inner").mkdir(parents=True)
                (root / fresh / "inner/file").write_bytes(data)
            elif kind == "mode" and files:
                path.chmod(0o600 + number % 0o77)
                os.chown(path, number, number + 1)
            elif kind == "attribute" and files:
                os.setxattr(path, "user.mark", data[:100])
            elif kind == "link":
                (root / fresh).symlink_to(f"somewhere-{number}")
            elif kind == "hard" and files:
                # A link to a file of the base would be broken by its copy up.
                path.write_bytes(data)
                os.link(path, root / fresh)
            elif kind == "hole":
                with (root / fresh).open("wb") as file:
                    file.truncate(5_000_000)
                    file.seek(2_000_000)
                    file.write(data)
            elif kind == "move" and directory:
                if number % 3:
                    shutil.rmtree(root / directory)
                    if number % 3 == 1:
                        # A new directory in the place of one of the base hides all that the base has there.
                        (root / directory).mkdir()


def test_only_completed_states_come_back(rig: Rig, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    print(f"GPUCACHE_SEED={SEED}")
    for number in range(30):
        place = rig.base / f"d{number % 5}/e{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"base{number}").write_bytes(chance.randbytes(1000 * number))
    plain = tmp_path / "plain"
    subprocess.run(["cp", "-a", rig.base, plain], check=True)
    rig.call("mount")
    twin = Twin(chance, rig.merged, plain)
    saved = 0
    # The states that may come back, each with its copy of the plain directory.
    possible: list[tuple[dict, Path]] = []

    def remember() -> tuple[dict, Path]:
        nonlocal saved
        saved += 1
        copy = tmp_path / f"state{saved}"
        subprocess.run(["cp", "-a", plain, copy], check=True)
        return manifest(plain), copy

    possible = [remember()]
    counts = dict.fromkeys(["syncs", "killed syncs", "killed syncs that counted", "killed mounts", "restores"], 0)
    for step in range(OPERATIONS):
        twin.change()
        event = chance.random()
        if event < 0.25:
            state = remember()
            if chance.random() < 0.4:
                rig.call("sync")
                possible = [state]
                counts["syncs"] += 1
            else:
                # The time between the switch and the end is short: random moments alone would rarely meet it.
                aimed = chance.random() < 0.3
                ended = rig.kill_after_switch() if aimed else rig.kill_within("sync", chance.uniform(0, 0.35))
                possible = [state] if ended else possible + [state]
                counts["killed syncs"] += not ended
        if 0.1 < event < 0.4:
            rig.lose_power()
            while chance.random() < 0.6:
                counts["killed mounts"] += not rig.kill_within("mount", chance.uniform(0, 0.25))
                if chance.random() < 0.5:
                    rig.lose_power()
            rig.call("mount")
            restored = manifest(rig.merged)
            # The newest first: an older one with the same content would go on from another place.
            match = next((state for state in reversed(possible) if state[0] == restored), None)
            assert match is not None, f"step {step}, seed {SEED}: {difference(restored, possible)}"
            counts["restores"] += 1
            counts["killed syncs that counted"] += match is not possible[0]
            possible = [match]
            subprocess.run(["rsync", "-aHAXS", "--delete", f"{match[1]}/", f"{plain}/"], check=True)
            assert manifest(plain) == restored
    rig.call("unmount")
    rig.call("mount")
    assert manifest(rig.merged) == manifest(plain)
    print(counts)
    assert all(counts.values()), f"some kinds never happened: {counts}"


def difference(restored: dict, possible: list[tuple[dict, Path]]) -> str:
    told = []
    for state, _ in possible:
        names = {name for name in restored.keys() | state.keys() if restored.get(name) != state.get(name)}
        told.append(f"{len(names)} differ: {[(name, restored.get(name), state.get(name)) for name in sorted(names)[:3]]}")
    return "; ".join(told)


def test_an_orphan_of_a_killed_sync_is_waited_for(rig: Rig) -> None:
    rig.call("mount")
    for number in range(200):
        (rig.merged / f"f{number}").write_bytes(b"x" * 1000)
    process = rig.start("sync")
    time.sleep(0.15)
    process.kill()
    process.communicate(timeout=60)
    rig.call("sync")
    assert [entry.name for entry in rig.snapshots.iterdir() if entry.name.startswith("building")] == []
    before = manifest(rig.merged)
    rig.lose_power()
    rig.call("mount")
    assert manifest(rig.merged) == before


def test_holes_stay_holes_and_unchanged_files_are_not_copied_again(rig: Rig) -> None:
    rig.call("mount")
    with (rig.merged / "sparse").open("wb") as file:
        file.truncate(40_000_000)
    (rig.merged / "same").write_bytes(b"y" * 100_000)
    rig.call("sync")
    first = (rig.snapshots / "current/same").stat().st_ino
    assert (rig.snapshots / "current/sparse").stat().st_blocks * 512 < 1_000_000
    (rig.merged / "other").write_bytes(b"z")
    rig.call("sync")
    assert (rig.snapshots / "current/same").stat().st_ino == first
    rig.lose_power()
    rig.call("mount")
    assert (rig.merged / "sparse").stat().st_size == 40_000_000
    assert (rig.merged / "sparse").stat().st_blocks * 512 < 1_000_000


def test_no_room_on_disk_keeps_the_last_snapshot_and_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, MIN_FREE_MB=4)
    disk = tmp_path / "data"
    shutil.rmtree(disk)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    try:
        rig.call("mount")
        (rig.merged / "small").write_bytes(b"1")
        rig.call("sync")
        (rig.merged / "large").write_bytes(os.urandom(15_000_000))
        process = rig.start("sync")
        _, told = process.communicate(timeout=60)
        assert process.returncode == 73
        assert "no_space" in told
        status = subprocess.run(
            [TOOL, "status", "--json", "0"], env=rig.environment, capture_output=True, text=True, check=True
        ).stdout
        assert '"sync":"failed: no space"' in status and "no_space" in status
        rig.lose_power()
        rig.call("mount")
        assert sorted(path.name for path in rig.merged.iterdir()) == ["small"]
    finally:
        rig.lose_power()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_memory_that_runs_full_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path, CACHE_MB=4)
    try:
        rig.call("mount")
        (rig.merged / "large").write_bytes(os.urandom(3_900_000))
        assert "cache_full" in rig.call("sync")
    finally:
        rig.lose_power()


def test_without_overlays_the_cache_is_a_plain_directory(tmp_path: Path) -> None:
    rig = Rig(tmp_path, GPUCACHE_PLAIN="yes")
    (rig.base / "model").write_text("weights")
    assert "plain directory" in rig.call("mount")
    assert (rig.merged / "model").read_text() == "weights"
    (rig.merged / "out").write_text("result")
    rig.call("sync")
    rig.call("unmount")
    rig.call("mount")
    assert (rig.merged / "out").read_text() == "result"
