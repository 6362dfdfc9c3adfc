"""Disks that are small, full or read-only: a tmpfs of our own, which needs root."""

import contextlib
import os
import subprocess
from pathlib import Path


class SmallDisk:
    """A file system of a few megabytes."""

    def __init__(self, place: Path, megabytes: int):
        self.place = place
        self._ballast = place / "ballast"
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "maestro-test", place], check=True)

    def fill(self) -> None:
        """Until not a byte more goes in."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(descriptor, b"x" * size)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """As it was before it was filled."""
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        """`ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{how}", self.place], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.place], check=True)
