"""The stream of training batches: rows, mixing, plan and shuffle (arithmetic), stream, collate, buffers, loader.

One file per idea; what touches torch's ``DataLoader`` is in ``loader``, shared memory in ``buffers``.
"""
