"""The demo: starts a simulated robot and the policy node, runs episodes, sums up."""
