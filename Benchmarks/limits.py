"""What this machine and this server could do at most, by small C programs (Benchmarks/programs)."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).resolve().parent / "programs"


class Limits:
    """The compiled programs, in a directory of the run."""

    def __init__(self, directory: Path):
        self.directory = directory
        for name, libraries in (("spawn", []), ("jetstream", ["-lnats"]), ("jobs", ["-lnats"])):
            source = PROGRAMS / f"{name}.c"
            subprocess.run(["cc", "-O2", "-Wall", "-o", directory / name, source, *libraries], check=True)

    def run(self, name: str, *arguments: Any) -> dict:
        command = [str(part) for part in (self.directory / name, *arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if ended.returncode != 0:
            raise SystemExit(f"bench: {' '.join(command)} ended with {ended.returncode}: {ended.stderr.strip()}")
        return json.loads(ended.stdout)

    def spawn(self, count: int) -> dict:
        """Bare posix_spawn of /bin/true: alone, and with as many side by side as there are processors."""
        alone = self.run("spawn", count)
        processors = os.cpu_count() or 1
        with ThreadPoolExecutor(processors) as pool:
            together = list(pool.map(lambda _: self.run("spawn", count), range(processors)))
        return alone | {"side_by_side": processors,
                        "side_by_side_per_second": sum(one["per_second"] for one in together)}

    def jetstream(self, url: str, count: int, size: int = 400) -> dict:
        """Durable publishes into one file stream: one after the other, and many under way."""
        return self.run("jetstream", url, count, size)
