"""What `python -m cifar10 serve` does, step by step."""

import errno
import logging
import socket
import webbrowser

from omegaconf import DictConfig
from PIL import Image

from cifar10.commandline.instantiate import check_hints
from cifar10.errors import UserError, cause_of
from cifar10.inference.finished_runs import find
from cifar10.inference.loading import Model, load
from cifar10.inference.serving.guard import is_loopback

log = logging.getLogger("serve")

HINTS = {  # of conf/serve.yaml
    **{"run": str | None, "runs": str | list[str] | None, "host": str, "port": int, "checkpoint": str},
    **{"accelerator": str, "max_bytes": int, "max_pixels": int, "top": int, "open": bool},
}
CONNECTIONS = 100  # at once, each with a picture in memory at most; others are answered with 503


def serve(cfg: DictConfig) -> None:
    """Load the runs, and answer until Ctrl-C."""
    check_hints(cfg, HINTS)
    for key in ("max_bytes", "max_pixels", "top"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]}: must be at least 1")
    try:
        import uvicorn

        from cifar10.inference.serving.app import Server
        from cifar10.inference.serving.connections import Impatient
    except ImportError as error:
        raise UserError(f"serving needs another package ({error.name}): pip install 'cifar10[serve]'") from None
    listening = bind(cfg.host, cfg.port)
    with listening:
        Image.MAX_IMAGE_PIXELS = cfg.max_pixels // 2  # Pillow refuses what has more than twice as many
        server = Server(load_all(cfg), cfg.top, cfg.max_bytes)
        shown = f"[{cfg.host}]" if ":" in cfg.host else cfg.host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        log.info(f"{address}  Ctrl-C ends it")
        if cfg.open:
            webbrowser.open(address)
        quiet = {"log_config": None, "log_level": "warning", "access_log": False}
        limits = {"http": Impatient, "limit_concurrency": CONNECTIONS, "timeout_graceful_shutdown": 1}
        app = server.app(any_host=not is_loopback(cfg.host))
        try:
            uvicorn.Server(uvicorn.Config(app, **limits, **quiet)).run([listening])
        finally:
            server.close()


def load_all(cfg: DictConfig) -> list[Model]:
    models = [load(folder, cfg.checkpoint, cfg.accelerator) for folder in find(cfg.run, cfg.runs)]
    for model in models:
        log.info(f"{model.name}: {len(model.class_names)} classes, {model.calibration}")
    return models


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; UserError if that is not possible."""
    if not 0 <= port < 2**16:
        raise UserError(f"port={port}: must be from 0, for any that is free, to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(CONNECTIONS)  # who follows the address at once waits until the server has started
    except OSError as error:
        listening.close()
        way = "; try another port, or port=0 for any that is free" if error.errno == errno.EADDRINUSE else ""
        raise UserError(f"host={host} port={port}: {cause_of(error)}{way}") from error
    return listening
