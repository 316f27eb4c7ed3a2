"""`python -m qkd_qiskit`: the `qkd` command."""

import sys

from qkd_qiskit.cli import main

sys.exit(main())
