"""Devices of IBM Quantum: client, jobs, journal, costs, and an emulator of the service."""
