"""Models and the pools they read."""
