"""`python -m dq` is the command `dq`."""

from __future__ import annotations

if __name__ == "__main__":
    import sys

    from dq.cli.main import main

    sys.exit(main())
