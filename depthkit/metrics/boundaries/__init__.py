"""Metrics of occlusion boundaries: where depth jumps, in the prediction and in the label."""
