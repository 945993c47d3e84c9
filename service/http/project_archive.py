"""Export and import of a project as one file, a zip archive (`formats.archive`) of these members:

pool-1.npy                         the first segment of the pool
pool-1.data.npy, .indices.npy, .indptr.npy    a sparse one
ids-1.text.npy, ids-1.starts.npy   the ids of its samples, concatenated in UTF-8, and the start of each
texts-1.text.npy, texts-1.starts.npy   their texts, and urls-1... their addresses, in the same way
held_out.npy, held_out.y.npy       the held-out set, and the codes of its labels
votes.index.npy, ...               labels and skips, as columns; also those of removed samples
numbers.npy                        the numbers that their codes stand for, if the target is a number
label_sets.sizes.npy, ...members.npy   the sets of classes that they stand for, if a sample may have several
events.log                         "checksum version event" on each line
manifest.json                      the rest of the project, and the size and CRC-32 of every other member
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import orjson
from marshmallow import ValidationError

from service import __version__
from service.domain.calibration import CalibrationMethod
from service.domain.label_sets import LabelSetTable
from service.domain.labels import INT64_MAX, LARGEST_NUMBER, MAX_LABEL_LENGTH, Label
from service.domain.learning_curve import MAX_POINTS
from service.domain.new_labels import wrong_new_labels
from service.domain.number_table import NumberTable
from service.domain.parameters import Parameters
from service.domain.project import MAX_CLASSES, ConsensusMethod, MissingValues, Project, SimilarLabels, TargetName
from service.domain.sample_ids import SampleId, SampleIds, decode_id
from service.domain.text_column import TextColumn
from service.domain.votes import ValueTable, Votes
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.http.body.formats.archive import (
    MANIFEST,
    Archive,
    Chunks,
    Sums,
    errors_at_member,
    member_pointer,
    npy_chunks,
    open_archive,
    rows_members,
)
from service.http.body.formats.csr import MAX_COLUMNS
from service.http.body.limits import Limits
from service.http.problems import flatten
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, Rule, RuleField, list_of, map_of, nested
from service.http.schemas.common import MAX_SEED, estimator_spec, project_id_field
from service.http.schemas.fit import MAX_SKIPS_TO_DROP
from service.learning.texts import MAX_TEXT_LENGTH, resolve_text
from service.store import Snapshot
from service.store.events import stage_log
from service.store.staging import SPARSE, StagedRows, Staging
from service.usecases.append import MAX_SEGMENTS
from service.usecases.label import MAX_ANNOTATORS
from service.usecases.transfer import ImportRequest, ProjectFacts, project_facts

FORMAT = "active-query-project"
FORMAT_VERSION = 1

MAX_COUNT = 2**40
"""Largest counter an import accepts. A project that counts on from here, a thousand times a second for 100,000 years,
still has counters that every reader of JSON knows exactly (below 2**53)."""

LAST_MOMENT = 253_402_300_799_999_999
"""The end of the year 9999, in microseconds."""

LARGEST_SCORE = 1e300

MAX_NAME_BYTES = 4 * MAX_LABEL_LENGTH
MAX_QUERY_BYTES = 64
QUERY = re.compile(rb"[A-Za-z0-9_-]{0,%d}" % MAX_QUERY_BYTES)
STRATEGY = re.compile(r"[a-z0-9_]{1,64}")
NUMBERS = "numbers.npy"
SET_SIZES, SET_MEMBERS = "label_sets.sizes.npy", "label_sets.members.npy"
MEMBERS_OF_TARGET: dict[str, set[str]] = {"number": {NUMBERS}, "labels": {SET_SIZES, SET_MEMBERS}}
"""The members with the table of labels that are no classes."""

COLUMN_KINDS = {"index": "i", "code": "i", "annotator": "i", "at": "i", "query": "S"}
"""The columns of labels and skips, and the kind of each dtype."""


def list_or_empty(rule: Rule, most: int) -> Rule:
    """A list read by a rule, or an empty list."""

    def read(value: Any) -> list[Any]:
        if value == []:
            return []
        found: list[Any] = rule.read(value)
        if len(found) > most:
            raise ValidationError(f"has {len(found)} entries; at most {most} are allowed")
        return found

    return Rule(read, rule.schema)


def nullable_columns() -> Rule:
    """The columns of a project's tables, with null for a role that no column has."""
    rule = fields.columns()

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            value = {role: name for role, name in value.items() if name is not None}
        return rule.read(value)

    return Rule(read, rule.schema)


