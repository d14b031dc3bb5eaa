"""A page in the browser for one or two networks: drop an image, see its depth, point at it, turn it, take it away.

``views`` makes what the page shows of a prediction, without a browser; ``server`` is the page itself, in gradio.
"""

from depthkit.app.views import Look, downloads, view

__all__ = ["Look", "downloads", "view"]
