"""The executable with a fake policy and a system clock that the file named first shifts."""

import sys
from pathlib import Path

from node_fakes import FakePolicies
from shifted_clock import shift_system_time

from safe_vla_ros.ros.pruned_policy import main

if __name__ == '__main__':
    shift_system_time(Path(sys.argv.pop(1)))
    main(policies=FakePolicies())