def count_field(minimum: int = 0, maximum: int = MAX_COUNT) -> RuleField:
    """Return a field for a count."""
    return RuleField(fields.integer(minimum, maximum), required=True)


class CurvePointSchema(BaseSchema):
    """A point of the learning curve."""

    model_version = count_field(1)
    fitted_at = count_field(0, LAST_MOMENT)
    seen_until = count_field(0, LAST_MOMENT)
    n_labeled = count_field()
    # The scores of the target, such as the accuracy, the balanced accuracy, the F1 score and the log loss.
    test_score = RuleField(list_of(fields.number(-LARGEST_SCORE, LARGEST_SCORE), 1, 4), required=True, allow_none=True)
    # The accuracy, or the error, and the ends of its interval.
    estimate = RuleField(list_of(fields.number(0, LARGEST_SCORE), 3, 3), required=True, allow_none=True)
    n_new = count_field()
    n_right = count_field()
    kappa = RuleField(fields.number(-1, 1), required=True, allow_none=True)
    questions = RuleField(map_of(fields.integer(1, MAX_COUNT)), required=True)


class FactsSchema(BaseSchema):
    """A project without its arrays."""

    project_id = project_id_field()
    version = count_field(1)
    n_features = count_field(1, MAX_COLUMNS)
    random_state = count_field(0, MAX_SEED)
    estimator = RuleField(fields.estimator(), required=True)
    consensus = RuleField(fields.one_of(*get_args(ConsensusMethod)), required=True)
    classes = RuleField(list_or_empty(label_fields.class_list(), MAX_CLASSES), required=True)
    classes_declared = RuleField(fields.boolean(), required=True)
    annotators = RuleField(list_or_empty(fields.unique_names("names"), MAX_ANNOTATORS), required=True)
    # Archives of earlier versions lack these.
    feature_names = RuleField(fields.feature_names(), load_default=None, allow_none=True)
    columns = RuleField(nullable_columns(), load_default=None, allow_none=True)
    skips_to_drop = RuleField(fields.integer(1, MAX_SKIPS_TO_DROP), load_default=1)
    similar_labels = RuleField(fields.one_of(*get_args(SimilarLabels)), load_default=None)
    learning_curve = RuleField(list_of(nested(CurvePointSchema), 0, MAX_POINTS), load_default=list)
    text = RuleField(fields.json_object(), load_default=None, allow_none=True)
    missing_values = RuleField(fields.one_of(*get_args(MissingValues)), load_default="refuse")
    calibration_method = RuleField(fields.one_of(*get_args(CalibrationMethod)), load_default="none")
    target = RuleField(fields.one_of(*get_args(TargetName)), load_default="class")
    removed = RuleField(fields.indices(), load_default=())
    labels_revision = count_field()
    last_model = count_field()
    created_at = count_field(0, LAST_MOMENT)
    updated_at = count_field(0, LAST_MOMENT)


class RowsSchema(BaseSchema):
    """The number of rows of a matrix, and whether it is sparse."""

    n_rows = count_field(1)
    sparse = RuleField(fields.boolean(), required=True)


class ChecksumSchema(BaseSchema):
    """The size and checksum of a member."""

    n_bytes = count_field(0, INT64_MAX)
    crc32 = count_field(0, 2**32 - 1)


class ManifestSchema(BaseSchema):
    """The manifest of an archive."""

    format = RuleField(fields.one_of(FORMAT), required=True)
    format_version = RuleField(fields.integer(FORMAT_VERSION, FORMAT_VERSION), required=True)
    service = RuleField(fields.text(1, 64), required=True)
    project = RuleField(nested(FactsSchema), required=True)
    segments = RuleField(list_of(nested(RowsSchema), 1, MAX_SEGMENTS), required=True)
    has_ids = RuleField(fields.boolean(), required=True)
    # Archives of earlier versions lack these.
    has_texts = RuleField(fields.boolean(), load_default=False)
    has_urls = RuleField(fields.boolean(), load_default=False)
    held_out = RuleField(nested(RowsSchema), required=True, allow_none=True)
    members = RuleField(map_of(nested(ChecksumSchema)), required=True)


