"""Networks that say how far to trust each pixel of their map: wrappers that ask twice or several networks, a trained part.

Each has ``gives_uncertainty`` and ``with_uncertainty(image, shown)``, which returns the map that ``forward`` returns and the
uncertainty: a fraction of depth; of a network known up to scale and shift, in the units of its disparity or depth.
"""
