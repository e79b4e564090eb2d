"""A Ray session: a quiet one of our own on this machine, or a cluster's, asked first whether it is there."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

from nas.jobs import WorkersError

OBJECT_STORE_BYTES = 100_000_000  # nothing large goes through it; Ray would take a third of the memory


def quiet_ray() -> ModuleType:
    """Ray, imported with its notices off; tokens stay on."""
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_USAGE_STATS_ENABLED"):
        os.environ.setdefault(name, "0")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return cast(ModuleType, ray)


def open_session(ray: ModuleType, address: str | None, modules: Sequence[str], gpu: bool) -> None:
    """Start a session on this machine, or join the one at `address` and ship it `modules`. Raises `WorkersError`."""
    # Ray would hide all cards but one from a process, for good: but a kept process gets another card with its next job.
    variables = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}} if gpu else {}
    start: Callable[..., object] = ray.init
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        start(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env=variables or None,
            **quiet,
        )
        return
    try:
        start(address=address, runtime_env={**variables, "py_modules": [_location(m) for m in modules]}, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError, SystemExit) as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise _refusal(address, error) from None


def _refusal(address: str, error: BaseException) -> WorkersError:
    from ray import __version__

    said = str(error).strip().partition(". ")[0].removesuffix(".")  # Ray goes on with advice for those who start it
    return WorkersError(
        f"Ray at {address} must take this driver, but {type(error).__name__}: {said}. A server answers there: is its "
        "token known here (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the head node), and is its Ray "
        f"{__version__}, too?"
    )


def _location(module: str) -> str:
    """The folder of a package, or the file of a module."""
    try:
        file = importlib.import_module(module).__file__
    except ModuleNotFoundError as error:
        raise WorkersError(f"A module that is shipped must be on the driver's path, but {error}.") from None
    if file is None:
        raise WorkersError(f"A package that is shipped must have an __init__.py, but {module} has none.")
    path = Path(file)
    return str(path.parent if path.name == "__init__.py" else path)


def reachable(address: str, timeout_s: float) -> str:
    """`address` with "auto" resolved. Raises `WorkersError` unless a Ray that takes this driver answers there in time.

    Ray itself tries for 5 minutes and then ends the process (2.60, measured). A gRPC server answers the greeting of
    HTTP/2 at once; one that wants TLS closes the connection, which is an answer too.
    """
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        with contextlib.suppress(ConnectionError):
            address = canonicalize_bootstrap_address("auto") or address
        if address == "auto":
            raise WorkersError(
                "A Ray cluster must run on this machine for address 'auto', but none was found: `ray start`."
            )
        with contextlib.suppress(
            ImportError
        ):  # of an older Ray; `ray start` and `ray.init("auto")` use a token there is
            from ray._private.authentication import authentication_token_setup

            authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise WorkersError(f"`address` must be auto, host:port or ray://host:port, but got {address!r}.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            with contextlib.suppress(ConnectionResetError):
                if connection.recv(5) == b"HTTP/":
                    raise WorkersError(
                        f"Ray must answer at {address}, but a web server does. The default port is 6379."
                    )
    except OSError as error:
        raise WorkersError(
            f"Ray must answer at {address} within {timeout_s:g} s, but {error}. Does the head node run (`ray status`)?"
        ) from None
    if not address.startswith("ray://"):
        _ask(address)
    return address


def _ask(address: str) -> None:
    """Raises `WorkersError` where the head node refuses this driver: at once, where `ray.init` asks for 20 s."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    try:
        GcsClient(address=address)
    except RayError as error:
        raise _refusal(address, error) from None
