import pytest

from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.submission import Training


@pytest.mark.parametrize("steps", [0, -1, 100_001, 10**12])
def test_steps_that_no_device_would_take_are_refused(steps):
    with pytest.raises(InputError, match=f"--steps: {steps} is not accepted"):
        Training(gradient="spsa", steps=steps)
