"""The HTTP face of a rehearsal: the endpoints of the Runtime REST API, and faults before them."""

import asyncio
import datetime
import json
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any

import numpy as np
from aiohttp import web

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.ibm.account import is_loopback
from qkd_qiskit.targets.ibm.connection import REHEARSED
from qkd_qiskit.targets.ibm.emulator.auth import Access
from qkd_qiskit.targets.ibm.emulator.fault_injection import Fault
from qkd_qiskit.targets.ibm.emulator.service import EmulatedService
from qkd_qiskit.targets.ibm.emulator.sessions import Refused, iso_now
from qkd_qiskit.targets.ibm.emulator.wrong_answers import wrong_answer
from qkd_qiskit.targets.ibm.service_limits import UNLIMITED

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY_BYTES = 2**28
_WRONG = {"garbled", "empty", "short", "lost", "negative", "text"}
_STRIKING: ContextVar[Fault | None] = ContextVar("the fault of this request", default=None)
_MESSAGES = {
    401: (1201, "Invalid credentials."),
    403: (1200, "You are not authorized to perform this action."),
    404: (1291, "Not found."),
    409: (1002, "Conflict."),
    429: (1202, "Too many requests received."),
    500: (1010, "Error returned at backend level."),
    503: (1010, "Service unavailable."),
}


def make_application(service: EmulatedService, access: Access) -> web.Application:
    """Return the application; its routes are named as `faults.ENDPOINTS`."""
    endpoints = Endpoints(service, access)
    application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[endpoints.answer])
    job, session = "/jobs/{id}", "/sessions/{id}"
    for method, path, handler, name in (
        ("POST", "/identity/token", endpoints.token, "token"),
        ("GET", "/backends", endpoints.backends, "backends"),
        ("GET", "/backends/{name}/configuration", endpoints.configuration, "configuration"),
        ("GET", "/backends/{name}/properties", endpoints.properties, "properties"),
        ("GET", "/backends/{name}/status", endpoints.status, "status"),
        ("GET", "/instances/usage", endpoints.usage, "usage"),
        ("POST", "/jobs", endpoints.submit, "submit"),
        ("GET", "/jobs", endpoints.jobs, "jobs"),
        ("GET", job, endpoints.job, "job"),
        ("DELETE", job, endpoints.delete, "delete"),
        ("GET", f"{job}/results", endpoints.results, "results"),
        ("GET", f"{job}/logs", endpoints.logs, "logs"),
        ("GET", f"{job}/metrics", endpoints.metrics, "metrics"),
        ("POST", f"{job}/cancel", endpoints.cancel, "cancel"),
        ("PUT", f"{job}/tags", endpoints.tags, "tags"),
        ("POST", "/sessions", endpoints.open_session, "open_session"),
        ("GET", session, endpoints.session, "session"),
        ("PATCH", session, endpoints.close_session, "close_session"),
        ("DELETE", f"{session}/close", endpoints.cancel_session, "cancel_session"),
        ("GET", "/rehearsal/ledger", endpoints.ledger, "rehearsal_ledger"),
        ("GET", "/rehearsal/faults", endpoints.faults, "rehearsal_faults"),
        ("POST", "/rehearsal/faults", endpoints.set_faults, "rehearsal_set_faults"),
    ):
        application.router.add_route(method, path, handler, name=name)
    return application


