"""The command ``prancimg``, also as ``python -m prancimg``."""

import sys


def main() -> int:
    """Run it; an interrupt while it is being loaded ends as quietly as one later."""
    try:
        from prancimg.apps.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("prancimg: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
