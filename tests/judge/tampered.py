"""The command `dq` with supervisors that lack a guard: `python -m tests.judge.tampered LACKS words of dq`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from dq.cli.main import main
from dq.client import launcher


class Popen(subprocess.Popen[bytes]):
    """Starts a mutant wherever a supervisor is to be started."""

    def __init__(self, command: list[str], **options: Any) -> None:
        if "dq.crew" in command:
            at = command.index("dq.crew")
            command = [*command[:at], "tests.judge.mutant", sys.argv[1], "", "--", *command[at + 1 :]]
        super().__init__(command, **options)


if __name__ == "__main__":
    vars(launcher)["subprocess"].Popen = Popen
    sys.exit(main(sys.argv[2:]))