class Endpoints:
    """What answers each request."""

    def __init__(self, service: EmulatedService, access: Access):
        self.service = service
        self.access = access

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve a request, unless a fault strikes it first, or afterwards."""
        name = request.match_info.route.name or "unknown"
        # A page in a browser must not reach the server under a name of its own.
        if not is_loopback(str(request.url)):
            return _error(403, 1200, "Only loopback is served.")
        if name.startswith("rehearsal_"):
            return await _served(request, handler)
        self.service.ledger.count(name)
        fault = self.service.faults.draw(name)
        _STRIKING.set(fault)
        if fault is None:
            return await self._checked(request, handler, name)
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "expire_token":
            self.access.expire()
        elif fault.kind == "expire_session":
            self.service.queue.expire_sessions()
        if fault.kind in ("delay", "pending", "expire_token", "expire_session"):
            return await self._checked(request, handler, name)
        if fault.kind == "drip":
            return await _dripping(request, await self._checked(request, handler, name), fault)
        if fault.kind in _WRONG:
            return _wrong(await self._checked(request, handler, name), fault)
        if fault.accepted:
            await self._checked(request, handler, name)
        return _faulty(request, fault)

    async def _checked(
        self, request: web.Request, handler: Handler, name: str
    ) -> web.StreamResponse:
        if name != "token":
            try:
                self.access.check(
                    request.headers.get("Authorization", ""),
                    request.headers.get("Service-CRN", ""),
                )
            except Refused as refusal:
                return _error(refusal.status, refusal.code, refusal.message)
        return await _served(request, handler)

    async def token(self, request: web.Request) -> web.Response:
        """Give an access token for the API key."""
        form = await request.post()
        return web.json_response(self.access.give_token(str(form.get("apikey", ""))))

    async def backends(self, request: web.Request) -> web.Response:
        """List the devices."""
        devices = self.service.devices.values()
        listed = [device.describe(self.service.pending(device.name)) for device in devices]
        return web.json_response({"devices": listed})

    async def configuration(self, request: web.Request) -> web.Response:
        """Give a device's configuration."""
        return web.json_response(self.service.device(request.match_info["name"]).configuration)

    async def properties(self, request: web.Request) -> web.Response:
        """Give a device's calibration."""
        return web.json_response(self.service.device(request.match_info["name"]).properties)

    async def status(self, request: web.Request) -> web.Response:
        """Give a device's status."""
        device = self.service.device(request.match_info["name"])
        return web.json_response(
            {
                "state": not device.down,
                "status": device.status,
                "message": "",
                "length_queue": self.service.pending(device.name),
                "backend_version": str(device.configuration.get("backend_version", "0")),
            }
        )

    async def usage(self, request: web.Request) -> web.Response:
        """Give what the instance has consumed."""
        consumed, allowance = self.service.consumed_s(), self.service.allowance_s
        now = datetime.datetime.now(datetime.timezone.utc)
        period = {
            "start_time": (now - datetime.timedelta(days=28)).isoformat(),
            "end_time": now.isoformat(),
        }
        answer: dict[str, Any] = {
            "instance_id": self.access.instance,
            "plan_id": self.service.plan,
            "usage_consumed_seconds": consumed,
            "usage_period": period,
            "usage_limit_reached": allowance is not None and consumed >= allowance,
        }
        if allowance is not None:
            answer["usage_allocation_seconds"] = allowance
            answer["usage_limit_seconds"] = allowance
            answer["usage_remaining_seconds"] = max(0.0, allowance - consumed)
        if self.service.limits.limits != UNLIMITED:
            answer[REHEARSED] = asdict(self.service.limits.limits)
        return web.json_response(answer)

    async def submit(self, request: web.Request) -> web.Response:
        """Accept a job."""
        payload = await request.json()
        # Reading circuits takes a while: other requests are served meanwhile.
        return web.json_response(await asyncio.to_thread(self.service.submit, payload))

    async def jobs(self, request: web.Request) -> web.Response:
        """List jobs."""
        query = request.query
        return web.json_response(self.service.find(query, tags=query.getall("tags", [])))

    async def job(self, request: web.Request) -> web.Response:
        """Give a job."""
        params = request.query.get("exclude_params") != "true"
        return web.json_response(self.service.describe(request.match_info["id"], params=params))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a job."""
        self.service.delete(request.match_info["id"])
        return web.Response(status=204)

    async def results(self, request: web.Request) -> web.Response:
        """Give a job's result."""
        result = self.service.results(request.match_info["id"])
        if result is None:
            return web.Response(status=204)
        return web.Response(text=result, content_type="application/json")

    async def logs(self, request: web.Request) -> web.Response:
        """Give a job's log."""
        return web.Response(text=self.service.logs(request.match_info["id"]))

    async def metrics(self, request: web.Request) -> web.Response:
        """Give a job's times and usage."""
        fault = _STRIKING.get()
        pending = fault is not None and fault.kind == "pending"
        return web.json_response(self.service.metrics(request.match_info["id"], pending=pending))

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a job."""
        self.service.cancel(request.match_info["id"])
        return web.Response(status=204)

    async def tags(self, request: web.Request) -> web.Response:
        """Replace a job's tags."""
        self.service.set_tags(request.match_info["id"], (await request.json())["tags"])
        return web.Response(status=204)

    async def open_session(self, request: web.Request) -> web.Response:
        """Open a session or batch."""
        return web.json_response(self.service.open_session(await request.json()))

    async def session(self, request: web.Request) -> web.Response:
        """Give a session."""
        return web.json_response(self.service.session(request.match_info["id"]))

    async def close_session(self, request: web.Request) -> web.Response:
        """Let a session accept no more jobs."""
        if (await request.json()).get("accepting_jobs") is False:
            self.service.close_session(request.match_info["id"])
        return web.Response(status=204)

    async def cancel_session(self, request: web.Request) -> web.Response:
        """Let a session accept no more jobs, and take back those that wait."""
        self.service.close_session(request.match_info["id"], cancel=True)
        return web.Response(status=204)

    async def ledger(self, request: web.Request) -> web.Response:
        """Give the ledger."""
        return web.json_response(self.service.ledger.as_dict())

    async def faults(self, request: web.Request) -> web.Response:
        """Give the faults that may still strike."""
        return web.json_response({"armed": [str(fault) for fault in self.service.faults.armed]})

    async def set_faults(self, request: web.Request) -> web.Response:
        """Clear and add faults: ``{"clear": true, "add": ["submit:503"]}``."""
        payload = await request.json()
        given = [Fault.parse(str(text)) for text in payload.get("add", [])]
        if payload.get("clear"):
            self.service.faults.clear()
        self.service.faults.add(*given)
        return await self.faults(request)


