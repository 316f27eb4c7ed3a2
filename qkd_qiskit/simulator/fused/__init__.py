"""A training step in one call: circuit, loss and optimizer."""
