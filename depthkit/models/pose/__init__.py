"""Networks that predict camera motion and intrinsics."""
