"""What holds the jobs of a worker: a cgroup for each, another user, limits. Needs root, and a cgroup v2 to play with."""

import os
import pwd
import signal
from pathlib import Path

import pytest
from harness import BIN_DIR, Daemon, Pool, process_alive, wait_gone

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may make cgroups and change users here")

# All that a job can do to hide: a session of its own, twice forked, no environment, no pipe, deaf to SIGTERM.
HIDE = """
(env -i setsid sh -c 'trap "" TERM; echo $$ > hidden; while :; do sleep 1000; done' </dev/null >/dev/null 2>&1 &)
while ! test -s hidden; do :; done
"""


@pytest.fixture
def cgroups(tmp_path: Path):
    """A directory of cgroup v2 that is left to the workers of a test."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    place = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    if place is None:
        pytest.skip("no cgroup v2 is mounted")
    own = place / f"maestro-{os.getpid()}-{tmp_path.name}"
    own.mkdir()
    yield own
    for directory, _, _ in os.walk(own, topdown=False):
        os.rmdir(directory)


@pytest.fixture
def pool(make_pool) -> Pool:
    pool = make_pool()
    pool.start_maestro()
    return pool


def hidden_process(pool: Pool, job: str, pipe) -> int:
    pool.bus.submit(task_id=job, type="shell", shell=f"{HIDE} cat hidden > {pipe}; exec sleep 1000")
    return int(pipe.line())


class TestCgroups:
    def test_a_job_has_one_and_leaves_nothing(self, cgroups: Path, pool: Pool, pipe):
        pool.start_worker(0, JOB_CGROUP=cgroups)
        hidden = hidden_process(pool, "hides", pipe)
        place = Path(f"/proc/{hidden}/cgroup").read_text().splitlines()[-1]
        assert f"{cgroups.name}/gpu0/job-" in place
        pool.bus.request("maestro.api.cancel", {"task_id": "hides"})
        assert pool.wait_result("hides")["state"] == "cancelled"
        assert not process_alive(hidden)
        assert [path.name for path in (cgroups / "gpu0").glob("job-*")] == []

    def test_what_survives_a_killed_worker_ends_before_its_next_life_runs_anything(self, cgroups: Path, pool: Pool, pipe):
        worker = pool.start_worker(0, JOB_CGROUP=cgroups)
        hidden = hidden_process(pool, "hides", pipe)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert process_alive(hidden)
        pool.start_worker(0, JOB_CGROUP=cgroups)
        assert not process_alive(hidden)
        pool.bus.request("maestro.api.cancel", {"task_id": "hides"})
        assert pool.wait_result("hides")["state"] == "cancelled"

    def test_a_place_that_is_no_cgroup_is_refused(self, pool: Pool, tmp_path: Path):
        worker = pool.start_worker(0, wait=False, JOB_CGROUP=tmp_path)
        assert worker.wait() == 78
        assert worker.wait_for_line("JOB_CGROUP: .* cannot be used as the cgroup")


class TestLimits:
    def test_memory_without_a_controller_is_limited_for_each_process(self, pool: Pool):
        pool.start_worker(0, JOB_MEMORY_MAX_MB=64)
        result = pool.run(task_id="big", cmd=["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"], max_retries=0)
        assert "memory exhausted" in result["data"]["stderr"]
        result = pool.run(task_id="small", memory_bytes=32 << 20, max_retries=0,
                          cmd=["dd", "if=/dev/zero", "of=/dev/null", "bs=48M", "count=1"])
        assert "memory exhausted" in result["data"]["stderr"]

    def test_who_asks_for_more_than_there_is_is_refused(self, pool: Pool):
        pool.start_worker(0, JOB_MEMORY_MAX_MB=64)
        result = pool.run(task_id="greedy", cmd=["true"], memory_bytes=65 << 20)
        assert (result["state"], result["code"]) == ("rejected", "forbidden")
        assert "JOB_MEMORY_MAX_MB" in result["error"]

    def test_processes_that_cannot_be_counted_are_no_promise(self, pool: Pool):
        pool.start_worker(0)
        result = pool.run(task_id="counted", cmd=["true"], max_processes=10)
        assert (result["state"], result["code"]) == ("rejected", "forbidden")
        assert "max_processes cannot be held by this worker" in result["error"]
        worker = pool.start_worker(1, wait=False, JOB_PIDS_MAX=10)
        assert worker.wait() == 78
        assert worker.wait_for_line("JOB_PIDS_MAX")


class TestUser:
    def test_jobs_run_as_somebody_else(self, pool: Pool, tmp_path: Path, pipe):
        """Of the worker's rights it has none."""
        nobody = pwd.getpwnam("nobody")
        os.chmod(pipe.path, 0o666)
        for above in [pipe.path.parent, *pipe.path.parent.parents]:
            if above.stat().st_uid == 0 and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o011)
        worker = pool.start_worker(0, JOB_USER="nobody")
        script = (f"id -u; id -g; echo $HOME $USER; stat -c %u $TASK_DIR; touch $TASK_DIR/mine $GPU_CACHE_DIR/ours && echo wrote; "
                  f"kill -9 {worker.pid} 2>/dev/null || echo 'cannot kill'; cat /proc/{worker.pid}/environ 2>/dev/null || echo 'cannot read'")
        result = pool.run(task_id="who", type="shell", shell=script, max_retries=0)
        assert result["data"]["stdout"].splitlines() == [
            str(nobody.pw_uid), str(nobody.pw_gid), f"{nobody.pw_dir} nobody", str(nobody.pw_uid), "wrote", "cannot kill", "cannot read",
        ]
        # What it leaves is ended all the same.
        pool.bus.submit(task_id="stays", type="shell", shell=f"{HIDE} cat hidden > {pipe}; exec sleep 1000")
        hidden = int(pipe.line())
        pool.bus.request("maestro.api.cancel", {"task_id": "stays"})
        assert pool.wait_result("stays")["state"] == "cancelled"
        wait_gone(hidden)

    @pytest.mark.parametrize(("user", "why"), [("no-such-user", "there is no user"), ("root", "jobs may not run as root")])
    def test_unknown_users_are_refused_at_the_start(self, pool: Pool, user: str, why: str):
        worker = pool.start_worker(0, wait=False, JOB_USER=user)
        assert worker.wait() == 78
        assert worker.wait_for_line(f"JOB_USER={user}: .*{why}")

    def test_a_worker_that_may_not_switch_says_so(self, pool: Pool, tmp_path: Path):
        roots = {root: tmp_path / root for root in ("MERGE_ROOT", "RAM_ROOT", "LOG_ROOT")}
        worker = Daemon(
            "gpu-worker without CAP_SETUID", ["setpriv", "--bounding-set", "-setuid", BIN_DIR / "gpu-worker"],
            tmp_path / "worker.log", pool.environment(GPU_ID=0, JOB_USER="nobody", **roots),
        )
        assert worker.wait() == 78
        assert worker.wait_for_line("lacks CAP_SETUID .*job-user.conf")
