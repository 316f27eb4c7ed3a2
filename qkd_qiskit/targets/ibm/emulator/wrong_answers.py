"""Answers with status 200 that are wrong: results that lack something, usage that cannot be."""

import base64
import json
import math
import zlib
from typing import Any

import numpy as np


def wrong_answer(kind: str, text: str) -> str:
    """Return an answer as a service at fault would give it.

    Args:
        kind: ``short``, each row of the first PUB lacks a shot; ``lost``, the last PUB is missing;
            ``negative`` or ``text``, the QPU seconds; ``empty``, an object without content;
            ``garbled``, no JSON.
        text: The right answer, JSON.
    """
    if kind == "garbled":
        return text[: math.ceil(len(text) / 2)] + "<html>"
    if kind == "empty":
        return "{}"
    content = json.loads(text)
    if kind in ("negative", "text"):
        seconds = content["usage"]["qpu_charge_time_seconds"]
        content["usage"]["qpu_charge_time_seconds"] = -1.0 if kind == "negative" else f"{seconds} s"
    elif kind == "lost":
        del content["data"][-1]
    else:
        content["data"][0]["results"] = {
            name: _without_a_shot(tensor) for name, tensor in content["data"][0]["results"].items()
        }
    return json.dumps(content)


def _without_a_shot(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return an encoded tensor (rows, shots, bits) of booleans without its last shot."""
    packed = np.frombuffer(zlib.decompress(base64.b64decode(tensor["data"])), dtype=np.uint8)
    size = math.prod(tensor["shape"])
    bits = np.unpackbits(packed, bitorder="little")[:size].reshape(tensor["shape"])[..., :-1, :]
    data = zlib.compress(np.packbits(bits, bitorder="little").tobytes())
    encoded = base64.b64encode(data).decode()
    return tensor | {"data": encoded, "shape": list(bits.shape)}
