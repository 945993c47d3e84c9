"""Roles, API keys, and the projects that a key may access.

A token is 256 random bits, stored as its SHA-256. Deliberately slow hashes protect secrets that can be guessed, such as
passwords; 256 random bits cannot, and a fast hash costs each request a microsecond.
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

TOKEN_PREFIX = "aq_"  # noqa: S105 - by which people and secret scanners recognize a token
TOKEN_BYTES = 32

REQUIRED_FIELDS = {"name", "role", "projects", "sha256"}
KEY_FIELDS = REQUIRED_FIELDS | {"annotator", "created_at"}


class Role(IntEnum):
    """Role of a key; each may do what those before it may."""

    READER = 1
    ANNOTATOR = 2
    ADMIN = 3

    def __str__(self) -> str:
        return self.name.lower()


ROLES = {str(role): role for role in Role}


class KeysError(ValueError):
    """The key file is unreadable or invalid, or a key to be added or revoked is not possible."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `projects` are names, prefixes (`team-*`), or ALL_PROJECTS.

    `name` is None for callers of a service without keys. A caller with an `annotator` may label only as this one.
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
        """Return whether the caller may access a project of this name, existing or not."""
        return project_id in self._names or project_id.startswith(self._beginnings)


ANONYMOUS = Caller(None, Role.ADMIN, (ALL_PROJECTS,))
"""The caller of a service without keys."""


@dataclass(frozen=True, slots=True)
class Key:
    """A caller, the SHA-256 of its token, and the time of creation (RFC 3339)."""

    caller: Caller
    digest: bytes
    created_at: str | None = None


class Keys:
    """Keys with unique names and tokens. Raises KeysError."""

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
        """Return the caller with this token, None if there is none.

        The duration reveals nothing: digests are compared in constant time, and an attacker cannot choose a token by
        the prefix of its hash, which selects the keys to compare.
        """
        digest = hash_token(token)
        for key in self._by_prefix.get(hash_prefix(digest), ()):
            if hmac.compare_digest(key.digest, digest):
                return key.caller
        return None

    def with_key(self, key: Key) -> Keys:
        """Return these keys and one more. Raises KeysError if its name is taken."""
        if any(key.caller.name == other.caller.name for other in self.all):
            raise KeysError(f"there is a key {key.caller.name!r}; choose another name, or revoke that one first")
        return Keys((*self.all, key))

    def without_key(self, name: str) -> Keys:
        """Return these keys without one. Raises KeysError if there is no key with this name."""
        kept = [key for key in self.all if key.caller.name != name]
        if len(kept) == len(self.all):
            there = ", ".join(str(key.caller.name) for key in self.all) or "none"
            raise KeysError(f"there is no key {name!r}; the keys are: {there}")
        return Keys(kept)


def new_token() -> str:
    """Return a new random token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def new_key(token: str, name: str, role: str, projects: Iterable[str], annotator: str | None) -> Key:
    """Return a new key for a token. Raises KeysError for an invalid name, role, project or annotator."""
    entry = {
        "name": name,
        "role": role,
        "projects": list(projects),
        "sha256": hash_token(token).hex(),
        "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return parse_key(entry if annotator is None else entry | {"annotator": annotator})


def hash_token(token: str) -> bytes:
    """Return the SHA-256 of a token."""
    return hashlib.sha256(token.encode()).digest()


def hash_prefix(digest: bytes) -> bytes:
    """Return the part of a digest by which keys are looked up."""
    return digest[:8]


def parse_keys(text: str | bytes) -> Keys:
    """Parse the key file, which people may edit. Raises KeysError with the pointer of the wrong field."""
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
    """Return the key file as indented JSON."""
    return json.dumps({"keys": [key_to_dict(key) for key in keys.all]}, indent=2, ensure_ascii=False) + "\n"


def key_to_dict(key: Key) -> dict[str, Any]:
    """Return a key as an entry of the key file."""
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
    """Parse one key. The text of its KeysError begins with the pointer of the wrong field."""
    if not isinstance(entry, dict):
        raise KeysError(" must be an object")
    if missing := REQUIRED_FIELDS - entry.keys():
        raise KeysError(f" lacks {', '.join(sorted(missing))}")
    if unknown := entry.keys() - KEY_FIELDS:
        raise KeysError(f" has {', '.join(sorted(map(repr, unknown)))}; the fields are {', '.join(sorted(KEY_FIELDS))}")
    projects, annotator = entry["projects"], entry.get("annotator")
    require(matches(entry["name"], NAME), "/name", "must be 1 to 64 letters, digits, '.', '_' or '-'")
    require(matches(entry["role"], "|".join(ROLES)), "/role", f"must be one of {', '.join(ROLES)}")
    is_list = isinstance(projects, list) and all(matches(pattern, rf"\*|{PROJECT_ID}\*?") for pattern in projects)
    require(is_list, "/projects", "must be a list of project ids, prefixes such as team-*, or *")
    require(matches(entry["sha256"], "[0-9a-f]{64}"), "/sha256", "must be the SHA-256 of a token, in hexadecimal")
    require("created_at" not in entry or isinstance(entry["created_at"], str), "/created_at", "must be a time")
    if annotator is not None:
        is_name = isinstance(annotator, str) and 1 <= len(annotator) <= MAX_ANNOTATOR_LENGTH
        require(is_name, "/annotator", f"must be 1 to {MAX_ANNOTATOR_LENGTH} characters long")
        require(
            entry["role"] == str(Role.ANNOTATOR), "/annotator", "must be left out: only keys of role annotator have it"
        )
    caller = Caller(entry["name"], ROLES[entry["role"]], tuple(projects), annotator)
    return Key(caller, bytes.fromhex(entry["sha256"]), entry.get("created_at"))


def require(is_right: bool, pointer: str, what: str) -> None:
    """Raise KeysError unless a field is valid."""
    if not is_right:
        raise KeysError(f"{pointer} {what}")


def matches(value: Any, pattern: str) -> bool:
    """Return whether a value is a string that matches a pattern."""
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None
