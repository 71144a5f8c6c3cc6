"""`python -m shmkv`: the same as the command `shmkv`."""

import sys

from shmkv.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
