"""Who may do what: roles, API keys, and the projects that a key may touch.

A token is 256 random bits, and its SHA-256 is all that is kept of it. A hash that is slow on purpose protects what can
be guessed, such as a password; nobody guesses 256 bits, and a quick one costs each request a microsecond.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from service.domain.project import PROJECT_ID

ALL_PROJECTS = "*"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
MAX_ANNOTATOR_LENGTH = 256

TOKEN_PREFIX = "aq_"  # noqa: S105 - by which people, and those who look for leaked keys, know what it is
TOKEN_BYTES = 32

REQUIRED_FIELDS = {"name", "role", "projects", "sha256"}
KEY_FIELDS = REQUIRED_FIELDS | {"annotator", "created_at"}


class Role(IntEnum):
    """What a key may do; each role may do all that those before it may."""

    READER = 1
    ANNOTATOR = 2
    ADMIN = 3

    def __str__(self) -> str:
        return self.name.lower()


ROLES = {str(role): role for role in Role}


class KeysError(ValueError):
    """The file of keys cannot be read, or does not say what it should; or there is no such key to revoke."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. `projects` are names, beginnings of names (`team-*`), or EVERYTHING.

    `name` is None for whoever calls a service without keys. With an `annotator` the caller answers as this one alone.
    """

    name: str | None
    role: Role
    projects: tuple[str, ...]
    annotator: str | None = None
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _beginnings: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        beginnings = tuple(pattern[:-1] for pattern in self.projects if pattern.endswith("*"))
        object.__setattr__(self, "_names", frozenset(self.projects))
        object.__setattr__(self, "_beginnings", beginnings)

    def may_access(self, project_id: str) -> bool:
        """Tell whether a project is one of the caller's, whether or not there is such a project."""
        return project_id in self._names or project_id.startswith(self._beginnings)


ANONYMOUS = Caller(None, Role.ADMIN, (ALL_PROJECTS,))
"""Whoever calls a service that has no keys."""


@dataclass(frozen=True, slots=True)
class Key:
    """A caller, and the hash of the token by which it is known; when it was made, as RFC 3339 tells."""

    caller: Caller
    digest: bytes
    created_at: str | None = None