MANIFEST_RULE = nested(ManifestSchema)


def archive_members(snapshot: Snapshot) -> Iterator[tuple[str, Chunks]]:
    """Yield the members of a project's archive except the manifest."""
    if snapshot.pool is None or snapshot.events is None:
        raise ValueError("an export needs a snapshot with its pool and its events")
    for number, rows in enumerate(snapshot.pool.segments, 1):
        yield from rows_members(f"pool-{number}", rows)
    for what, columns in (("ids", snapshot.ids), ("texts", snapshot.texts), ("urls", snapshot.urls)):
        parts: Sequence[SampleIds | TextColumn] = columns.parts if columns else ()
        for number, column in enumerate(parts, 1):
            yield f"{what}-{number}.text.npy", npy_chunks(column.text)
            yield f"{what}-{number}.starts.npy", npy_chunks(column.starts)
    if snapshot.X_test is not None and snapshot.y_test is not None:
        yield from rows_members("held_out", snapshot.X_test.segments[0])
        yield "held_out.y.npy", npy_chunks(snapshot.y_test)
    votes = snapshot.project.all_votes
    yield from ((f"votes.{name}.npy", npy_chunks(getattr(votes, name))) for name in COLUMN_KINDS)
    if isinstance(votes.table, NumberTable):
        yield NUMBERS, npy_chunks(votes.table.values)
    if isinstance(votes.table, LabelSetTable):
        yield from zip((SET_SIZES, SET_MEMBERS), map(npy_chunks, votes.table.to_plain()), strict=True)
    yield "events.log", snapshot.events.lines()


def manifest(snapshot: Snapshot, sums: Sums) -> bytes:
    """Return the manifest of a project's archive."""
    project = snapshot.project
    held_out = project.held_out
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "service": __version__,
        "project": plain_facts(project),
        "segments": [{"n_rows": segment.n_rows, "sparse": segment.sparse} for segment in project.segments],
        "has_ids": project.has_ids,
        "has_texts": project.has_texts,
        "has_urls": project.has_urls,
        "held_out": held_out and {"n_rows": held_out.n_rows, "sparse": held_out.sparse},
        "members": {name: {"n_bytes": n_bytes, "crc32": crc} for name, (n_bytes, crc) in sums.items()},
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def plain_facts(project: Project) -> dict[str, Any]:
    """Return the values of a project for its manifest.

    Without `similar_labels`, as in archives of earlier versions, an import takes the classes as they are.
    """
    facts = asdict(project_facts(project))
    if project.similar_labels == "refuse" and any(wrong_new_labels((), project.classes, allow_similar=False)):
        del facts["similar_labels"]
    return facts


def read_project(path: Path, project_id: str | None, limits: Limits, staging: Staging) -> ImportRequest:
    """Read the archive of a project, renamed if `project_id` is given. Raises InvalidRequest."""
    with open_archive(path) as archive:
        described = read_manifest(archive, limits)
        check_members(archive, described)
        facts = read_facts(described["project"], project_id)
        segments = list(read_segments(archive, described["segments"], facts.n_features, staging, limits.cells))
        if len({rows.is_sparse for rows in segments}) > 1:
            raise InvalidRequest.at(member_pointer(MANIFEST) + "/segments", "must be all sparse or all dense")
        held_out = described["held_out"]
        table = read_table(archive, facts, limits.cells)
        n_codes = len(facts.classes) if table is None else len(table)
        X_test = y_test = None
        if held_out is not None:
            shape = held_out["n_rows"], facts.n_features
            X_test = archive.rows("held_out", shape, staging, limits.cells, sparse=held_out["sparse"])
            y_test = read_codes(archive, X_test.n_rows, n_codes)
        return ImportRequest(
            facts=facts,
            segments=segments,
            ids=list(read_ids(archive, segments)) if described["has_ids"] else None,
            texts=list(read_texts(archive, "texts", segments)) if described["has_texts"] else None,
            urls=list(read_texts(archive, "urls", segments)) if described["has_urls"] else None,
            X_test=X_test,
            y_test=y_test,
            votes=read_votes(archive, sum(rows.n_rows for rows in segments) * max(1, len(facts.annotators))).with_table(
                table
            ),
            events=read_events(archive, facts.version, limits, staging),
        )


