"""The demo: starts a simulated robot and the policy node, runs episodes, sums up.

May use every other room, none may use it; what needs rclpy lies in ``ros``.
"""
