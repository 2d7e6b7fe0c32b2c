"""Start the demo, on a laptop or as a Hugging Face Space: python app.py --help."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from demo.limits import add_flags, read_flags
from demo.server.upkeep import exit_on_signals

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line of the demo. argv: None takes sys.argv.

    Exits with status 2 if the command line is wrong.
    """
    parser = argparse.ArgumentParser(prog="app.py", description="Serves Glassbox Diffusion.")
    parser.add_argument(
        "--model",
        default="emoji",
        metavar="NAME|PATH|HUB_ID",
        help="an embedded model, a folder, a .safetensors file or a hub id (default: emoji)",
    )
    parser.add_argument("--vae", help="another autoencoder for it: a name of ./models, or a path")
    parser.add_argument(
        "--low-memory",
        action="store_true",
        help="weights visit the GPU layer by layer, pictures are decoded in tiles",
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="a public link through gradio.live")
    parser.add_argument("--mcp", action="store_true", help="offer each task to MCP clients too")
    add_flags(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Load the model and serve the page until the process is interrupted.

    argv: the command line, None takes sys.argv. Returns the exit status: 0, or 2 after an error
    whose sentence was printed to stderr.
    """
    with exit_on_signals():
        return start(arguments(argv))


def start(args: argparse.Namespace) -> int:
    """Load the model and serve the page as the command line says; return the exit status."""
    if args.port is not None:
        if not 0 < args.port < 65536:
            return complain(f"--port must be from 1 to 65535, not {args.port}.")
        host = args.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
        reason = cannot_listen(host, args.port)
        if reason:
            return complain(f"Cannot listen on {host}, port {args.port}: {reason}.")
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401 - ZeroGPU wants it before torch
    from demo.server import temp_folder
    from pipeline import InputError, load

    temp_folder.current()  # before Gradio is imported, which makes folders
    try:
        options = {"low_memory": args.low_memory}
        models = load(args.model, vae=args.vae, **options)
    except InputError as error:
        return complain(error)

    from demo import build, serve
    from demo.server.zerogpu import wrap_gpu_work
    from pipeline.backends import trust
    from pipeline.model_cache import ModelCache

    trust.check_in_background = True
    models.backends.open_session()  # begins the check of our kernels, where there is no verdict yet

    where = {"server_name": args.host, "server_port": args.port, "share": args.share or None}
    page = build(ModelCache(models, **options), wrap_gpu_work, read_flags(args))
    try:
        _, local, public = serve(page, mcp_server=args.mcp or None, **where)
        if page.mcp_error:
            return complain(page.mcp_error)
        print(f"Glassbox Diffusion draws with {models.name} at {public or local}", flush=True)
        page.block_thread()
    except OSError as error:  # no port was free, or no such address is ours
        return complain(f"Cannot serve: {str(error).splitlines()[0]}")
    finally:
        page.upkeep.end()
    return 0


def cannot_listen(host: str, port: int) -> str | None:
    """Return why the server cannot listen on that host and port; None if it can.

    Called before the model is loaded, so that the user need not wait seconds for the answer.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def complain(sentence: object) -> int:
    """Print an error sentence to stderr and return 2, the exit status for wrong usage."""
    print(sentence, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