def read_manifest(archive: Archive, limits: Limits) -> dict[str, Any]:
    """Read the manifest."""
    with errors_at_member(MANIFEST):
        document = orjson.loads(archive.text(MANIFEST, limits.json_bytes))
    try:
        described: dict[str, Any] = MANIFEST_RULE.read(document)
    except ValidationError as error:
        raise InvalidRequest(flatten(error.messages)).with_prefix(member_pointer(MANIFEST)) from None
    return described


def check_members(archive: Archive, described: Mapping[str, Any]) -> None:
    """Raise InvalidRequest unless the archive has exactly the members that its manifest implies."""
    held_out = described["held_out"]
    wanted = {
        "events.log",
        *(f"votes.{name}.npy" for name in COLUMN_KINDS),
        *chain.from_iterable(names_of_rows(f"pool-{n}", rows) for n, rows in enumerate(described["segments"], 1)),
    }
    for what in ("ids", "texts", "urls"):
        if described[f"has_{what}"]:
            numbers = range(1, len(described["segments"]) + 1)
            wanted |= {f"{what}-{n}.{part}.npy" for n in numbers for part in ("text", "starts")}
    wanted |= MEMBERS_OF_TARGET.get(described["project"]["target"], set())
    if held_out is not None:
        wanted |= {*names_of_rows("held_out", held_out), "held_out.y.npy"}
    there, listed = archive.sums(), described["members"]
    for name in sorted((there.keys() - {MANIFEST}) ^ wanted):
        raise InvalidRequest.at(
            member_pointer(name), "is missing" if name in wanted else "does not belong to this project"
        )
    for name in sorted(listed.keys() ^ wanted):
        raise InvalidRequest.at(
            member_pointer(MANIFEST) + f"/members{member_pointer(name)}",
            "is missing, or does not belong to this project",
        )
    for name in sorted(wanted):
        if there[name] != (listed[name]["n_bytes"], listed[name]["crc32"]):
            raise InvalidRequest.at(member_pointer(name), "has another size or checksum than in the manifest")


def names_of_rows(name: str, rows: Mapping[str, Any]) -> Iterable[str]:
    """Return the members of a matrix."""
    parts = SPARSE if rows["sparse"] else ()
    return [f"{name}.{part}.npy" for part in parts] or [f"{name}.npy"]


def read_facts(plain: Mapping[str, Any], project_id: str | None) -> ProjectFacts:
    """Return the project of a manifest."""
    try:
        estimator = estimator_spec(plain["estimator"])
    except InvalidRequest as error:
        raise error.with_prefix(member_pointer(MANIFEST) + "/project") from None
    names, n_features = plain["feature_names"], plain["n_features"]
    if names is not None and len(names) != n_features:
        problem = f"has {len(names)} entries, but n_features is {n_features}"
        raise InvalidRequest.at(member_pointer(MANIFEST) + "/project/feature_names", problem)
    check_curve(plain["learning_curve"], plain["last_model"])
    text = None if plain["text"] is None else read_text_parameters(plain["text"], n_features)
    if plain["similar_labels"] == "refuse":
        refuse_similar_classes(plain["classes"])
    of_project = {
        "estimator": estimator,
        "text": text,
        "similar_labels": plain["similar_labels"] or "refuse",
        "project_id": project_id or plain["project_id"],
    }
    return ProjectFacts(**{**plain, **of_project})


def read_text_parameters(plain: Mapping[str, Any], n_features: int) -> Parameters:
    """Return the parameters of texts in a manifest."""
    pointer = member_pointer(MANIFEST) + "/project/text"
    try:
        text = of_embeddings(plain) if "embeddings" in plain else resolve_text(plain, None)
    except InvalidRequest as error:
        raise error.with_prefix(pointer) from None
    if text.get("n_features", n_features) != n_features:
        raise InvalidRequest.at(f"{pointer}/n_features", f"must be {n_features}, the n_features of the project")
    return text


