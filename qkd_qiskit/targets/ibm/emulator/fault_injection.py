"""What goes wrong in a rehearsal: a switchboard of scripted and of random faults."""

import fnmatch
import math
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields

from qkd_qiskit.errors import TargetError

ENDPOINTS = (
    "token",
    "backends",
    "configuration",
    "properties",
    "status",
    "usage",
    "submit",
    "jobs",
    "job",
    "delete",
    "results",
    "logs",
    "metrics",
    "cancel",
    "tags",
    "open_session",
    "session",
    "close_session",
    "cancel_session",
)
"""Names of the requests that a client makes, for `Fault.endpoint`."""
RUN = "run"
"""What faults of a job itself strike, at the moment that it is about to run."""
REQUEST_KINDS = (
    "401",
    "403",
    "404",
    "409",
    "429",
    "500",
    "503",
    "cut",
    "delay",
    "pending",
    "expire_token",
    "expire_session",
    "drip",
    "garbled",
    "empty",
)
ENDPOINT_KINDS = {"results": ("short", "lost"), "metrics": ("negative", "text")}
"""Wrong answers that only some requests can have."""
RUN_KINDS = ("fail", "max_time", "cancel", "delay", "expire_session", "overrun")
_FLAGS = {"accepted"}
_NUMBERS = {"times": int, "after": int, "seconds": float, "retry_after": int, "rate": float}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        endpoint: The request that it strikes, one of `ENDPOINTS`, or ``run`` for a job that is
            about to run; a pattern such as ``*session`` strikes several.
        kind: For a request: an HTTP status such as ``"503"``; ``cut``, the connection breaks;
            ``delay``; ``pending``, the usage in a job's metrics is not final yet;
            ``expire_token``, the access tokens given out so far are no longer valid;
            ``expire_session``, all open sessions and batches reach their maximum time; ``drip``,
            the answer comes byte by byte within `seconds`; ``garbled`` and ``empty``, it is no JSON
            or lacks all; ``short`` and ``lost``, a result lacks a shot or a PUB; ``negative`` and
            ``text``, metrics tell such QPU seconds. For a job:
            ``fail``, ``max_time`` (reason code 1305), ``cancel``, ``delay``, ``expire_session``,
            ``overrun``, it takes so many QPU seconds more than the model says.
        times: How often it strikes at most; default: once, or without limit if it has a rate.
        after: How many requests it lets pass first.
        accepted: The request is served before the answer is lost or replaced: a job is accepted,
            and the client does not know. A job that fails has run, and has cost, before.
        seconds: How long a ``delay``, ``drip`` or ``overrun`` is.
        retry_after: Whole seconds in the Retry-After header of an HTTP status; None: no header.
        rate: Probability with which it strikes; None: always.
    """

    endpoint: str
    kind: str
    times: int | None = None
    after: int = 0
    accepted: bool = False
    seconds: float = 0.0
    retry_after: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        known = [*ENDPOINTS, RUN]
        struck = fnmatch.filter(known, self.endpoint)
        if not struck:
            raise TargetError(
                f"fault: there is no request {self.endpoint!r}; accepted are {', '.join(known)}"
            )
        own = [kinds for name, kinds in ENDPOINT_KINDS.items() if name in struck]
        kinds = (
            RUN_KINDS if struck == [RUN] else (*REQUEST_KINDS, *(kind for k in own for kind in k))
        )
        if self.kind not in kinds:
            raise TargetError(
                f"fault {self.endpoint}: kind {self.kind!r} is not known; accepted are "
                f"{', '.join(kinds)}"
            )
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise TargetError(f"fault {self.endpoint}: rate is {self.rate}; give 0 to 1")
        for name in ("times", "after", "seconds", "retry_after"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise TargetError(f"fault {self.endpoint}: {name} is {value}; give a number from 0")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Return the fault that a text such as ``submit:429:retry_after=1:times=3`` describes.

        The text is the endpoint, the kind and then any of ``accepted``, ``times=``, ``after=``,
        ``seconds=``, ``retry_after=`` and ``rate=``.

        Raises:
            TargetError: A part is not known.
        """
        endpoint, _, rest = text.partition(":")
        kind, *options = rest.split(":")
        settings: dict[str, bool | int | float] = {}
        for option in options:
            name, equals, value = option.partition("=")
            try:
                if not equals and name in _FLAGS:
                    settings[name] = True
                else:
                    settings[name] = _NUMBERS[name](value)
            except (KeyError, ValueError):
                accepted = ", ".join([*sorted(_FLAGS), *(f"{key}=NUMBER" for key in _NUMBERS)])
                raise TargetError(
                    f"fault {text!r}: {option!r} cannot be read; accepted are {accepted}"
                ) from None
        return cls(endpoint, kind, **settings)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        parts = [self.endpoint, self.kind]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(field.name if value is True else f"{field.name}={value:g}")
        return ":".join(parts)


