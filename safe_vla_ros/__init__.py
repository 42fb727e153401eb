"""Pruned vision-language-action policies for ROS 2."""
