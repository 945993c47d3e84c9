"""The key file: its format, changes, faults; and `active-query keys`."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import logging
import os
import shlex
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.auth.keyfile import KeyRing, change_keys, read_keys
from service.auth.keys import Keys, KeysError, Role, dump_keys, new_key, new_token, parse_keys
from service.cli.main import main
from service.http import docs
from service.server.checks import problem_of_keys

DIGEST = "0" * 64
ADA = {"name": "ada", "role": "annotator", "projects": ["team-*", "birds"], "annotator": "Ada L.", "sha256": DIGEST}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the service, which another test's application may have redirected."""
    monkeypatch.setattr(logging.getLogger("service"), "propagate", True)
    return caplog


def text_of(*entries: Any) -> str:
    return json.dumps({"keys": entries})


def add(path: Path, name: str, role: str = "reader", *projects: str) -> str:
    """Add a key to a file, and return its token."""
    token = new_token()
    change_keys(path, lambda keys: keys.with_key(new_key(token, name, role, projects or ["*"], None)))
    return token


def names(path: Path) -> list[str | None]:
    return [key.caller.name for key in read_keys(path).all]


# The format of the file.


def test_a_written_key_file_can_be_read() -> None:
    (key,) = parse_keys(text_of(ADA)).all
    assert (key.caller.role, key.caller.annotator, key.digest) == (Role.ANNOTATOR, "Ada L.", bytes(32))
    assert parse_keys(dump_keys(Keys([key]))).all == (key,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        (b"\xff", "is not JSON"),
        ("\ufeff{}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", '{"keys": [...]}'),
        ('{"keys": {}}', '{"keys": [...]}'),
        ('{"keys": [], "more": 1}', '{"keys": [...]}'),
        (text_of(ADA, "bob"), "/keys/1 must be an object"),
        (text_of({}), "/keys/0 lacks name, projects, role, sha256"),
        (text_of(ADA | {"project": "*"}), "/keys/0 has 'project'; the fields are annotator, created_at"),
        (text_of(ADA | {"name": "a b"}), "/keys/0/name must be 1 to 64 letters"),
        (text_of(ADA | {"name": "ada\n"}), "/keys/0/name must be 1 to 64 letters"),
        (text_of(ADA | {"role": "Admin"}), "/keys/0/role must be one of reader, annotator, admin"),
        (text_of(ADA | {"role": 3}), "/keys/0/role must be one of"),
        (text_of(ADA | {"projects": "*"}), "/keys/0/projects must be a list"),
        (text_of(ADA | {"projects": ["a*b"]}), "/keys/0/projects must be a list"),
        (text_of(ADA | {"projects": ["**"]}), "/keys/0/projects must be a list"),
        (text_of(ADA | {"projects": [""]}), "/keys/0/projects must be a list"),
        (text_of(ADA | {"sha256": DIGEST[1:]}), "/keys/0/sha256 must be the SHA-256"),
        (text_of(ADA | {"sha256": "A" * 64}), "/keys/0/sha256 must be the SHA-256"),
        (text_of(ADA | {"annotator": ""}), "/keys/0/annotator must be 1 to 256"),
        (text_of(ADA | {"role": "admin"}), "/keys/0/annotator must be left out"),
        (text_of(ADA | {"created_at": 1}), "/keys/0/created_at must be a time"),
        (text_of(ADA, ADA | {"sha256": "1" * 64}), "has two keys of the name 'ada'"),
        (text_of(ADA, ADA | {"name": "bob"}), f"has two keys of the sha256 '{DIGEST}'"),
    ],
)
def test_an_invalid_key_file_is_an_error(text: str | bytes, words: str) -> None:
    with pytest.raises(KeysError) as caught:
        parse_keys(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("projects", "seen", "hidden"),
    [
        ([], [], ["a", "*"]),
        (["*"], ["a", "z.1"], []),
        (["team-*"], ["team-a", "team-"], ["team", "Team-a", "a-team-a"]),
        (["a", "b*"], ["a", "b", "ba"], ["aa", "c"]),
    ],
)
def test_which_projects_a_key_may_access(projects: list[str], seen: list[str], hidden: list[str]) -> None:
    caller = new_key(new_token(), "k", "reader", projects, None).caller
    assert [name for name in [*seen, *hidden] if caller.may_access(name)] == seen


