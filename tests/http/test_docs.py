"""The reference at /docs: all of the contract, lines that can be copied, nothing from outside, and readable HTML."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient

from service.http import docs
from service.http.docs.views import Shape, Spans
from service.http.docs.words import Words
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENT = yaml.safe_load(docs.openapi_text())
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
SCHEMAS = DOCUMENT["components"]["schemas"]
VOID = {"meta", "link", "wbr", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """A parsed page: the elements in order, each with its tag, attributes, text, and the ids that it stands under."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert [element["tag"] for element in self.open] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        under = {element["attributes"].get("id") for element in self.open}
        element = {"tag": tag, "attributes": dict(attrs), "text": "", "under": under}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def find(self, tag: str, under: str | None = None, **attributes: str) -> list[dict[str, Any]]:
        """The elements of a tag below an id, with some attributes (`class_` among the element's classes)."""
        kind = attributes.pop("class_", None)
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and (under is None or under in element["under"] or under == element["attributes"].get("id"))
            and (kind is None or kind in (element["attributes"].get("class") or "").split())
            and attributes.items() <= element["attributes"].items()
        ]

    def texts(self, tag: str, under: str | None = None, **attributes: str) -> list[str]:
        """The texts of elements."""
        return [" ".join(element["text"].split()) for element in self.find(tag, under, **attributes)]

    def code(self, under: str, label: str) -> str:
        """The text of the one block of code with a label."""
        (block,) = self.find("pre", under, **{"aria-label": label})
        return str(block["text"])


PAGE = Page(docs.page())


def plain(text: str) -> str:
    """A description as it reads on the page."""
    return " ".join(text.replace("`", "").split())


def examples(operation: str, *contents: Any) -> list[Any]:
    """Operation, title, media type and value of every example of some bodies."""
    return [
        pytest.param(operation, example["summary"], media_type, example["value"], id=f"{operation}-{name}")
        for content in contents
        for media_type, media in content.items()
        for name, example in media.get("examples", {}).items()
    ]


REPLIES = [
    example
    for name, (_, _, operation) in OPERATIONS.items()
    for example in examples(name, *(response.get("content", {}) for response in operation["responses"].values()))
]
REQUESTS = [
    example
    for name, (_, _, operation) in OPERATIONS.items()
    for example in examples(name, operation.get("requestBody", {}).get("content", {}))
]


def small(*, content: Any = (), schemas: Any = (), **operation: Any) -> dict[str, Any]:
    """A document of one operation, which has one reply."""
    reply = {"description": "It.", "headers": {}, "content": dict(content)}
    described = {"operationId": "get_it", "summary": "Get it", "responses": {"200": reply}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "T", "version": "1", "description": "It.", "license": {"name": "L"}},
        "paths": {"/things/{thing}": {"get": described | operation}},
        "components": {"schemas": {"Problem": {"type": "object"}, **dict(schemas)}},
    }


def shape(schema: Any, **schemas: Any) -> Shape:
    """A schema in words."""
    return Words(schemas, frozenset(schemas), {}).shape(schema, "required")


def text_of(spans: Spans) -> str:
    return "".join(span.text for span in spans)


