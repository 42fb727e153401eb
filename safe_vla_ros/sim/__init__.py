"""LIBERO on MuJoCo: the simulated Panda, collecting, training and closed-loop evaluation.

May use runtime and policies; no rclpy: the node around the arm is ``ros.sim_robot``.
"""
