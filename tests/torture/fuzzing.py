"""Fuzz one reader with atheris (extra `fuzz`): `python -m tests.torture.fuzzing READER SECONDS SEED DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["service"]):
    from tests.torture.readers import READERS, serving, without_checksums


def main() -> None:
    name, seconds, seed, directory = sys.argv[1:]
    corpus = Path(directory) / "corpus"
    corpus.mkdir(parents=True)
    reader = READERS[name]
    options = [f"-max_total_time={seconds}", f"-seed={int(seed) + 1}", "-timeout=10", "-rss_limit_mb=2048"]
    options += ["-max_len=20000", f"-artifact_prefix={directory}/"]
    with serving(Path(directory) / "data") as service, without_checksums():
        for number, data in enumerate(reader.seeds(service.client)):
            (corpus / str(number)).write_bytes(data)

        def try_body(data: bytes) -> None:
            reply = service.send(reader, data)
            if reply.status_code >= 500:
                raise RuntimeError(reply.get_data(as_text=True)) from service.bug

        atheris.Setup([sys.argv[0], *options, str(corpus)], try_body)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
