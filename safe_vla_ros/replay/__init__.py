"""Offline evaluation of a policy on rosbag2 recordings; no ROS needed."""
