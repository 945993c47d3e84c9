"""Describe the machine and the versions of the packages."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info

PACKAGES = (
    *("active-query", "flask", "gunicorn", "marshmallow", "numpy", "scipy", "scikit-learn"),
    *("scikit-activeml", "modAL-python", "small-text"),
)


def machine(directory: Path) -> dict[str, str]:
    """Return processor, cores, memory, system and the file system of a directory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": file_system(directory),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, BLAS and the measured packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    found["blas"] = ", ".join(
        sorted({f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info() if lib["user_api"] == "blas"})
    )
    if wrk := shutil.which("wrk"):
        found["wrk"] = subprocess.run([wrk, "-v"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0].split()[1]
    return found


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def file_system(directory: Path) -> str:
    """Return the type of the file system that holds a directory."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [fields for fields in mounts if directory.resolve().is_relative_to(fields[1])]
    return max(holding, key=lambda fields: len(fields[1]))[2]
