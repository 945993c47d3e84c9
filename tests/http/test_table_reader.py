"""The process that reads Arrow and Parquet: its limits, how it ends, and the errors of the requests."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from werkzeug.exceptions import ServiceUnavailable

from service.errors import InvalidRequest
from service.http.body.formats import tables
from service.http.body.formats.tables import TableFile, TableReader, table_reader
from service.http.body.limits import Limits
from service.http.media_types import ARROW_STREAM
from service.store.staging import Staging

LIMITS = Limits(body_bytes=2**30, json_bytes=2**20, cells=10**9)


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path)


def stream_file(path, n_rows, compression=None):
    table = pa.table({"a": np.zeros(n_rows)})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(path, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


def read(path, staging, kind="stream"):
    return TableFile("X", kind, path, LIMITS, staging).read()


def pid_of_reader():
    with table_reader() as reader:
        return reader.pid


def is_running(pid):
    """Whether a process is running and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_process_reads_many_tables(tmp_path, staging):
    path, pid = stream_file(tmp_path / "t", 10), pid_of_reader()
    assert [read(path, staging).n_rows for _ in range(3)] == [10, 10, 10]
    assert pid_of_reader() == pid


@pytest.mark.parametrize(
    ("killed_by", "error", "excerpt"),
    [(signal.SIGSEGV, ValueError, "SIGSEGV"), (signal.SIGKILL, ServiceUnavailable, "try again")],
)
def test_a_reader_that_ends_is_an_error_of_its_request_alone(tmp_path, staging, killed_by, error, excerpt):
    path = stream_file(tmp_path / "t", 10**6)
    with pytest.raises(error, match=excerpt), table_reader() as reader:
        for frame in reader.read(path, "stream", "/X", is_matrix=True):
            reader.read_array(frame)
            os.kill(reader.pid, killed_by)
    assert not is_running(reader.pid)
    assert read(path, staging).n_rows == 10**6


def test_a_reader_that_died_while_it_was_free_is_replaced(tmp_path, staging):
    pid = pid_of_reader()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert read(stream_file(tmp_path / "t", 10), staging).n_rows == 10


def test_a_killed_reader_is_a_503_with_retry_after(client, tmp_path):
    pid = pid_of_reader()
    os.kill(pid, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, [pid, signal.SIGKILL])
    killer.start()
    data = stream_file(tmp_path / "t", 10).read_bytes()
    config = (io.BytesIO(b'{"strategy": "random"}'), "config", "application/json")
    reply = client.post("/query", data={"config": config, "X": (io.BytesIO(data), "X", ARROW_STREAM)})
    killer.join()
    assert (reply.status_code, reply.mimetype) == (503, "application/problem+json")
    assert "Retry-After" in reply.headers


def test_a_table_that_takes_long_ends_its_reader(tmp_path, staging, monkeypatch):
    monkeypatch.setattr(tables, "READ_SECONDS", 1)
    path = stream_file(tmp_path / "t", 10**7)
    with pytest.raises(ValueError, match="longer than 1 seconds"), table_reader() as reader:
        for frame in reader.read(path, "stream", "/X", is_matrix=True):
            if is_running(reader.pid):
                time.sleep(1.2)  # the pipe is full meanwhile
            reader.read_array(frame)
    assert not is_running(reader.pid)


def one_page(path, n_rows):
    options = {"use_dictionary": False, "data_page_size": 2**30, "compression": "zstd", "row_group_size": n_rows}
    pa.parquet.write_table(pa.table({"a": np.zeros(n_rows)}), path, **options)
    return path


@pytest.mark.parametrize("kind", ["stream", "parquet"])
def test_a_batch_that_needs_more_memory_than_allowed_is_refused(tmp_path, staging, monkeypatch, kind):
    monkeypatch.setattr(tables, "MEMORY_BYTES", 2**26)
    path = tmp_path / "t"
    path = stream_file(path, 2**24, "zstd") if kind == "stream" else one_page(path, 2**24)
    assert path.stat().st_size < 2**20
    pid = pid_of_reader()
    with pytest.raises(InvalidRequest, match="bytes of memory"):
        read(path, staging, kind)
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 2**18  # kB
    monkeypatch.undo()
    assert read(path, staging, kind).n_rows == 2**24
    assert pid_of_reader() == pid


def test_requests_wait_for_a_reader_and_give_up(tmp_path, staging, monkeypatch):
    monkeypatch.setattr(tables, "WAIT_SECONDS", 0.01)
    path = stream_file(tmp_path / "t", 10)
    with table_reader(), table_reader(), pytest.raises(ServiceUnavailable, match="2 other tables"):
        read(path, staging)
    assert read(path, staging).n_rows == 10


def test_a_reader_holds_no_file_of_the_worker(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"no table")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        reader = TableReader()
        with pytest.raises(InvalidRequest):  # it has started by then
            next(reader.read(path, "stream", "/X", is_matrix=True))
        assert {each.name for each in Path(f"/proc/{reader.pid}/fd").iterdir()} == {"0", "1", "2"}
        reader.close()


def test_a_reader_ends_with_its_worker():
    code = (
        "from service.http.body.formats.tables import TableReader; r = TableReader(); print(r.pid, flush=True); input()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with worker:
        pid = int(worker.stdout.readline())
        worker.kill()
    for _ in range(1000):
        if not is_running(pid):
            return
        time.sleep(0.02)
    pytest.fail("the reader outlived its worker")