def refuse_similar_classes(classes: Sequence[Label]) -> None:
    """Raise InvalidRequest for classes that look like another class, are blank or have control characters."""
    at = member_pointer(MANIFEST) + "/project/classes"
    wrong = islice(wrong_new_labels((), classes, allow_similar=False), MAX_ERRORS + 1)
    errors = [FieldError(f"{at}/{classes.index(label)}", problem) for label, problem in wrong]
    if errors:
        raise InvalidRequest(errors)


def of_embeddings(plain: Mapping[str, Any]) -> Parameters:
    """Return the name and checksum of the model that embedded texts; it need not be on this machine."""
    name, checksum = plain["embeddings"], plain.get("checksum")
    if plain.keys() != {"embeddings", "checksum"} or not all(isinstance(each, str) for each in (name, checksum)):
        raise InvalidRequest.at("/embeddings", "must be a name, with a checksum and nothing else")
    return {"embeddings": name, "checksum": checksum}


def check_curve(points: Sequence[Mapping[str, Any]], last_model: int) -> None:
    """Raise InvalidRequest for points out of order, or with other numbers that cannot be."""
    pointer = member_pointer(MANIFEST) + "/project/learning_curve"
    before = 0
    for position, point in enumerate(points):
        if not before < point["model_version"] <= last_model:
            problem = f"must be above {before}, the version before, and at most last_model, {last_model}"
            raise InvalidRequest.at(f"{pointer}/{position}/model_version", problem)
        if point["n_right"] > point["n_new"]:
            raise InvalidRequest.at(f"{pointer}/{position}/n_right", f"must be at most n_new, {point['n_new']}")
        if not all(STRATEGY.fullmatch(name) for name in point["questions"]):
            raise InvalidRequest.at(f"{pointer}/{position}/questions", "must have names of strategies")
        before = point["model_version"]


def read_segments(
    archive: Archive, segments: Iterable[Mapping[str, Any]], n_features: int, staging: Staging, max_cells: int
) -> Iterator[StagedRows]:
    """Yield the segments of the pool, at most `max_cells` cells in all."""
    for number, described in enumerate(segments, 1):
        shape = described["n_rows"], n_features
        rows = archive.rows(f"pool-{number}", shape, staging, max_cells, sparse=described["sparse"])
        max_cells -= rows.n_cells
        yield rows


def read_ids(archive: Archive, segments: Iterable[StagedRows]) -> Iterator[SampleIds]:
    """Yield the ids of each segment, one for each row and unique in the project."""
    known: set[SampleId] = set()
    for number, rows in enumerate(segments, 1):
        name, values = f"ids-{number}", list(read_column(archive, f"ids-{number}", rows.n_rows, 1, MAX_NAME_BYTES))
        with errors_at_member(f"{name}.text.npy"):
            names = fields.sample_ids().read(list(map(decode_id, values)))
            if not known.isdisjoint(names):
                raise ValueError("repeats an id of another segment; ids must be unique")
            if known and type(names[0]) is not type(next(iter(known))):
                raise ValueError("has ids of another type than the first segment")
        known.update(names)
        yield SampleIds.build(names)


def read_texts(archive: Archive, what: str, segments: Iterable[StagedRows]) -> Iterator[TextColumn]:
    """Yield the texts or addresses of each segment, one for each row."""
    rule = fields.texts() if what == "texts" else fields.urls()
    for number, rows in enumerate(segments, 1):
        name = f"{what}-{number}"
        values = list(read_column(archive, name, rows.n_rows, 0, 4 * MAX_TEXT_LENGTH))
        with errors_at_member(f"{name}.text.npy"):
            yield TextColumn.build(rule.read([value.decode() for value in values]))


def read_column(archive: Archive, name: str, n_rows: int, shortest: int, longest: int) -> Iterator[bytes]:
    """Yield encoded texts, one for each row, of `shortest` to `longest` bytes each."""
    starts, text = f"{name}.starts.npy", f"{name}.text.npy"
    edges = archive.array(starts, "i", n_rows + 1).astype(np.int64)
    if len(edges) != n_rows + 1:
        raise InvalidRequest.at(member_pointer(starts), f"must have {n_rows + 1} entries, one more than rows")
    lengths = np.diff(edges)
    if edges[0] != 0 or not ((lengths >= shortest) & (lengths <= longest)).all():
        raise InvalidRequest.at(member_pointer(starts), "must start at 0 and increase with every text")
    data = archive.array(text, "u", int(edges[-1]), 1).tobytes()
    if len(data) != edges[-1]:
        raise InvalidRequest.at(member_pointer(starts), "must end at the length of the text")
    yield from (data[a:b] for a, b in pairwise(edges.tolist()))


