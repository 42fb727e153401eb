"""Speed, success and golden checks that anyone can run again: `python -m safe_vla_ros.bench NAME`.

May use sim, replay and policies; no rclpy, and nothing that a robot depends on.
"""
