"""The stream of training batches: plan and mixing (arithmetic), shuffle, buffers, loader, collate."""
