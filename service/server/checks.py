"""What is checked before gunicorn starts, since each worker would fail with a traceback."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from service.auth.keyfile import read_keys
from service.auth.keys import KeysError
from service.backends import refuse_missing_extra
from service.errors import StoreBusy, StoreUnwritable
from service.server.sweeps import SWEPT_BY
from service.settings import Settings, SettingsError
from service.store import Store


def find_problem() -> str | None:
    """Return why a service with the settings of this process cannot start, None if it can."""
    settings = Settings.from_process()
    try:
        refuse_missing_extra(settings)
    except SettingsError as error:
        return str(error)
    if settings.api_keys_file is not None and (problem := problem_of_keys(settings.api_keys_file)):
        return f"AQ_API_KEYS_FILE: {problem}; `active-query keys new` makes one"
    return problem_of_data_dir(settings)


def problem_of_keys(path: Path) -> str | None:
    """Return why a file holds no usable key, None if it does."""
    try:
        return None if read_keys(path).all else f"{str(path)!r} holds no key"
    except KeysError as error:
        return str(error)


def problem_of_data_dir(settings: Settings) -> str | None:
    """Return why the data directory is unusable, None if it is not; remove what dead processes left there."""
    path = settings.data_dir
    try:
        store = Store(path, reply_bytes=settings.reply_bytes)
        # A read-only directory is served for reading.
        with suppress(StoreUnwritable):
            store.check_writable()
        store.sweep()
        SWEPT_BY[:] = [os.getpid()]
    except (OSError, StoreBusy, StoreUnwritable) as error:
        return f"AQ_DATA_DIR={str(path)!r}: the directory cannot be used by user {os.getuid()}: {error}"
    return None