class Keys:
    """Some keys, of which no two have a name or a token in common. Raises KeysError."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.all = tuple(keys)
        names = Counter(str(key.caller.name) for key in self.all)
        hashes = Counter(key.digest.hex() for key in self.all)
        for what, times in (("name", names), ("sha256", hashes)):
            if twice := [value for value, n_keys in times.items() if n_keys > 1]:
                raise KeysError(f"has two keys of the {what} {twice[0]!r}")
        self._by_prefix: defaultdict[bytes, list[Key]] = defaultdict(list)
        for key in self.all:
            self._by_prefix[hash_prefix(key.digest)].append(key)

    def caller_of(self, token: str) -> Caller | None:
        """Return whom a token belongs to, None where it is nobody's.

        How long this takes tells nothing: hashes are compared in constant time, and nobody can steer the start of a
        hash, by which the few that are compared are found, towards that of a key.
        """
        digest = hash_token(token)
        for key in self._by_prefix.get(hash_prefix(digest), ()):
            if hmac.compare_digest(key.digest, digest):
                return key.caller
        return None

    def with_key(self, key: Key) -> Keys:
        """Return these keys and one more. Raises KeysError for a name that is taken."""
        if any(key.caller.name == other.caller.name for other in self.all):
            raise KeysError(f"there is a key {key.caller.name!r}; choose another name, or revoke that one first")
        return Keys((*self.all, key))

    def without_key(self, name: str) -> Keys:
        """Return these keys without one. Raises KeysError where there is none of this name."""
        kept = [key for key in self.all if key.caller.name != name]
        if len(kept) == len(self.all):
            there = ", ".join(str(key.caller.name) for key in self.all) or "none"
            raise KeysError(f"there is no key {name!r}; there are: {there}")
        return Keys(kept)


def new_token() -> str:
    """Make a token that nobody guesses."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def new_key(token: str, name: str, role: str, projects: Iterable[str], annotator: str | None) -> Key:
    """Return the key of a token, made now. Raises KeysError for what a key cannot be."""
    entry = {
        "name": name,
        "role": role,
        "projects": list(projects),
        "sha256": hash_token(token).hex(),
        "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return parse_key(entry if annotator is None else entry | {"annotator": annotator})


def hash_token(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def hash_prefix(digest: bytes) -> bytes:
    """Return the part of a hash by which it is found."""
    return digest[:8]


def parse_keys(text: str | bytes) -> Keys:
    """Read keys as `write_text` writes them, or people by hand. Raises KeysError saying which is wrong, and how."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KeysError(f"is not JSON: {error}") from None
    if not isinstance(document, dict) or document.keys() != {"keys"} or not isinstance(document["keys"], list):
        raise KeysError('must be an object with one list: {"keys": [...]}')
    keys = []
    for position, entry in enumerate(document["keys"]):
        try:
            keys.append(parse_key(entry))
        except KeysError as error:
            raise KeysError(f"/keys/{position}{error}") from None
    return Keys(keys)


def dump_keys(keys: Keys) -> str:
    """Write keys as JSON that people can read."""
    return json.dumps({"keys": [key_to_dict(key) for key in keys.all]}, indent=2, ensure_ascii=False) + "\n"


def key_to_dict(key: Key) -> dict[str, Any]:
    """Return what the file says of a key."""
    caller = key.caller
    entry = {
        "name": caller.name,
        "role": str(caller.role),
        "projects": list(caller.projects),
        "annotator": caller.annotator,
        "sha256": key.digest.hex(),
        "created_at": key.created_at,
    }
    return {name: value for name, value in entry.items() if value is not None}


def parse_key(entry: Any) -> Key:
    """Read one key. Raises KeysError that begins with the pointer of the field that is wrong."""
    if not isinstance(entry, dict):
        raise KeysError(" must be an object")
    if missing := REQUIRED_FIELDS - entry.keys():
        raise KeysError(f" lacks {', '.join(sorted(missing))}")
    if unknown := entry.keys() - KEY_FIELDS:
        raise KeysError(f" has {', '.join(sorted(map(repr, unknown)))}; there are {', '.join(sorted(KEY_FIELDS))}")
    projects, annotator = entry["projects"], entry.get("annotator")
    require(matches(entry["name"], NAME), "/name", "must be 1 to 64 letters, digits, '.', '_' or '-'")
    require(matches(entry["role"], "|".join(ROLES)), "/role", f"must be one of {', '.join(ROLES)}")
    is_list = isinstance(projects, list) and all(matches(pattern, rf"\*|{PROJECT_ID}\*?") for pattern in projects)
    require(is_list, "/projects", "must be a list of project ids, of beginnings of them such as team-*, or of *")
    require(matches(entry["sha256"], "[0-9a-f]{64}"), "/sha256", "must be the SHA-256 of a token, in hexadecimal")
    require("created_at" not in entry or isinstance(entry["created_at"], str), "/created_at", "must be a time")
    if annotator is not None:
        is_name = isinstance(annotator, str) and 1 <= len(annotator) <= MAX_ANNOTATOR_LENGTH
        require(is_name, "/annotator", f"must be 1 to {MAX_ANNOTATOR_LENGTH} characters long")
        require(entry["role"] == str(Role.ANNOTATOR), "/annotator", "must be left out: only an annotator's key has it")
    caller = Caller(entry["name"], ROLES[entry["role"]], tuple(projects), annotator)
    return Key(caller, bytes.fromhex(entry["sha256"]), entry.get("created_at"))


def require(is_right: bool, pointer: str, what: str) -> None:
    """Raise KeysError unless a field is right."""
    if not is_right:
        raise KeysError(f"{pointer} {what}")


def matches(value: Any, pattern: str) -> bool:
    """Tell whether a value is a text of a pattern."""
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None
