"""Files of weights: checkpoints and their facts, published names, key conversions."""
