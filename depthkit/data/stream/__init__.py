"""The stream of training batches: rows, mixing, plan and shuffle (arithmetic), stream, collate, buffers, loader.

One file per idea; what touches torch's ``DataLoader`` is in ``loader``, memory that workers share in ``buffers``, memory that
is used again in ``memory``.
"""
