"""Media types of requests and responses."""

from __future__ import annotations

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
NDJSON = "application/x-ndjson"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
MULTIPART = "multipart/form-data"
CSV = "text/csv"
YAML = "application/yaml"
SVG = "image/svg+xml"
PNG = "image/png"
ZIP = "application/zip"
OCTET_STREAM = "application/octet-stream"
