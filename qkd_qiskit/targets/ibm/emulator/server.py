"""The rehearsal as a server in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm.account import URL, is_loopback
from qkd_qiskit.targets.ibm.client_version import schema_fault
from qkd_qiskit.targets.ibm.emulator.auth import Access
from qkd_qiskit.targets.ibm.emulator.devices import EmulatedDevice
from qkd_qiskit.targets.ibm.emulator.fault_injection import Faults
from qkd_qiskit.targets.ibm.emulator.job_limits import JobLimits
from qkd_qiskit.targets.ibm.emulator.ledger import Ledger
from qkd_qiskit.targets.ibm.emulator.service import EmulatedService
from qkd_qiskit.targets.ibm.emulator.sessions import Plan
from qkd_qiskit.targets.ibm.service_limits import UNLIMITED, ServiceLimits

if TYPE_CHECKING:
    from aiohttp import web

_PATIENCE_S = 10.0


class ServiceEmulator:
    """A Runtime service on this machine, as a context manager; see the package's docstring."""

    def __init__(
        self,
        devices: str | Sequence[str] = "fake_torino",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        plan: Plan = "premium",
        faults: Faults | None = None,
        seed: int = 0,
        noisy: bool = True,
        allowance_s: float | None = None,
        limits: ServiceLimits | bool = False,
    ):
        """Make a server; it listens from `start` on.

        Args:
            devices: Snapshots such as ``fake_torino``, which is served as ``ibm_torino``.
            host: Address to listen on, of this machine's loopback interface.
            port: 0 takes a free one.
            plan: ``open`` has no sessions and 600 QPU seconds, ``premium`` has no limit.
            faults: What goes wrong; default: nothing.
            seed: Seed of the shots of jobs that do not give one.
            noisy: Whether the devices have their noise.
            allowance_s: QPU seconds of the instance; default: the plan's.
            limits: Jobs that may be created and be on their way: True = the plan's, False = any.

        Raises:
            TargetError: A device is not known, or plan, host or port is not accepted.
        """
        if plan not in ("open", "premium"):
            raise TargetError(f"plan is {plan!r}; accepted are open and premium")
        if not is_loopback(f"http://{host}"):
            raise TargetError(
                f"host is {host!r}; a rehearsal listens on this machine alone, on 127.0.0.1"
            )
        if not 0 <= port < 2**16:
            raise TargetError(f"port is {port}; accepted are 0, for a free one, to 65535")
        names = [devices] if isinstance(devices, str) else list(devices)
        if not names or len(set(names)) < len(names):
            raise TargetError(f"devices are {', '.join(names) or 'none'}; give each device once")
        self.faults = Faults() if faults is None else faults
        """The switchboard, changeable while the server runs."""
        self._access = Access()
        self._service = EmulatedService(
            [EmulatedDevice(name, noisy=noisy) for name in names],
            plan=plan,
            faults=self.faults,
            seed=seed,
            allowance_s=allowance_s,
            limits=_limits(limits, plan=plan),
        )
        self._host, self._port = host, port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address, such as ``http://127.0.0.1:8765``."""
        return f"http://{self._host}:{self._port}"

    @property
    def token(self) -> str:
        """The API key, made for this rehearsal; it is worth nothing elsewhere."""
        return self._access.key

    @property
    def instance(self) -> str:
        """The instance, in the form of a cloud resource name."""
        return self._access.instance

    @property
    def backends(self) -> Mapping[str, EmulatedDevice]:
        """The devices by the names they are served under; their status can be set."""
        return MappingProxyType(self._service.devices)

    @property
    def limits(self) -> JobLimits:
        """The limits that it enforces, and how often it did."""
        return self._service.limits

    @property
    def ledger(self) -> Ledger:
        """What the server has received."""
        return self._service.ledger

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which a command submits to this server.

        The first two lead the client's own sign-in to the server and spare it the catalogue of
        instances; the next two are the client's credentials; the last one is this package's.
        """
        return {
            "IAM_URL": self.url,
            "QISKIT_FUNCTIONS_EXPERIMENTAL": "1",
            "QISKIT_IBM_TOKEN": self.token,
            "QISKIT_IBM_INSTANCE": self.instance,
            URL: self.url,
        }

    def retire(self, name: str) -> None:
        """Take a device out of service, by the name that it is served under: its jobs stay."""
        self._service.retire(name)

    def expire_sessions(self) -> None:
        """Let all open sessions and batches reach their maximum time."""
        self._service.queue.expire_sessions()

    def start(self) -> "ServiceEmulator":
        """Start to listen; return the server.

        Raises:
            TargetError: The port is taken, the package's extra is not installed, or the client
                sends what is not understood here.
        """
        try:
            from qkd_qiskit.targets.ibm.emulator.endpoints import make_application
        except ImportError as error:
            raise TargetError(
                "a rehearsal needs aiohttp; install it with pip install 'qkd-qiskit[rehearse]'"
            ) from error
        fault = schema_fault()
        if fault is not None:
            raise TargetError(fault)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            raise TargetError(
                f"{self._host}:{self._port} cannot be listened on ({error.strerror}); give "
                "another port, or 0 for a free one"
            ) from error
        self._port = listener.getsockname()[1]
        application = make_application(self._service, self._access)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(application, listener)),
            name="rehearsal",
            daemon=True,
        )
        self._thread.start()
        if not self._ready.wait(_PATIENCE_S):
            raise TargetError(f"the rehearsal did not start within {_PATIENCE_S:.0f} s")
        self._service.queue.start()
        return self

    def stop(self) -> None:
        """Stop listening, after the job that runs; what was received can still be read."""
        if self._thread is None or self._loop is None or self._stopped is None:
            return
        self._service.queue.stop()
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> "ServiceEmulator":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def _serve(self, application: "web.Application", listener: socket.socket) -> None:
        from aiohttp import web

        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(
            application,
            # Requests carry the key in a header: they are counted, not logged.
            access_log=None,
            shutdown_timeout=0.5,
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
        self._ready.set()
        await self._stopped.wait()
        await runner.cleanup()


def _limits(limits: ServiceLimits | bool, *, plan: Plan) -> ServiceLimits:
    if isinstance(limits, ServiceLimits):
        return limits
    return ServiceLimits.of_plan(plan) if limits else UNLIMITED
