"""What every job does."""

import subprocess


def run() -> int:
    """/bin/true with its output captured, as every scheduler's job."""
    return subprocess.run(["/bin/true"], capture_output=True, check=True).returncode
