"""``depthkit fit | validate | test``: LightningCLI bound to depthkit, and what a run goes on with."""
