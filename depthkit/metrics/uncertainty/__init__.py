"""Metrics of uncertainty: whether the pixels called uncertain are those that are wrong, and whether by as much."""
