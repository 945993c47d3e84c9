"""The settings: names, types, defaults and descriptions. Only this module reads `AQ_*` variables."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

PREFIX = "AQ_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")
SCHEMES = {"dask": ("tcp://", "tls://"), "ray": ("ray://",)}
"""URL schemes of each kind of cluster."""

NO_ADDRESS = NO_ORIGINS = "none"

ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
"""An origin as browsers send it (RFC 6454): scheme, host and port, in lower case, without a path."""


class SettingsError(ValueError):
    """A variable is unknown or has an invalid value; the service does not start."""


def setting(
    default: Any,
    sentence: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a setting; its type is the annotation of the field."""
    metadata = {"sentence": sentence, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. `Settings()` has the defaults; `from_env` reads `AQ_<NAME>` for each field."""

    host: str = setting(
        "127.0.0.1", "Address to listen on; any but a loopback address needs AQ_API_KEYS_FILE or AQ_ALLOW_ANONYMOUS=1."
    )
    port: int = setting(8000, "TCP port to listen on; 0 = any free port.", minimum=0, maximum=65_535)
    data_dir: Path = setting(Path("active-query-data"), "Directory of all data; created with mode 0700.")
    workers: int = setting(2, "Worker processes.", minimum=1)
    threads: int = setting(
        8, "Concurrent requests per worker, not counting those that wait for a slow client.", minimum=1
    )
    max_body_bytes: int = setting(
        2**30, "Maximum size of a request body, in bytes; large pools are sent as multipart.", minimum=1
    )
    max_json_bytes: int = setting(
        2**25, "Maximum size of a JSON document, in bytes; parsing takes ten times as much memory.", minimum=1
    )
    max_pool_cells: int = setting(10**9, "Maximum size of a pool: samples x features.", minimum=1)
    query_seconds: int = setting(120, "Time limit of a query, in seconds.", minimum=1)
    fit_seconds: int = setting(
        600, "Time limit of a fit that may take more than about 10 seconds, in seconds.", minimum=1
    )
    max_batch: int = setting(10_000, "Maximum batch_size of a query.", minimum=1)
    heavy_requests: int = setting(
        4,
        "Concurrent requests per worker that fit, wait for a fit, or select from 10,000 samples or more.",
        minimum=1,
    )
    background_fits: int = setting(2, "Concurrent background fits per worker.", minimum=1)
    max_projects: int = setting(1_000, "Maximum number of projects.", minimum=1)
    reply_bytes: int = setting(
        2**28,
        "Disk space for replies to requests with an Idempotency-Key, in bytes; the oldest are dropped first.",
        minimum=1,
    )
    cache_bytes: int = setting(2**28, "Memory per worker for cached models, scores and states, in bytes.", minimum=0)
    backend: str = setting(
        "threads",
        "Where large pools are scored: in threads, or on a dask or ray cluster.",
        choices=("threads", *SCHEMES),
    )
    backend_address: str = setting(
        NO_ADDRESS, "Address of the cluster: tcp://host:8786 for dask, ray://host:10001 for ray."
    )
    log_level: str = setting("info", "Minimum level of log messages.", choices=LOG_LEVELS)
    log_format: Literal["json", "text"] = setting("json", "Format of log lines.", choices=LOG_FORMATS)
    api_keys_file: Path | None = setting(
        None, "Path of the API-key file; when set, every request needs a key. `active-query keys new` creates the file."
    )
    allow_anonymous: bool = setting(
        False, "1 = serve other machines without API keys; everyone who can reach the port has full access."
    )

    embeddings_dir: Path | None = setting(
        None, "Directory of models that embed texts, one directory each; needs the extra `embeddings`."
    )

    cors_origins: str = setting(
        NO_ORIGINS, "Origins whose pages may call the service from a browser, separated by commas."
    )

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins of `cors_origins`."""
        named = {origin.strip() for origin in self.cors_origins.split(",")}
        return frozenset(named - {"", NO_ORIGINS})

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings from a mapping such as `os.environ`.

        Raises SettingsError, which names every `AQ_*` variable that is unknown or invalid.
        """
        declared = {variable_name(item): item for item in fields(cls)}
        values: dict[str, Any] = {}
        problems = []
        for name, text in sorted(environment.items()):
            if not name.startswith(PREFIX):
                continue
            if name not in declared:
                problems.append(
                    f"{name} is not a setting; {suggest_setting(name, list(declared))}{kubernetes_hint(name, text)}"
                )
                continue
            try:
                values[declared[name].name] = parse_value(declared[name], text)
            except ValueError as error:
                problems.append(f"{name}={text!r}: {error}{kubernetes_hint(name, text)}")
        settings = cls(**values)
        problems += [*backend_problems(settings), *origin_problems(settings)]
        if problems:
            raise SettingsError("\n".join(problems))
        return settings

    @classmethod
    def from_process(cls) -> Settings:
        """Read the settings from this process's environment."""
        return cls.from_env(os.environ)

    def require_access_control(self) -> None:
        """Raise SettingsError if other machines could reach the service without API keys, unless that is allowed."""
        if self.api_keys_file is None and not self.allow_anonymous and not is_loopback(self.host):
            raise SettingsError(
                f"AQ_HOST={self.host!r} can be reached from other machines, and everyone who reaches it may read, "
                "change and delete every project: set AQ_API_KEYS_FILE (`active-query keys new` creates the file), "
                "listen on 127.0.0.1, or set AQ_ALLOW_ANONYMOUS=1 if a proxy or a private network guards the port"
            )


def backend_problems(settings: Settings) -> list[str]:
    """Return the problems of `backend_address`."""
    backend, address = settings.backend, settings.backend_address
    if backend in SCHEMES:
        is_right = address.startswith(SCHEMES[backend]) and re.fullmatch(r"\w+://[^/]+:\d+", address)
        forms = " or ".join(f"{scheme}host:port" for scheme in SCHEMES[backend])
        return [] if is_right else [f"AQ_BACKEND_ADDRESS={address!r}: with AQ_BACKEND={backend} it must be {forms}"]
    if address != NO_ADDRESS:
        return [f"AQ_BACKEND_ADDRESS={address!r}: an address is only used if AQ_BACKEND is dask or ray"]
    return []


def origin_problems(settings: Settings) -> list[str]:
    """Return the problems of `cors_origins`."""
    return [
        f"AQ_CORS_ORIGINS: {origin!r} is not an origin such as https://labels.example or http://localhost:3000 "
        "(scheme, host and port in lower case, without a path; wildcards are not supported)"
        for origin in sorted(settings.allowed_origins)
        if not ORIGIN.fullmatch(origin)
    ]


def variable_name(item: Field[Any]) -> str:
    """Return the environment variable of a field of Settings."""
    return PREFIX + item.name.upper()


def parse_value(item: Field[Any], text: str) -> Any:
    """Convert the text of a variable to the type of its setting. Raises ValueError, which says what it must be."""
    text = text.strip()
    # `from __future__ import annotations` turns annotations into strings.
    match cast("str", item.type):
        case "int":
            return parse_integer(text, item.metadata["minimum"], item.metadata["maximum"])
        case "bool":
            if text.lower() not in ("0", "1", "false", "true"):
                raise ValueError("must be 1 or 0")
            return text.lower() in ("1", "true")
        case "Path":
            if not text:
                raise ValueError("must be a directory")
            return Path(text)
        case "Path | None":
            if not text:
                raise ValueError("must be a file, or none")
            return None if text.lower() == "none" else Path(text)
    choices = item.metadata["choices"]
    if not text or (choices and text.lower() not in choices):
        raise ValueError("must be one of " + ", ".join(choices) if choices else "must not be empty")
    return text.lower() if choices else text


def parse_integer(text: str, minimum: int, maximum: int | None) -> int:
    """Parse an integer from `minimum` to `maximum`."""
    must = f"must be an integer from {minimum} " + ("upwards" if maximum is None else f"to {maximum}")
    try:
        number = int(text)
    except ValueError:
        raise ValueError(must) from None
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(must)
    return number


def suggest_setting(name: str, known: list[str]) -> str:
    """Return the closest setting and the list of all."""
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}The settings are: {', '.join(sorted(known))}"


def kubernetes_hint(name: str, text: str) -> str:
    """Return an explanation of variables that Kubernetes derives from a service named `aq`."""
    if "://" not in text and "_SERVICE_" not in name and "_PORT_" not in name:
        return ""
    return (
        "\n  (Kubernetes sets such variables in every pod of a namespace with a service named 'aq': "
        "set `enableServiceLinks: false` for the pod, or rename the service)"
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
