#!/usr/bin/env python3
"""Compares the ratios of a run with the stored ones, and says what moved.

    check.py RUN.json [--baseline FILE] [--write]

A ratio has moved when the ranges of the two runs do not meet and the medians differ by more than a fifth; with few
rounds on a busy machine less than that means nothing. Ends with status 1 when one has moved for the worse.
"""

import argparse
import json
import sys
from pathlib import Path

from report import ranged
from summary import compared

BASELINE = Path(__file__).resolve().parent / "baseline.json"
# Of these a higher ratio is better; of all others a lower one.
HIGHER_IS_BETTER = ("jobs/s", "maestroctl submit")
TOLERANCE = 0.2


def verdict(name: str, old: dict, new: dict) -> str:
    apart = new["low"] > old["high"] or new["high"] < old["low"]
    change = new["median"] / old["median"] - 1
    if not apart or abs(change) <= TOLERANCE:
        return "same"
    return "better" if (change > 0) == name.startswith(HIGHER_IS_BETTER) else "worse"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--write", action="store_true", help="make this run the baseline")
    chosen = parser.parse_args()
    figures = json.loads(chosen.run.read_text())
    new = compared(figures)
    if chosen.write:
        kept = {"machine": figures["machine"], "options": figures["options"], "ratios": new}
        chosen.baseline.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(f"bench-check: {chosen.run} is the baseline now")
        return 0
    old = json.loads(chosen.baseline.read_text())["ratios"]
    print(f"{'ratio':40}{'baseline':>24}{'now':>24}  ")
    worse = []
    for name in [name for name in old if name in new]:
        found = verdict(name, old[name], new[name])
        print(f"{name:40}{ranged(old[name]):>24}{ranged(new[name]):>24}  {found}")
        if found == "worse":
            worse.append(name)
    for name in sorted(set(old) ^ set(new)):
        print(f"{name:40}only in {'the baseline' if name in old else 'this run'}")
    print("bench-check: " + (f"worse: {', '.join(worse)}" if worse else "nothing has become worse"))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
