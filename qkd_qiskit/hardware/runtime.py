"""The IBM Quantum account: the only module that knows the Runtime client.

Credentials are those that the client itself has saved, or its environment variables. They are never
read, written or shown here: of an error of the client only its kind is repeated.
"""

import difflib
from typing import Any

from qkd_qiskit.errors import TargetError


def real_backend(name: str) -> Any:
    """Return a device of the user's account, such as ``ibm_torino``, with its calibration.

    Raises:
        TargetError: there is no account, it cannot be used, or it has no such device.
    """
    from qiskit.providers.exceptions import QiskitBackendNotFoundError
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError
    from qiskit_ibm_runtime.exceptions import IBMError

    try:
        service = QiskitRuntimeService()
    except AccountNotFoundError as error:
        raise TargetError(
            f"{name} needs an IBM Quantum account and none is saved here; save one with "
            "QiskitRuntimeService.save_account(...), or set QISKIT_IBM_TOKEN and "
            "QISKIT_IBM_INSTANCE"
        ) from error
    except IBMError as error:
        raise TargetError(
            f"{name}: the IBM Quantum account cannot be used ({type(error).__name__}); check its "
            "token and instance, and the network"
        ) from None
    try:
        return service.backend(name)
    except QiskitBackendNotFoundError as error:
        names = sorted(backend.name for backend in service.backends())
        near = difflib.get_close_matches(name, names, n=3) or names
        raise TargetError(
            f"the account has no device {name!r}; it has {', '.join(near) or 'none'}"
        ) from error
    except IBMError as error:
        raise TargetError(
            f"{name} cannot be read ({type(error).__name__}); try again later"
        ) from None