def read_table(archive: Archive, facts: ProjectFacts, most: int) -> ValueTable | None:
    """Read the table of the labels of a project, None if they are classes."""
    if facts.target == "class":
        return None
    return read_numbers(archive, most) if facts.target == "number" else read_sets(archive, len(facts.classes), most)


def read_sets(archive: Archive, n_classes: int, most: int) -> LabelSetTable:
    """Read the table of the labels of a project whose samples may have several classes."""
    sizes, members = archive.array(SET_SIZES, "i", most), archive.array(SET_MEMBERS, "i", most)
    if ((sizes < 0) | (sizes > n_classes)).any() or sizes.sum(dtype=np.int64) != len(members):
        raise InvalidRequest.at(member_pointer(SET_SIZES), f"must have sizes of sets that sum to {len(members)}")
    table = LabelSetTable.of_plain(sizes, members)
    are_codes = ((members >= 0) & (members < n_classes)).all()
    if not are_codes or len(table.code_of) < len(table) or any(list(one) != sorted(set(one)) for one in table.sets):
        problem = f"must have distinct sets of ascending class codes below {n_classes}"
        raise InvalidRequest.at(member_pointer(SET_MEMBERS), problem)
    return table


def read_numbers(archive: Archive, most: int) -> NumberTable:
    """Read the table of the labels of a project of numbers."""
    values = archive.array(NUMBERS, "f", most).astype(np.float64)
    is_wrong = ~(np.abs(values) <= LARGEST_NUMBER)
    if is_wrong.any() or len(np.unique(values)) < len(values):
        problem = f"must have distinct numbers from {-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}"
        raise InvalidRequest.at(member_pointer(NUMBERS), problem)
    return NumberTable(values)


def read_codes(archive: Archive, n_rows: int, n_codes: int) -> Any:
    """Read the labels of the held-out set."""
    name = "held_out.y.npy"
    codes = archive.array(name, "i", n_rows)
    if len(codes) != n_rows or not ((codes >= 0) & (codes < n_codes)).all():
        raise InvalidRequest.at(member_pointer(name), f"must have a code below {n_codes} for each of {n_rows} rows")
    return codes.astype(np.int32)


def read_votes(archive: Archive, most: int) -> Votes:
    """Read at most `most` labels and skips; whether they are consistent is checked later."""
    columns = {
        name: archive.array(f"votes.{name}.npy", kind, most, MAX_QUERY_BYTES) for name, kind in COLUMN_KINDS.items()
    }
    of_32_bits = np.iinfo(np.int32)
    for name in ("code", "annotator"):
        if ((columns[name] < of_32_bits.min) | (columns[name] > of_32_bits.max)).any():
            raise InvalidRequest.at(member_pointer(f"votes.{name}.npy"), "must fit 32 bits")
        columns[name] = columns[name].astype(np.int32)
    for name, most in (("index", MAX_COUNT), ("at", LAST_MOMENT)):
        if ((columns[name] < 0) | (columns[name] > most)).any():
            raise InvalidRequest.at(member_pointer(f"votes.{name}.npy"), f"must be from 0 to {most}")
        columns[name] = columns[name].astype(np.int64)
    if not all(QUERY.fullmatch(query) for query in np.unique(columns["query"]).tolist()):
        raise InvalidRequest.at(member_pointer("votes.query.npy"), "must be query ids of letters, digits, - and _")
    return Votes(*(columns[name] for name in COLUMN_KINDS))


def read_events(archive: Archive, last_version: int, limits: Limits, staging: Staging) -> Any:
    """Write the log of events to a staged file."""
    name = "events.log"
    with errors_at_member(name):
        return stage_log(staging.new_path(), archive.pieces(name), last_version, limits.json_bytes)