# All of the contract.


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_a_place_with_its_method_and_path(name: str) -> None:
    method, path, operation = OPERATIONS[name]
    assert PAGE.texts("h2", name) == [f"{method} {path}"]
    assert f"{method} {path}" in PAGE.texts("a", "contents", href=f"#{name}")
    assert plain(operation["summary"]) in PAGE.texts("p", name)
    assert plain(operation.get("description", operation["summary"])) in PAGE.texts("p", name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_status_is_shown_with_its_description(name: str) -> None:
    shown = " ".join(PAGE.texts("section", name))
    for status, response in OPERATIONS[name][2]["responses"].items():
        label = "other" if status == "default" else status
        assert f"{label} {plain(response['description'])}" in shown
        assert label in PAGE.texts("span", "errors" if status[0] in "45d" else name, class_="status")


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_parameter_is_shown(name: str) -> None:
    for parameter in OPERATIONS[name][2].get("parameters", ()):
        assert parameter["name"] in PAGE.texts("code", name, class_="name")
        assert plain(parameter["description"]) in PAGE.texts("p", name)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_of_every_schema_is_shown_with_its_description(name: str) -> None:
    rows = PAGE.texts("li")
    for field, schema in SCHEMAS[name].get("properties", {}).items():
        row = re.compile(rf"{re.escape(field)} .*{re.escape(plain(schema.get('description', '')))}")
        assert any(row.match(text) for text in rows), field


@pytest.mark.parametrize("field", ["index", "id", "label", "skip", "annotator", "query_id"])
def test_the_records_of_labels_are_shown_in_full(field: str) -> None:
    assert PAGE.texts("code", "label_project", class_="name").count(field) == 1


def test_every_part_of_the_form_says_as_what_it_may_come() -> None:
    form = OPERATIONS["fit_project"][2]["requestBody"]["content"]["multipart/form-data"]
    rows = PAGE.texts("li", "fit_project")
    for part, encoding in form["encoding"].items():
        kinds = " or ".join(encoding["contentType"].rsplit(", ", 1))
        assert any(row.startswith(part) and f"as {kinds}" in row for row in rows), part


def test_every_default_enumeration_and_pattern_is_shown() -> None:
    query = SCHEMAS["Query"]["properties"]
    limits = " ".join(PAGE.texts("p", "query_project", class_="limits"))
    assert query["project_id"]["pattern"] in limits
    assert f"default {query['batch_size']['default']}" in limits
    assert "0 to 2³² − 1" in limits
    for strategy in query["strategy"]["enum"]:
        assert strategy in limits


def test_every_title_of_an_example_is_a_heading() -> None:
    for name, title, *_ in (example.values for example in REPLIES + REQUESTS):
        assert title in PAGE.texts("h4", name)


@pytest.mark.parametrize(("name", "title", "media_type", "value"), REPLIES)
def test_replies_are_shown_as_they_are(name: str, title: str, media_type: str, value: Any) -> None:
    shown = PAGE.code(name, f"Reply: {title}")
    if media_type.endswith("json"):
        assert json.loads(shown) == value
    else:
        assert shown == value.replace("\r\n", "\n")


# Lines that can be copied.


def options(line: str) -> tuple[str, str, list[str], list[str], list[str]]:
    """Method, address, headers, data and parts of a form of a curl line."""
    words = shlex.split(line)
    assert words[:2] == ["curl", "-sS"]
    found: dict[str, list[str]] = {"-X": [], "-H": [], "-d": [], "-F": []}
    addresses = []
    remaining = iter(words[2:])
    for word in remaining:
        if word in found:
            found[word].append(next(remaining))
        else:
            addresses.append(word)
    (address,) = addresses
    return (found["-X"] or ["GET"])[0], address, found["-H"], found["-d"], found["-F"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_a_line_for_the_shell(name: str) -> None:
    method, path, _ = OPERATIONS[name]
    lines = [block["text"] for block in PAGE.find("pre", name) if block["attributes"]["aria-label"].startswith("Req")]
    assert lines
    for line in lines:
        sent, address, *_ = options(line)
        pattern = "/".join("[^/{}]+" if "{" in piece else re.escape(piece) for piece in path.split("/"))
        assert sent == method
        assert re.fullmatch(rf"\$AQ{pattern}(\?.*)?", address), address
        assert '"$AQ' in line  # the shell fills it in between double quotes, and not between single ones


@pytest.mark.parametrize(("name", "title", "media_type", "value"), REQUESTS)
def test_requests_send_the_example(name: str, title: str, media_type: str, value: Any) -> None:
    _, _, headers, data, parts = options(PAGE.code(name, f"Request: {title}"))
    if media_type == "multipart/form-data":
        assert (headers, data) == ([], [])
        assert {part.partition("=")[0]: json.loads(sent_part(part)) for part in parts} == value
    else:
        assert headers[-1] == f"Content-Type: {media_type}"
        assert parts == []
        assert [json.loads(text) for text in data] == [value]


def sent_part(part: str) -> str:
    """The text that curl sends for `name=text;type=application/json`."""
    _, _, rest = part.partition("=")
    text, _, media_type = rest.rpartition(";type=")
    assert media_type == "application/json"
    if text.startswith('"') and text.endswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    assert ";" not in text
    return text


@pytest.mark.parametrize(("operation", "name"), [("fit_project", "X"), ("query_project", "probabilities")])
def test_a_form_is_shown_with_a_npy_file_too(operation: str, name: str) -> None:
    forms = [example.values[:2] for example in REQUESTS if example.values[2] == "multipart/form-data"]
    title = dict(forms)[operation]
    *_, parts = options(PAGE.code(operation, f"Request: {title}, with {name} as .npy"))
    assert f"{name}=@{name}.npy;type=application/x-npy" in parts
    assert f'numpy.save("{name}.npy", {name})' in PAGE.texts("code", operation)


def test_another_media_type_is_asked_for() -> None:
    assert options(PAGE.code("list_project_labels", "Request: All answers as CSV"))[2] == ["Accept: text/csv"]
    assert options(PAGE.code("list_project_labels", "Request: All answers"))[2] == []


def test_parameters_of_an_example_stand_in_its_address() -> None:
    values = {("path", "thing"): "a b/$c", ("query", "n"): 0, ("query", "other"): None, ("header", "If-Match"): '"3"'}
    parameters = [
        {"in": place, "name": name, "description": "It.", "required": place == "path", "schema": {}}
        | ({} if value is None else {"examples": {"one": {"summary": "One", "value": value}}})
        for (place, name), value in values.items()
    ]
    line = Page(docs.render(small(parameters=parameters))).code("get_it", "Request: One")
    assert options(line)[1:3] == ("$AQ/things/a%20b%2F%24c?n=0", ['If-Match: "3"'])


NASTY = {"it's": 'a "quoted" \\ $HOME `id` ; é \n\t', "n": [[-1.5e-09, None, True]] * 40}


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data"])
def test_nothing_that_a_body_holds_gets_out_of_its_quotes(media_type: str) -> None:
    body = {"content": {media_type: {"schema": {}, "examples": {"e": {"summary": "E", "value": NASTY}}}}}
    line = Page(docs.render(small(requestBody=body))).code("get_it", "Request: E")
    *_, data, parts = options(line)
    sent = json.loads(data[0]) if data else {part.partition("=")[0]: json.loads(sent_part(part)) for part in parts}
    assert sent == NASTY


# Schemas in words.


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "string"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, "list of lists of numbers"),
        ({"type": ["array", "null"], "items": {"type": "string"}}, "list of strings or null"),
        ({"anyOf": [{"$ref": "#/components/schemas/TestScore"}, {"type": "null"}]}, "test score or null"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/TestScore"}}, "list of test scores"),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]}, "string, integer or boolean"),
        ({"type": "string", "format": "date-time"}, "time (RFC 3339)"),
        ({"type": "string", "contentMediaType": "application/x-npy"}, "file"),
        ({}, "value of any type"),
    ],
)
def test_types_in_words(schema: Any, words: str) -> None:
    assert text_of(shape(schema, TestScore={"type": "object"}).one) == words


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 0}, ["0 or more"]),
        ({"type": "integer", "maximum": 9}, ["at most 9"]),
        ({"type": "integer", "minimum": 0, "maximum": 0}, ["only 0"]),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, ["−2⁶³ to 2⁶³ − 1"]),
        ({"type": "string", "minLength": 1, "maxLength": 256}, ["1 to 256 characters"]),
        ({"type": "string", "pattern": "^a+$"}, ["matches ^a+$"]),
        ({"type": "string", "enum": ["a", "b", "c"]}, ["one of a, b or c"]),
        (
            {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "integer", "minimum": 0}},
            ["not empty", "no item twice", "each: 0 or more"],
        ),
        ({"type": "array", "minItems": 1, "maxItems": 100_000, "items": {}}, ["1 to 100,000 items"]),
        (
            {"oneOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]},
            ["string: 1 or more characters", "integer: 0 or more"],
        ),
        ({"type": ["integer", "null"], "minimum": 1}, ["1 or more"]),
        ({"type": "object", "allOf": [{"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}]}, ["either a or b"]),
        (
            {
                "type": "object",
                "allOf": [
                    {
                        "oneOf": [
                            {"required": ["a"], "properties": {"b": {"const": False}}},
                            {"required": ["b"], "properties": {"b": {"const": True}}, "not": {"required": ["a"]}},
                        ]
                    }
                ],
            },
            ["either a (b left out or false) or b: true without a"],
        ),
    ],
)
def test_limits_in_words(schema: Any, words: list[str]) -> None:
    assert [text_of(limit) for limit in shape(schema).limits] == words


SHOWN = {"$ref", "type", "format", "contentMediaType", "description", "default", "enum", "pattern"}
SHOWN |= {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"}
SHOWN |= {"properties", "required", "items", "anyOf", "oneOf", "allOf"}


def keywords(schema: Any) -> set[str]:
    """The keywords of a schema and of those inside it, but for the one rule of `allOf`: fields that exclude others."""
    below = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return {*schema}.union(*map(keywords, below), keywords(schema["items"]) if "items" in schema else ())


def test_nothing_that_the_contract_says_of_a_schema_is_passed_over() -> None:
    parameters = [item["schema"] for *_, operation in OPERATIONS.values() for item in operation.get("parameters", ())]
    said = set().union(*map(keywords, [*SCHEMAS.values(), *parameters]))
    assert said - {"additionalProperties"} <= SHOWN


def test_what_callers_send_is_not_said_to_be_always_there() -> None:
    def refers_to(value: Any) -> set[str]:
        return set(re.findall(r"#/components/schemas/(\w+)", json.dumps(value)))

    sent = refers_to([operation.get("requestBody") for *_, operation in OPERATIONS.values()])
    while more := set().union(*(refers_to(SCHEMAS[name]) for name in sent)) - sent:
        sent |= more
    assert sent
    assert not [name for name in sent if PAGE.find("span", f"object-{name}", class_="always")]


def test_a_schema_that_refers_to_itself_is_linked() -> None:
    tree = {
        "type": "object",
        "properties": {"below": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}}
    page = Page(docs.render(small(content=content, schemas={"Tree": tree})))
    assert len(page.find("a", "object-Tree", href="#object-Tree")) == 2


# Nothing from outside, and readable HTML.


def test_no_address_outside_the_service() -> None:
    default = f"http://{Settings().host}:{Settings().port}"
    assert re.findall(r"https?://[^\s<\"']*", docs.page()) == [default]
    assert f"export AQ={default}" in PAGE.texts("pre", "start")
    assert not re.search(r"url\(|@import|(?:src|srcset|action)=|\bon\w+=|(?:\"|')//", docs.page())
    assert {element["tag"] for element in PAGE.elements} & {
        "script",
        "img",
        "iframe",
        "object",
        "form",
        "base",
    } == set()


def test_every_link_leads_somewhere() -> None:
    ids = [element["attributes"]["id"] for element in PAGE.elements if "id" in element["attributes"]]
    assert len(ids) == len(set(ids))
    links = {element["attributes"]["href"] for element in PAGE.find("a")}
    assert links - {f"#{name}" for name in ids} == {"openapi.yaml"}
    labels = {element["attributes"]["aria-labelledby"] for element in PAGE.find("section")}
    assert labels <= set(ids)


def test_headings_descend_one_step_at_a_time() -> None:
    levels = [int(element["tag"][1]) for element in PAGE.elements if re.fullmatch("h[1-6]", element["tag"])]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_there_is_one_of_each_landmark() -> None:
    assert [len(PAGE.find(tag)) for tag in ("nav", "main", "h1", "title")] == [1, 1, 1, 1]
    assert PAGE.find("html", lang="en")
    assert PAGE.find("meta", name="viewport")


def poisoned(value: Any) -> Any:
    """The same document with markup in every text and name that is shown and does not hold the document together."""
    kept = {"type", "in", "$ref", "format", "contentType", "contentMediaType", "required"}
    if isinstance(value, dict):
        return {key: below if key in kept else poisoned(below) for key, below in value.items()}
    if isinstance(value, list):
        return [poisoned(below) for below in value]
    return f"{value}</code><script>x</script>\"'&lt;" if isinstance(value, str) else value


def test_markup_in_the_document_is_text_on_the_page() -> None:
    document = poisoned(copy.deepcopy(DOCUMENT))
    document["paths"] = {f"{path}<script>": item for path, item in document["paths"].items()}
    schemas = document["components"]["schemas"]
    schemas["Query"]["properties"]["<script>"] = {"type": "string"}
    text = docs.render(document)
    assert "<script" not in text
    assert "&lt;script&gt;x&lt;/script&gt;" in text
    assert "<script>" in Page(text).texts("code", class_="name")


def test_the_page_is_the_same_every_time() -> None:
    assert docs.page() is docs.page()
    assert docs.render(DOCUMENT) == docs.page() == docs.page.__wrapped__()


def test_the_policy_lets_in_nothing_but_what_the_page_brings() -> None:
    directives = dict(directive.split(" ", 1) for directive in docs.CSP.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["style-src"] == "'unsafe-inline'"
    assert directives["img-src"] == "data:"
    assert PAGE.find("link")[0]["attributes"]["href"].startswith("data:image/png;base64,")


def test_the_service_answers_with_the_page(client: FlaskClient) -> None:
    response = client.get("/docs")
    assert response.status_code == 200
    assert response.mimetype == "text/html"
    assert response.get_data(as_text=True) == docs.page()
    assert response.headers["Content-Security-Policy"] == docs.CSP


def test_the_wheel_holds_the_contract_and_what_the_page_is_made_of(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling makes the wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = "import sys; from service.http import docs; sys.stdout.write(f'{docs.__file__}\\n{docs.page()}')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "installed", check=True, capture_output=True)
    file, _, page = done.stdout.decode().partition("\n")
    assert Path(file).is_relative_to(tmp_path)
    assert page == docs.page()
    assert (tmp_path / "installed" / "service" / "openapi.yaml").read_text(encoding="utf-8") == docs.openapi_text()
