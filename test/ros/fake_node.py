"""The executable with a fake policy, for tests of a process of its own."""

from node_fakes import FakePolicies

from safe_vla_ros.ros.pruned_policy import main

if __name__ == '__main__':
    main(policies=FakePolicies())
