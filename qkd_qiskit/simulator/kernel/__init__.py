"""The compiled kernel of the statevector: its code, its plan, its calls."""