@dataclass(frozen=True)
class Strike:
    """A fault that has struck.

    Attributes:
        number: 1 for the first strike of the rehearsal.
        endpoint: The request that was struck.
        fault: The fault's text.
        accepted: Whether the request was served nevertheless.
    """

    number: int
    endpoint: str
    fault: str
    accepted: bool


class Faults:
    """The switchboard: which faults strike, changeable while the server runs.

    Scripted faults come first, in their order; then those with a rate, each of which draws from a
    stream of its own: the same seed and the same requests give the same faults.
    """

    def __init__(self, faults: Iterable[Fault | str] = (), *, seed: int = 0):
        """Take faults, or their texts, and the seed of those that have a rate."""
        self.seed = seed
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._strikes: list[Strike] = []
        self._count = 0
        self.add(*faults)

    def add(self, *faults: Fault | str) -> None:
        """Let more faults strike from now on.

        Raises:
            TargetError: A text cannot be read.
        """
        given = [Fault.parse(fault) if isinstance(fault, str) else fault for fault in faults]
        with self._lock:
            for fault in given:
                stream = random.Random(f"{self.seed}:{self._count}:{fault}")
                self._armed.append(_Armed(fault, stream))
                self._count += 1

    def clear(self) -> None:
        """Let no fault strike from now on; what has struck stays known."""
        with self._lock:
            self._armed.clear()

    @property
    def strikes(self) -> tuple[Strike, ...]:
        """What has struck, in order."""
        with self._lock:
            return tuple(self._strikes)

    @property
    def armed(self) -> tuple[Fault, ...]:
        """What may still strike."""
        with self._lock:
            return tuple(armed.fault for armed in self._armed if armed.left > 0)

    def draw(self, endpoint: str) -> Fault | None:
        """Return the fault that strikes this request, or None; counts the request."""
        with self._lock:
            striking: _Armed | None = None
            for armed in sorted(self._armed, key=lambda armed: armed.fault.rate is not None):
                # All of them count the request: one's `after` does not depend on the others.
                if armed.applies(endpoint) and striking is None:
                    striking = armed
            if striking is None:
                return None
            striking.left -= 1
            fault = striking.fault
            self._strikes.append(
                Strike(len(self._strikes) + 1, endpoint, str(fault), fault.accepted)
            )
            return fault


class _Armed:
    def __init__(self, fault: Fault, stream: random.Random):
        self.fault = fault
        self.stream = stream
        unlimited = math.inf if fault.rate is not None else 1
        self.left: float = unlimited if fault.times is None else fault.times
        self.seen = 0

    def applies(self, endpoint: str) -> bool:
        if not fnmatch.fnmatchcase(endpoint, self.fault.endpoint):
            return False
        possible = (*REQUEST_KINDS, *ENDPOINT_KINDS.get(endpoint, ()))
        if self.fault.kind not in (RUN_KINDS if endpoint == RUN else possible):
            return False
        self.seen += 1
        if self.seen <= self.fault.after or self.left <= 0:
            return False
        return self.fault.rate is None or self.stream.random() < self.fault.rate
