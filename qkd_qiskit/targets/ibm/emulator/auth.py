"""Who may talk to a rehearsal: an API key, the access tokens given for it, one instance."""

import base64
import hmac
import json
import secrets
import threading
import time
import uuid

from qkd_qiskit.targets.ibm.emulator.sessions import Refused

TOKEN_TTL_S = 3600


class Access:
    """An API key that is worth nothing, and the access tokens of those who have shown it."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(33)
        """The API key."""
        account, instance = secrets.token_hex(16), uuid.uuid4()
        self.instance = f"crn:v1:bluemix:public:quantum-computing:us-east:a/{account}:{instance}::"
        """The instance, in the form of a cloud resource name."""
        self._lock = threading.Lock()
        self._tokens: dict[str, float] = {}

    def give_token(self, key: str) -> dict[str, object]:
        """Return what ``POST /identity/token`` answers to an API key.

        Raises:
            Refused: It is another key.
        """
        if not hmac.compare_digest(key.encode(), self.key.encode()):
            raise Refused(400, 400, "Provided API key could not be found.")
        now = int(time.time())
        token = _unsigned_jwt({"iat": now, "exp": now + TOKEN_TTL_S, "jti": uuid.uuid4().hex})
        with self._lock:
            self._tokens[token] = now + TOKEN_TTL_S
        return {
            "access_token": token,
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": TOKEN_TTL_S,
            "expiration": now + TOKEN_TTL_S,
            "scope": "ibm openid",
        }

    def expire(self) -> None:
        """Let all access tokens given so far be invalid."""
        with self._lock:
            self._tokens.clear()

    def check(self, authorization: str, instance: str) -> None:
        """Let a request pass.

        Args:
            authorization: Its Authorization header.
            instance: Its Service-CRN header.

        Raises:
            Refused: It has no valid token, or is for another instance.
        """
        kind, _, token = authorization.partition(" ")
        with self._lock:
            valid = kind == "Bearer" and self._tokens.get(token, 0.0) > time.time()
        if not valid:
            raise Refused(401, 1201, "Invalid credentials.")
        if instance != self.instance:
            raise Refused(403, 1200, "You are not authorized to use this instance.")


def _unsigned_jwt(claims: dict[str, object]) -> str:
    # The client reads the times in it and does not check who signed it.
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    parts.append(secrets.token_bytes(32))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
