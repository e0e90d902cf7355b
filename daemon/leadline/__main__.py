"""The one executable: `leadline`, or `python -m leadline`."""

import sys

from leadline.cli.app import run


def main() -> None:
    """Carry out the command line of this process and exit with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