async def _served(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refusal:
        return _error(refusal.status, refusal.code, refusal.message)
    except InputError as error:
        return _error(400, 1002, str(error))
    except (json.JSONDecodeError, KeyError, ValueError, AttributeError) as error:
        return _error(400, 1002, f"The request cannot be read ({type(error).__name__})")


def _wrong(right: web.StreamResponse, fault: Fault) -> web.StreamResponse:
    """Return a wrong answer in place of a right one; other answers than 200 stay."""
    if not isinstance(right, web.Response) or right.status != 200 or not right.text:
        return right
    try:
        text = wrong_answer(fault.kind, right.text)
    except (ValueError, KeyError, TypeError, IndexError):  # the result of a job that failed
        return right
    return web.Response(text=text, content_type="application/json")


async def _dripping(
    request: web.Request, right: web.StreamResponse, fault: Fault
) -> web.StreamResponse:
    """Send an answer byte by byte, the last one after the fault's seconds."""
    body = right.body if isinstance(right, web.Response) and right.body else b""
    content = bytes(body) if isinstance(body, bytes | bytearray) else b""
    drip = web.StreamResponse(status=right.status)
    drip.content_type = "application/json"
    drip.content_length = len(content)
    await drip.prepare(request)
    pieces = max(1, min(len(content), 50))
    for piece in np.array_split(np.frombuffer(content, dtype=np.uint8), pieces):
        await asyncio.sleep(fault.seconds / pieces)
        await drip.write(piece.tobytes())
    return drip


def _faulty(request: web.Request, fault: Fault) -> web.Response:
    if fault.kind == "cut":
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    status = int(fault.kind)
    response = _error(status, *_MESSAGES[status])
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response


def _error(status: int, code: int, message: str) -> web.Response:
    logger.debug("%s: answered %d, %s", iso_now(), status, message)
    errors = [{"code": code, "message": message, "solution": "", "more_info": ""}]
    return web.json_response({"errors": errors, "trace": ""}, status=status)
