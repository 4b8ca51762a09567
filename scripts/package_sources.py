"""Where packages come from: what is set for pip, for pip itself and in the words of uv."""

from __future__ import annotations

import ast
import os
import ssl
import subprocess
from pathlib import Path

LISTS = ("extra-index-url", "find-links", "trusted-host")
SOURCES = (
    *LISTS,
    "index-url",
    "no-index",
    "cert",
    "client-cert",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
    "keyring-provider",
    "no-cache-dir",
    "cache-dir",
)
"""Settings of pip that say where packages come from and how they are fetched; the others (constraints, targets, …) do
not concern us.
"""
UV_KEPT = (
    "UV_CACHE_DIR",
    "UV_LINK_MODE",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_INSTALLS",
    "UV_HTTP_TIMEOUT",
    "UV_NO_PROGRESS",
)
"""Settings of uv that cannot change what is installed."""


def read_settings(pip: list[str]) -> dict[str, str]:
    """Return what is set for pip of SOURCES, with pip's own order: the section `global`, then `install`, then the
    environment.
    """
    told = subprocess.run(
        [*pip, "config", "list"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    layers: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in told.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.strip().rpartition(".")
        if section in layers and name in SOURCES:
            layers[section][name] = str(ast.literal_eval(value))
    merged = {**layers["global"], **layers["install"], **layers[":env:"]}
    return {name: value for name, value in merged.items() if value.strip()}


def clean() -> dict[str, str]:
    """Return the environment variables without those that steer Python, pip or uv."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in UV_KEPT or not name.startswith(("PIP_", "UV_", "PYTHON"))
    }
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}


def for_pip(settings: dict[str, str]) -> dict[str, str]:
    """Return the environment variables for pip: these settings and none of its files."""
    mine = {"PIP_" + name.upper().replace("-", "_"): value for name, value in settings.items()}
    return {
        **clean(),
        **mine,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def for_uv(settings: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return options and environment variables for uv that mean what these settings mean to pip."""
    options, variables = (
        ["--index-strategy", "unsafe-best-match"],
        clean(),
    )  # as pip: whichever index has the file; hashes guard it
    lists = {name: settings.get(name, "").split() for name in LISTS}
    folders = [
        place for place in lists["find-links"] if "://" in place or Path(place).expanduser().exists()
    ]  # pip ignores absent ones
    for option, values in (
        ("--index", lists["extra-index-url"]),
        ("--find-links", folders),
        ("--allow-insecure-host", lists["trusted-host"]),
    ):
        for value in values:
            options += [option, value if "://" in value else str(Path(value).expanduser())]
    if "index-url" in settings:
        options += ["--default-index", settings["index-url"]]
    options += [f"--{name}" for name in ("no-index",) if settings.get(name, "").lower() in {"1", "true", "yes", "on"}]
    options += ["--no-cache"] if settings.get("no-cache-dir", "").lower() in {"1", "true", "yes", "on"} else []
    options += ["--keyring-provider", "subprocess"] if settings.get("keyring-provider") == "subprocess" else []
    if "cert" in settings:
        variables["SSL_CERT_FILE"] = str(Path(settings["cert"]).expanduser())
    elif "SSL_CERT_FILE" not in variables and _has_certificates():
        options.append("--system-certs")
    if "client-cert" in settings:
        variables["SSL_CLIENT_CERT"] = str(Path(settings["client-cert"]).expanduser())
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") if "proxy" in settings else ():
        variables[name] = settings["proxy"]
    seconds = settings.get("timeout", settings.get("default-timeout", ""))
    if seconds and "UV_HTTP_TIMEOUT" not in variables:
        variables["UV_HTTP_TIMEOUT"] = seconds.partition(".")[0]
    if "retries" in settings:
        variables["UV_HTTP_RETRIES"] = settings["retries"]
    return options, variables


def _has_certificates() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())))
