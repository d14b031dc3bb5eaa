"""Arithmetic that paradigms share: labels, means over ranks, Pareto weights, CutMix, noise."""
