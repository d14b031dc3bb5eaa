"""Networks that predict where source views were taken, and cameras that are learned."""
