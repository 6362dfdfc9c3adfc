"""Every command of docs/OPERATIONS.md is run by some test: this one sees to it that none stands outside of what they run."""

import re

from harness import TOP

TEXT = (TOP / "docs/OPERATIONS.md").read_text()
BLOCKS = re.findall(r"^```([^\n]*)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
# Who runs the blocks of a kind, and by which words of it that is seen.
RUNNERS = {
    "sh install": ("Tests/Container/test_rig.py", 'runbook("install")'),
    "sh": ("Tests/Container/test_rig.py", 'runbook("")'),
    "sh secure": ("Tests/Container/test_rig.py", 'runbook("secure")'),
    "sh remove": ("Tests/Container/test_rig.py", 'runbook("remove")'),
    "sh hypervisor": ("Tests/Deploy/maestro-gpu-vm.bats", "sh hypervisor"),
}
# No commands: files.
FILES = {"ini"}
PROGRAMS = "apt-get curl dmesg gpu-worker gpu-worker-ctl gpucache-ctl journalctl maestro-gpu-vm maestro-keys maestroctl make nats nvidia-smi systemctl".split()
# Named in the text, and why no block has them.
EXPLAINED = {
    "apt-get install --allow-downgrades": "test_configuration_of_the_owner_is_kept_on_upgrade goes back to an older package",
    "maestroctl reconcile": "test_reconcile.py, test_backup.py",
    "maestroctl submit --cache-key models/llama": "test_cache.py",
    "maestro-keys server": "maestro-keys.bats",
    "maestro-keys use": "it stands in a block with what it needs",
    "make deb": "it makes what `sh install` installs",
    "make gpucache-test": "it is what runs the tests",
    "make test": "it is what runs the tests",
    "make test-system": "it is what runs the tests",
    "nvidia-smi --id=ADDRESS --power-limit=WATT": "no NVIDIA card here: not tried",
    "systemctl edit gpu-worker@.service": "it opens an editor; the drop-in of the test is the same kind of file",
}


def commands() -> list[str]:
    return [line for kind, text in BLOCKS if kind in RUNNERS for line in text.splitlines()]


def test_each_block_is_run_by_a_test() -> None:
    kinds = {kind for kind, _ in BLOCKS}
    assert kinds <= RUNNERS.keys() | FILES, "a block of a kind that nobody runs"
    assert RUNNERS.keys() <= kinds
    for kind, (path, words) in RUNNERS.items():
        assert words in (TOP / path).read_text(), f"{path} no longer runs the blocks ```{kind}"


def test_each_line_of_a_block_is_one_whole_command() -> None:
    """The runners take line by line: no comments, no continuation."""
    for line in commands():
        assert line.strip() == line and line and not line.startswith("#") and not line.endswith("\\"), line


def test_commands_named_in_the_text_stand_in_a_block_too() -> None:
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    named = {" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)}
    run = commands()
    missing = [
        code for code in sorted(named)
        if " " in code and code.split()[0] in PROGRAMS and code not in EXPLAINED
        and not any(line.startswith(code) for line in run)
    ]
    assert missing == [], "named in the text, and run by no test"
    assert sorted(EXPLAINED.keys() - named) == [], "explained, and not named any more"