def test_a_token_is_256_random_bits_and_stored_as_a_hash() -> None:
    token, other = new_token(), new_token()
    assert token != other
    assert len(token) == 46
    keys = Keys([new_key(token, "ada", "reader", ["*"], None)])
    assert keys.caller_of(token) is keys.all[0].caller
    assert [keys.caller_of(wrong) for wrong in (other, "", token[:-1], token + "A", DIGEST)] == [None] * 5
    assert token not in dump_keys(keys)
    assert hashlib.sha256(token.encode()).hexdigest() in dump_keys(keys)


# The file.


def test_only_the_owner_may_read_the_file_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        add(path, "ada")
        path.chmod(0o644)
        add(path, "bob")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_the_file_keeps_its_owner(path: Path) -> None:
    add(path, "ada")
    os.chown(path, 10001, 10002)
    add(path, "bob")
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)


def test_a_link_to_the_file_is_kept(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    add(link, "ada")
    assert link.is_symlink()
    assert names(path) == ["ada"]


def test_concurrent_commands_lose_no_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(lambda n: add(path, f"k{n}"), range(16)))
    keys = read_keys(path)
    assert {caller.name for token in tokens if (caller := keys.caller_of(token))} == {f"k{n}" for n in range(16)}


def test_a_file_left_by_a_killed_command_is_replaced(path: Path) -> None:
    path.with_name(".keys.json.new").write_text("half")
    add(path, "ada")
    assert names(path) == ["ada"]


def test_a_fault_at_any_operation_leaves_the_old_keys_or_the_new(path: Path) -> None:
    add(path, "ada")
    before = path.read_bytes()
    for nth in itertools.count(1):
        path.write_bytes(before)
        with pytest.MonkeyPatch.context() as patches:
            done = fail_at(patches, nth)
            try:
                add(path, "bob")
                failed = False
            except (OSError, KeysError):
                failed = True
        assert failed == ("fault" in done)
        assert names(path) == (["ada", "bob"] if "rename" in done else ["ada"])
        if not failed:
            break
    assert done.index("fsync") < done.index("rename") < len(done) - 1 - done[::-1].index("fsync")


def fail_at(patches: pytest.MonkeyPatch, nth: int) -> list[str]:
    """Make the nth file operation fail; return a list that will name the operations done, and the "fault"."""
    done: list[str] = []

    def wrap(name: str, operation: Any) -> Any:
        def fail_or_do(*arguments: Any, **options: Any) -> Any:
            is_it = len(done) + 1 == nth
            done.append("fault" if is_it else name)
            if is_it:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return operation(*arguments, **options)

        return fail_or_do

    for name in ("open", "fdopen", "fsync", "rename", "unlink"):
        patches.setattr(os, name, wrap(name, getattr(os, name)))
    patches.setattr(io, "open", wrap("io.open", io.open))
    return done


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: os.mkfifo(path), "is not a file"),
        (lambda path: (path.write_text(text_of(ADA)), path.chmod(0o602)), "is writable by all users"),
        (lambda path: path.write_text("{"), "is not JSON"),
        (lambda path: path.write_text(text_of()), "holds no key"),
    ],
)
def test_a_service_does_not_start_without_a_valid_key(make: Any, words: str, path: Path) -> None:
    make(path)
    problem = problem_of_keys(path)
    assert problem is not None
    assert f"{str(path)!r} {words}" in problem


# Reloading.


def known(ring: KeyRing, token: str) -> bool:
    keys = ring.current()
    assert keys is not None
    return keys.caller_of(token) is not None


def test_new_and_revoked_keys_take_effect_at_once(path: Path) -> None:
    ada = add(path, "ada")
    ring = KeyRing(path)
    assert known(ring, ada)
    bob = add(path, "bob")
    assert known(ring, bob)
    change_keys(path, lambda keys: keys.without_key("ada"))
    assert (known(ring, ada), known(ring, bob)) == (False, True)


