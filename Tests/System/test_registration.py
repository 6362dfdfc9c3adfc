"""Who owns a card, when what a worker hears of it is late."""

from harness import Pool
from wireproxy import Proxy


def test_a_registration_that_was_replaced_meanwhile_is_not_believed(make_pool):
    """As from a copy of the stream that is behind: the worker asks before it gives its card up."""
    pool: Pool = make_pool()
    pool.start_maestro()
    proxy = Proxy(pool.server.port)
    try:
        worker = pool.start_worker(0, NATS_URL=proxy.url)
        own = pool.bus.last("ORG_CTL", "gpu.ctl.worker-0")[1]
        proxy.freeze()
        for registration in (own | {"incarnation": "0" * 24, "op": "0" * 24}, own):
            pool.bus.store("gpu.ctl.worker-0", registration)
        proxy.release()
        assert pool.run(task_id="still-here", type="shell", shell="echo yes")["ok"]
        assert worker.running
    finally:
        pool.stop_programs()
        proxy.close()
