"""Shared arithmetic of the paradigms: terms, labels, means over ranks, Pareto weights, CutMix, noise."""
