"""Answer over HTTP: several adapters, chosen by each request."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from peftselect.cli import options


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", type=int, default=8000, show_default=True, metavar="N", help="Where to listen.")
@click.option("--max-inputs", type=int, default=64, show_default=True, metavar="N", help="Inputs in one request.")
@click.option("--max-characters", type=int, default=20_000, show_default=True, metavar="N", help="Longest input.")
@click.option("--log-requests", metavar="FILE", help="Append what is asked and answered to FILE.  [default: nowhere]")
@options.adapter_options
def serve(
    folders: tuple[str, ...], host: str, port: int, max_inputs: int, max_characters: int, log_requests: str | None,
    task: str | None, model: str | None,
) -> None:  # fmt: skip
    """Serve the adapters in DIR... until Ctrl-C: POST /predict, GET /adapters, /health, /metrics (Prometheus).

    \b
    peftselect serve lora-run ia3-run --port 8000
    curl localhost:8000/predict -d '{"adapter": "lora-run", "inputs": ["a warm and funny film"]}'

    Adapters of one base model share it. Nothing that is asked is kept unless --log-requests names a file.
    """
    from peftselect.cli import console
    from peftselect.errors import InputError
    from peftselect.serving.saved import read_saved

    saved = [read_saved(folder, task=task, model=model) for folder in folders]
    try:
        import uvicorn

        from peftselect.serving.listening import claim
        from peftselect.serving.server import Limits, make_app
    except ImportError as error:
        raise InputError(f"serve needs {error.name}", "pip install 'peftselect[serve]'") from error
    address = claim(host, port)
    with console.waiting(f"loading {', '.join(item.name for item in saved)}"):
        from peftselect.serving.adapters import Adapters

        adapters = Adapters(saved)
    port = address.getsockname()[1]
    console.note(f"{len(adapters.names)} adapters on {adapters.models} base models at http://{host}:{port}")
    log = Path(log_requests) if log_requests else None
    app = make_app(adapters, Limits(max_inputs, max_characters), log)
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning"))
    with suppress(KeyboardInterrupt):  # Ctrl-C is how a server ends
        server.run(sockets=[address])
