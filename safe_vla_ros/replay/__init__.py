"""Offline evaluation of a policy on rosbag2 recordings.

Walks the way of the live node with a clock of its own, through rosbags; no rclpy, no MuJoCo.
"""
