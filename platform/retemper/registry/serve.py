"""A registered model as a server: the artifact is checked as a whole before MLflow sees it, and requests have limits.

What a request asks of the model is limited in `retemper.registry.served_model`, whoever serves it; here also its size
in bytes and its time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from retemper.tracking.store import default_store

LARGEST = 20_000_000  # bytes of a request
DEEPEST = 64  # brackets within each other; a request needs seven, and Python's reader of JSON has an end
SECONDS = 120  # of a request, the time that it waits included


def application(root: Path, name: str, folder: Path, head: str | None = None) -> Any:
    """MLflow's scoring application for a head of a registered model, downloaded into `folder` and checked.

    Raises
    ------
    RetemperError
        An unknown name or head, or an artifact of which any file is not the registered one: MLflow did not open it.
    """
    import os

    from retemper.registry import attachments
    from retemper.registry.client import open_registry
    from retemper.registry.versions import resolve

    with open_registry(root, existing=True) as registry:
        place = attachments.download(registry, resolve(registry, name), folder)
        config = None if head is None else {"head": head}
        os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(SECONDS)
        with default_store(root):
            import mlflow.pyfunc
            from mlflow.pyfunc import scoring_server

            return Bounded(scoring_server.init(mlflow.pyfunc.load_model(str(place), model_config=config)))


def run(root: Path, name: str, host: str, port: int, head: str | None = None) -> None:
    """Serve until the process is ended."""
    import uvicorn

    with tempfile.TemporaryDirectory() as folder:
        uvicorn.run(application(root, name, Path(folder), head), host=host, port=port, log_level="warning")


class Bounded:
    """An ASGI application behind limits on a request: its bytes (413, before they are in memory), its depth (400)."""

    def __init__(self, inner: Any, largest: int = LARGEST):
        self.inner, self.largest = inner, largest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count what is received; answer here when it is too much, or when the request does not say how much it is."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        headers = dict(scope["headers"])
        as_json = b"json" in headers.get(b"content-type", b"")
        received, depth, begun = 0, 0, False
        refusal: tuple[int, str] | None = None

        async def receive_bounded() -> Any:
            nonlocal received, depth, refusal
            message = await receive()
            body = message.get("body", b"")
            received += len(body)
            if received > self.largest:
                refusal = self.too_large
            elif as_json and body:
                depths = depth + _depths(body)
                depth = int(depths[-1])
                if depths.max() > DEEPEST:
                    refusal = 400, f"a request may have at most {DEEPEST} brackets within each other"
            if refusal:
                raise _Refused
            return message

        async def send_noted(message: Any) -> None:
            nonlocal begun
            if refusal is None:
                begun = True
                await send(message)

        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.largest:
            refusal = self.too_large
        else:
            try:
                await self.inner(scope, receive_bounded, send_noted)
            except Exception:  # what the application makes of a refusal is its own
                if refusal is None:
                    raise
        if refusal is not None and not begun:
            await _answer(send, *refusal)

    @property
    def too_large(self) -> tuple[int, str]:
        return 413, f"a request may have at most {self.largest} bytes: send several"


class _Refused(Exception):  # noqa: N818 (an answer, not an error)
    pass


def _depths(body: bytes) -> np.ndarray:
    """How many brackets are open after each byte, from none; those in texts count too."""
    content = np.frombuffer(body or b" ", np.uint8) & 0xDF  # of [ and { the same value, and of ] and }
    return np.cumsum((content == ord("[")).astype(np.int32) - (content == ord("]")))


async def _answer(send: Any, status: int, text: str) -> None:
    import json

    body = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
