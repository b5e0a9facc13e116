"""``python -m prancimg`` is the command ``prancimg``."""

import sys

from prancimg.cli import main

sys.exit(main())
