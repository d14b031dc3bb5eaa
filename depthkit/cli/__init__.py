"""The ``depthkit`` command: training through LightningCLI, and the data, evaluation and demonstration commands beside it."""
