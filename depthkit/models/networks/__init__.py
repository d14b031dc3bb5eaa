"""One file per paper's network, its decoder and head beside it."""