def test_a_file_that_did_not_change_is_not_read_again(path: Path) -> None:
    add(path, "ada")
    ring = KeyRing(path)
    assert ring.current() is ring.current()


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), lambda path: path.unlink()])
def test_keys_stay_valid_while_the_file_is_unreadable(spoil: Any, path: Path, heard: pytest.LogCaptureFixture) -> None:
    ada = add(path, "ada")
    ring = KeyRing(path)
    assert known(ring, ada)
    spoil(path)
    assert all(known(ring, ada) for _ in range(3))
    (record,) = heard.records
    assert (record.levelname, "the previous keys stay valid" in record.getMessage()) == ("ERROR", True)
    path.write_text(text_of())
    assert not known(ring, ada)


def test_a_worker_that_starts_with_a_broken_file_accepts_no_key_until_it_is_repaired(path: Path) -> None:
    path.write_text("{")
    ring = KeyRing(path)
    assert ring.current() is None
    path.unlink()
    assert known(ring, add(path, "ada"))


# The command.


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AQ_API_KEYS_FILE", str(path))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["keys", *arguments])

    yield run


def test_a_new_token_is_printed_once_and_stored_as_a_hash(run: Any, path: Path) -> None:
    done = run("new", "--name", "ada", "--role", "annotator", "--project", "team-*", "--annotator", "Ada L.")
    assert done.exit_code == 0, done.output
    token = done.stdout.strip()
    assert "key 'ada', annotator for team-*, as annotator 'Ada L.'" in done.stderr
    keys = read_keys(path)
    caller = keys.caller_of(token)
    assert caller is not None
    assert (caller.name, caller.role, caller.annotator) == ("ada", Role.ANNOTATOR, "Ada L.")
    assert token not in path.read_text()
    assert token not in run("list").output


def test_keys_are_listed_and_revoked(run: Any, path: Path) -> None:
    add(path, "ada", "admin")
    add(path, "bob", "reader", "birds", "team-*")
    lines = run("list").stdout.splitlines()
    assert [line.split(", created")[0] for line in lines] == [
        "ada: admin for all projects",
        "bob: reader for birds, team-*",
    ]
    assert run("revoke", "ada").exit_code == 0
    assert names(path) == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["revoke", "eve"], "there is no key 'eve'; the keys are: ada"),
        (["new", "--name", "ada", "--role", "reader"], "there is a key 'ada'"),
        (["new", "--name", "a b", "--role", "reader"], "/name must be"),
        (["new", "--name", "b", "--role", "reader", "--project", "x y"], "/projects must be"),
        (["new", "--name", "b", "--role", "reader", "--annotator", "b"], "/annotator must be left out"),
    ],
)
def test_a_wrong_command_changes_nothing(arguments: list[str], words: str, run: Any, path: Path) -> None:
    add(path, "ada")
    before = path.read_bytes()
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert words in done.stderr
    assert path.read_bytes() == before


def test_a_broken_file_is_not_overwritten(run: Any, path: Path) -> None:
    path.write_text("{")
    assert run("new", "--name", "ada", "--role", "reader").exit_code == 1
    assert path.read_text() == "{"


def test_without_the_setting_the_command_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AQ_API_KEYS_FILE", raising=False)
    assert "set it to the path of the key file" in CliRunner().invoke(main, ["keys", "list"]).stderr


def test_the_commands_in_the_guide_make_keys(run: Any, path: Path) -> None:
    guide = (Path(docs.__file__).parent / "guide" / "access.md").read_text(encoding="utf-8")
    script = guide.split("<!-- keys -->\n```bash\n", 1)[1].split("```", 1)[0]
    commands = [line.removesuffix(")").split("active-query keys ")[1] for line in script.splitlines()[1:]]
    assert [run(*shlex.split(command)).exit_code for command in commands] == [0] * 5
    assert names(path) == ["me", "ada"]
