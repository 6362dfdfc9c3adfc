"""The application of Celery's worker and client."""

import os

from celery import Celery

from peer_clients import jobs

redis = f"redis://127.0.0.1:{os.environ['BENCH_REDIS_PORT']}/0"
app = Celery("peer_clients.celery_app", broker=redis, backend=redis)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, result_expires=600,
                broker_connection_retry_on_startup=True)


@app.task
def run() -> int:
    return jobs.run()
