"""Made-up graphics cards for the tests: the real programs read them through the real libraries, and a test changes them."""

import json
import subprocess
from pathlib import Path
from typing import Any

from harness import BIN_DIR


class Rig:
    """A made-up machine; `environment` shows it to a program.

    Its cards are in the order of their PCI addresses, and so each stands at its number; an integrated one is left out.
    """

    def __init__(self, cards: str, seed: int = 1):
        self._tool = subprocess.Popen([str(BIN_DIR / "fake-rig"), cards, str(seed)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        made = json.loads(self._line())
        self.environment: dict[str, str] = made["environment"]
        self.root = Path(made["root"])
        discrete = [card for card in made["cards"] if card["kind"] != "intel"]
        self.cards: list[str] = [card["pci"] for card in discrete]
        self.kinds: list[str] = [card["kind"] for card in discrete]
        self.integrated: list[str] = [card["pci"] for card in made["cards"] if card["kind"] == "intel"]

    def _line(self) -> str:
        assert self._tool.stdout
        line = self._tool.stdout.readline()
        assert line, "the fake rig has ended"
        return line.rstrip("\n")

    def _do(self, *words: Any) -> None:
        assert self._tool.stdin
        self._tool.stdin.write(" ".join(str(word) for word in words) + "\n")
        self._tool.stdin.flush()
        answer = self._line()
        assert answer == "ok", answer

    def set(self, card: int, attribute: str, value: Any) -> None:
        """A file of the card's PCI device, such as hwmon/temp1_input."""
        self._do("set", self.cards[card], attribute, value)

    def is_nvidia(self, card: int) -> bool:
        return self.kinds[card].startswith("gtx")

    def heat(self, card: int, celsius: float) -> None:
        if self.is_nvidia(card):
            self.nvml(card, "temperature", round(celsius))
        else:
            self.set(card, "hwmon/temp1_input", round(celsius * 1000))

    def load(self, card: int, percent: int) -> None:
        if self.is_nvidia(card):
            self.nvml(card, "busy", percent)
        else:
            self.set(card, "gpu_busy_percent", percent)

    def draw(self, card: int, watts: int) -> None:
        """The power that it draws."""
        if self.is_nvidia(card):
            self.nvml(card, "power", watts * 1000)
        else:
            self.set(card, "hwmon/power1_input", watts * 1_000_000)

    def fault(self, card: int, attribute: str, fault: str | None) -> None:
        self._do("fault", self.cards[card], attribute, *([fault] if fault else []))

    def write_fault(self, card: int, attribute: str, fault: str | None) -> None:
        self._do("write-fault", self.cards[card], attribute, *([fault] if fault else []))

    def answer(self, card: int, key: str, value: Any = None) -> None:
        """What the amdgpu driver answers."""
        self._do("answer", self.cards[card], key, *([] if value is None else [value]))

    def nvml(self, card: int, key: str, value: Any = None) -> None:
        self._do("nvml", self.cards[card], key, *([] if value is None else [value]))

    def nvml_value(self, card: int, key: str) -> str:
        """What NVML answers, or was told to keep."""
        return (self.root / "nvml" / self.cards[card] / key).read_text().strip()

    def value(self, card: int, attribute: str) -> str:
        return self.attribute(card, attribute).read_text().strip()

    def pull(self, card: int) -> None:
        self._do("pull", self.cards[card])

    def attribute(self, card: int, name: str) -> Path:
        """The file of an attribute."""
        directory = self.root / "sys/bus/pci/devices" / self.cards[card]
        if name.startswith("hwmon/"):
            return next((directory / "hwmon").iterdir()) / name.removeprefix("hwmon/")
        return directory / name

    def close(self) -> None:
        assert self._tool.stdin
        self._tool.stdin.close()
        self._tool.wait(30)
