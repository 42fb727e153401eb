"""The nodes `pruned_policy` and `sim_robot`: messages, parameters, life cycle, diagnostics.

The only room that may import rclpy and message packages; it decides nothing, runtime does.
"""
