"""The fenced blocks of README.md and the guides, and the commands in them."""

from __future__ import annotations

import re

BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
"""A fenced block, and the comment before it that says what it is for, where there is one."""

PROGRAM = ".venv/bin/python - <<'PYTHON'"
"""Begins a Python program within a shell script."""


def commands(script: str) -> list[str]:
    """The commands of a shell script: lines, joined where a quote or a backslash leaves them open."""
    found, pending = [], ""
    for line in script.splitlines():
        pending += line + "\n"
        is_open = pending.count("'") % 2 or line.endswith("\\")
        if "<<'PYTHON'" in pending and line != "PYTHON":
            is_open = True
        if not is_open:
            found.append(pending.strip())
            pending = ""
    return [command for command in found if command]


def program_of(command: str) -> str | None:
    """The Python program of a command, None if it has none."""
    return command.split("\n", 1)[1].removesuffix("PYTHON") if command.startswith(PROGRAM) else None
