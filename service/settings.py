"""The settings: names, types, defaults and one sentence each. The only module that knows the environment."""

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
"""What the address of each kind of cluster starts with."""

NO_ADDRESS = NO_ORIGINS = "none"

ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
"""An origin as browsers send it (RFC 6454): scheme, host and port, in lower case, without a path."""


class SettingsError(ValueError):
    """The environment holds a setting that is unknown or cannot be read; the service does not start."""


def setting(
    default: Any,
    sentence: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one setting; its type is the annotation beside it."""
    metadata = {"sentence": sentence, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. `Settings()` holds the defaults; `from_env` reads `AQ_<NAME>` for each."""

    host: str = setting(
        "127.0.0.1", "Address to listen on; anything but loopback needs AQ_API_KEYS_FILE or AQ_ALLOW_ANONYMOUS=1."
    )
    port: int = setting(8000, "TCP port to listen on; 0 takes a free one.", minimum=0, maximum=65_535)
    data_dir: Path = setting(Path("active-query-data"), "Directory that holds all projects; made with mode 0700.")
    workers: int = setting(2, "Worker processes.", minimum=1)
    threads: int = setting(
        8, "Requests that each worker works at at once; one that waits for its client does not count.", minimum=1
    )
    max_body_bytes: int = setting(2**30, "Largest request body, in bytes; a multipart pool may be this big.", minimum=1)
    max_json_bytes: int = setting(
        2**25, "Largest JSON document, in bytes: parsed, it takes ten times as much memory.", minimum=1
    )
    max_pool_cells: int = setting(10**9, "Largest pool: samples times features.", minimum=1)
    query_seconds: int = setting(120, "How long a selection may take, in seconds.", minimum=1)
    max_batch: int = setting(10_000, "Largest batch_size of a query.", minimum=1)
    heavy_requests: int = setting(
        4,
        "Requests of each worker at once that fit, wait for a fit, or select anew from 10,000 samples up.",
        minimum=1,
    )
    background_fits: int = setting(2, "Fits that each worker makes at once without anybody waiting.", minimum=1)
    max_projects: int = setting(1_000, "How many projects there may be.", minimum=1)
    reply_bytes: int = setting(
        2**28,
        "Room for replies to requests with an Idempotency-Key, in bytes; where it is full the oldest are given up.",
        minimum=1,
    )
    cache_bytes: int = setting(
        2**28, "Memory that each worker may use to keep models, scores and states at hand, in bytes.", minimum=0
    )
    backend: str = setting("threads", "Who scores large pools: threads, dask or ray.", choices=("threads", *SCHEMES))
    backend_address: str = setting(
        NO_ADDRESS, "Where the cluster of AQ_BACKEND runs: tcp://host:8786 of Dask, ray://host:10001 of Ray."
    )
    log_level: str = setting("info", "How much is logged.", choices=LOG_LEVELS)
    log_format: Literal["json", "text"] = setting(
        "json", "How a line of the log is written: json, for programs, or text.", choices=LOG_FORMATS
    )
    api_keys_file: Path | None = setting(
        None, "File of API keys, without one of which no request is answered; `active-query keys new` makes it."
    )
    allow_anonymous: bool = setting(
        False, "1 = serve beyond loopback without API keys, although anybody who reaches the port may do anything."
    )

    cors_origins: str = setting(
        NO_ORIGINS, "Origins whose pages may call the service from a browser, separated by commas; none = no other."
    )

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins of `cors_origins`."""
        named = {origin.strip() for origin in self.cors_origins.split(",")}
        return frozenset(named - {"", NO_ORIGINS})

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings from a mapping such as `os.environ`.

        Raises SettingsError naming every variable that starts with `AQ_` and is unknown or cannot be read.
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
        """Raise SettingsError when the service would be open to a network without having been told to."""
        if self.api_keys_file is None and not self.allow_anonymous and not is_loopback(self.host):
            raise SettingsError(
                f"AQ_HOST={self.host!r} can be reached from other machines, and whoever reaches it may read, change "
                "and delete every project: name a file of API keys in AQ_API_KEYS_FILE (`active-query keys new` makes "
                "it), listen on 127.0.0.1, or set AQ_ALLOW_ANONYMOUS=1 where a proxy or a private network guards the "
                "port"
            )


def backend_problems(settings: Settings) -> list[str]:
    """Say what is wrong with the address of a cluster: that it is missing, say, or that there is no cluster."""
    backend, address = settings.backend, settings.backend_address
    if backend in SCHEMES:
        is_right = address.startswith(SCHEMES[backend]) and re.fullmatch(r"\w+://[^/]+:\d+", address)
        forms = " or ".join(f"{scheme}host:port" for scheme in SCHEMES[backend])
        return [] if is_right else [f"AQ_BACKEND_ADDRESS={address!r}: with AQ_BACKEND={backend} it must be {forms}"]
    if address != NO_ADDRESS:
        return [f"AQ_BACKEND_ADDRESS={address!r}: there is no cluster to reach unless AQ_BACKEND is dask or ray"]
    return []


def origin_problems(settings: Settings) -> list[str]:
    """Say which entries of `cors_origins` are no origins."""
    return [
        f"AQ_CORS_ORIGINS: {origin!r} is not an origin such as https://labels.example or http://localhost:3000 "
        "(scheme, host and port in lower case, without a path; wildcards are not supported)"
        for origin in sorted(settings.allowed_origins)
        if not ORIGIN.fullmatch(origin)
    ]


def variable_name(item: Field[Any]) -> str:
    """Return the name of the environment variable behind a field of Settings."""
    return PREFIX + item.name.upper()


def parse_value(item: Field[Any], text: str) -> Any:
    """Turn the text of a variable into the type of its setting, or raise ValueError saying what it must be."""
    text = text.strip()
    # `from __future__ import annotations` leaves the annotation as its own text.
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
    """Read an integer of at least `minimum` and at most `maximum`."""
    must = f"must be an integer from {minimum} " + ("up" if maximum is None else f"to {maximum}")
    try:
        number = int(text)
    except ValueError:
        raise ValueError(must) from None
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(must)
    return number


def suggest_setting(name: str, known: list[str]) -> str:
    """Say which setting was probably meant, and list them all."""
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}There are: {', '.join(sorted(known))}"


def kubernetes_hint(name: str, text: str) -> str:
    """Explain variables that Kubernetes makes up from a service called `aq`."""
    if "://" not in text and "_SERVICE_" not in name and "_PORT_" not in name:
        return ""
    return (
        "\n  (Kubernetes sets such variables in every pod of a namespace that has a service called 'aq': "
        "give the pod `enableServiceLinks: false`, or the service another name)"
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
