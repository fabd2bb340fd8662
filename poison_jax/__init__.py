"""Data poisoning seen in input-space curvature, and suppressed by input-gradient regularisation."""
