"""A registered model as a server: the artifact is checked as a whole before MLflow sees it, and requests have limits.

What a request asks of the model is limited in `retemper.mlflow_model`, whoever serves it; here also its size in bytes
and its time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from retemper.mlflow_store import default_store, quiet, store_errors

LARGEST = 20_000_000  # bytes of a request
SECONDS = 120  # of a request, the time that it waits included


def application(root: Path, name: str, folder: Path) -> Any:
    """MLflow's scoring application for a registered model, downloaded into `folder` and checked.

    Raises
    ------
    RetemperError
        An unknown name, or an artifact of which any file is not the registered one: MLflow did not open it.
    """
    import os

    with store_errors(root):
        quiet()
        from retemper.promotion import kept
        from retemper.promotion.load import existing_store, resolve

        client = existing_store(root)
        version = resolve(client, name)
        place = kept.whole(client, root, version, folder)
        os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(SECONDS)
        with default_store(root):
            import mlflow.pyfunc
            from mlflow.pyfunc import scoring_server

            return Bounded(scoring_server.init(mlflow.pyfunc.load_model(str(place))))


def run(root: Path, name: str, host: str, port: int) -> None:
    """Serve until the process is ended."""
    import uvicorn

    with tempfile.TemporaryDirectory() as folder:
        uvicorn.run(application(root, name, Path(folder)), host=host, port=port, log_level="warning")


class Bounded:
    """An ASGI application behind a limit on the bytes of a request: status 413 before they are in memory."""

    def __init__(self, inner: Any, largest: int = LARGEST):
        self.inner, self.largest = inner, largest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count what is received; answer here when it is too much, or when the request does not say how much it is."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        received, refused, begun = 0, False, False

        async def counted() -> Any:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.largest:
                refused = True
                raise _TooLarge
            return message

        async def noted(message: Any) -> None:
            nonlocal begun
            if not refused:
                begun = True
                await send(message)

        said = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if said.isdigit() and int(said) > self.largest:
                raise _TooLarge
            await self.inner(scope, counted, noted)
        except _TooLarge:
            refused = True
        if refused and not begun:
            await _answer(send, 413, f"a request may have at most {self.largest} bytes: send several")


class _TooLarge(Exception):  # noqa: N818 (an answer, not an error)
    pass


async def _answer(send: Any, status: int, text: str) -> None:
    import json

    body = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
