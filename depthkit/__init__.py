"""depthkit: train, evaluate and use networks that predict depth from one image.

The public names live in the subpackages (``depthkit.losses``, ``depthkit.metrics``, ``depthkit.models``,
``depthkit.data``, ``depthkit.evaluation``, ``depthkit.paradigms``, ``depthkit.inference``, ``depthkit.geometry``);
importing ``depthkit`` alone imports none of them.
"""

__version__ = "0.1.0"
