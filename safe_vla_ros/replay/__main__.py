"""``python -m safe_vla_ros.replay``."""

import sys

from safe_vla_ros.replay.cli import main

if __name__ == '__main__':
    sys.exit(main())
