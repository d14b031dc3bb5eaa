"""The ``depthkit`` command: training through LightningCLI, and commands for data, evaluation and prediction."""
