"""Sweeps: the grid of runs behind a figure or table, who does its cells, and what they cost."""
