"""Pruned vision-language-action policies for ROS 2.

Here lies what every room shares: types (numpy only), errors, resources, writing files whole.
Nothing here imports torch, ROS or any of the rooms.
"""
