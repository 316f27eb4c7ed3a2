"""Density matrices: programs with noise, run compiled or in torch."""
