"""The pages at /docs: the whole contract, commands to copy, working links, and no external resources."""

from __future__ import annotations

import copy
import html
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
from service.http.docs import pages
from service.http.docs.pages import render, render_reference
from service.http.docs.schema_text import SchemaText
from service.settings import Settings

ROOT = Path(__file__).parents[2]
GUIDE = Path(pages.__file__).parent / "guide"
DOCUMENT = yaml.safe_load(docs.openapi_text())
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
SCHEMAS = DOCUMENT["components"]["schemas"]
VOID = {"meta", "link", "wbr", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """A parsed page: the elements in order, each with tag, attributes, text, and the ids of the headings above it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.headings: dict[int, str] = {}
        self.feed(text)
        self.close()
        assert [element["tag"] for element in self.open] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            level = int(tag[1])
            self.headings = {above: name for above, name in self.headings.items() if above < level}
            self.headings[level] = attributes["id"] or ""
        under = {*self.headings.values()} | {element["attributes"].get("id") for element in self.open}
        element = {"tag": tag, "attributes": attributes, "text": "", "under": under}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def find(self, tag: str, under: str | None = None, **attributes: str) -> list[dict[str, Any]]:
        """The elements of a tag below a heading or element of an id, with some attributes."""
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and (under is None or under in element["under"] or under == element["attributes"].get("id"))
            and attributes.items() <= element["attributes"].items()
        ]

    def texts(self, tag: str, under: str | None = None, **attributes: str) -> list[str]:
        """The texts of elements."""
        return [" ".join(element["text"].split()) for element in self.find(tag, under, **attributes)]

    def request(self, example: str) -> str:
        """The command of an example."""
        return str(self.find("pre", example)[0]["text"])

    def fields(self, under: str) -> list[str]:
        """The names of the fields, parameters and headers that are described below a heading."""
        return self.texts("strong", under)

    def ids(self) -> list[str]:
        return [element["attributes"]["id"] for element in self.elements if "id" in element["attributes"]]


PAGE = Page(docs.reference_page())
GUIDES = {name: Page(docs.guide_page(name)) for name in docs.GUIDES}


def plain(text: str) -> str:
    """A description as it reads on the page."""
    return " ".join(text.replace("`", "").split())


def examples(operation: str, *contents: Any) -> list[Any]:
    """Anchor, title, media type and value of every example of some bodies."""
    return [
        pytest.param(f"{operation}-{name}", example["summary"], media_type, example["value"], id=f"{operation}-{name}")
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


# The whole contract.


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_a_section(name: str) -> None:
    method, path, operation = OPERATIONS[name]
    assert PAGE.texts("h2", id=name) == [f"{method} {path}"]
    assert f"{method} {path}" in PAGE.texts("a", "contents", href=f"#{name}")
    assert plain(operation["summary"]) in PAGE.texts("p", name)
    assert plain(operation.get("description", operation["summary"])) in PAGE.texts("p", name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_status_is_shown_with_its_description(name: str) -> None:
    shown = PAGE.texts("p", name) + PAGE.texts("li", name)
    for status, response in OPERATIONS[name][2]["responses"].items():
        assert f"{'other' if status == 'default' else status} {plain(response['description'])}" in shown


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_parameter_is_shown(name: str) -> None:
    for parameter in OPERATIONS[name][2].get("parameters", ()):
        start = f"{parameter['name']} "
        assert any(
            text.startswith(start) and f"in the {parameter['in']}" in text and plain(parameter["description"]) in text
            for text in PAGE.texts("li", name)
        ), parameter


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_of_every_schema_is_shown_with_its_description(name: str) -> None:
    rows = PAGE.texts("li")
    for field, schema in SCHEMAS[name].get("properties", {}).items():
        row = re.compile(rf"{re.escape(field)} .*{re.escape(plain(schema.get('description', '')))}")
        assert any(row.match(text) for text in rows), field


def test_the_records_of_labels_are_shown_in_full() -> None:
    fields = ["index", "id", "label", "skip", "annotator", "query_id", "new_class"]
    assert PAGE.fields("object-SubmittedLabel") == fields


def test_every_part_of_the_form_names_its_media_types() -> None:
    form = OPERATIONS["fit_project"][2]["requestBody"]["content"]["multipart/form-data"]
    rows = PAGE.texts("li", "fit_project")
    for part, encoding in form["encoding"].items():
        kinds = " or ".join(encoding["contentType"].rsplit(", ", 1))
        assert any(row.startswith(part) and f"as {kinds}" in row for row in rows), part


def test_every_default_enumeration_and_pattern_is_shown() -> None:
    query = SCHEMAS["QueryRequest"]["properties"]
    limits = " ".join(PAGE.texts("em", "query_project") + PAGE.texts("em", "object-StrategyName"))
    assert query["project_id"]["pattern"] in limits
    assert f"default {query['batch_size']['default']}" in limits
    assert "0 to 2³² − 1" in limits
    for strategy in SCHEMAS["StrategyName"]["enum"]:
        assert strategy in limits


def test_every_title_of_an_example_is_a_heading() -> None:
    for anchor, title, *_ in (example.values for example in REPLIES + REQUESTS):
        assert PAGE.texts("h4", id=anchor) == [title]


@pytest.mark.parametrize(("anchor", "title", "media_type", "value"), REPLIES)
def test_replies_are_shown_as_they_are(anchor: str, title: str, media_type: str, value: Any) -> None:
    _, reply = PAGE.find("pre", anchor)
    if media_type.endswith("json"):
        assert json.loads(reply["text"]) == value
    else:
        assert reply["text"].strip() == value.replace("\r\n", "\n").strip()


# Commands that can be copied.


def options(line: str) -> tuple[str, str, list[str], list[str], list[str]]:
    """Method, address, headers, data and parts of a form of a curl command."""
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
def test_every_operation_has_a_command(name: str) -> None:
    method, path, _ = OPERATIONS[name]
    lines = [block["text"] for block in PAGE.find("pre", name) if block["text"].startswith("curl")]
    assert lines
    for line in lines:
        sent, address, *_ = options(line)
        pattern = "/".join("[^/{}]+" if "{" in piece else re.escape(piece) for piece in path.split("/"))
        assert sent == method
        assert re.fullmatch(rf"\$AQ{pattern}(\?.*)?", address), address
        assert '"$AQ' in line  # the shell fills it in between double quotes, and not between single ones


@pytest.mark.parametrize(("anchor", "title", "media_type", "value"), REQUESTS)
def test_requests_send_the_example(anchor: str, title: str, media_type: str, value: Any) -> None:
    _, _, headers, data, parts = options(PAGE.request(anchor))
    if media_type == "multipart/form-data":
        assert (headers, data) == ([], [])
        sent = {part.partition("=")[0]: sent_part(part) for part in parts}
        assert {**sent, "config": json.loads(sent["config"])} == value
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


def test_an_example_in_another_media_type_sends_accept() -> None:
    assert options(PAGE.request("list_project_labels-all_labels_as_csv"))[2] == ["Accept: text/csv"]
    assert options(PAGE.request("list_project_labels-all_labels"))[2] == []


def test_the_parameters_of_an_example_are_in_its_address() -> None:
    values = {("path", "thing"): "a b/$c", ("query", "n"): 0, ("query", "other"): None, ("header", "If-Match"): '"3"'}
    parameters = [
        {"in": place, "name": name, "description": "It.", "required": place == "path", "schema": {}}
        | ({} if value is None else {"examples": {"one": {"summary": "One", "value": value}}})
        for (place, name), value in values.items()
    ]
    line = Page(render_reference(small(parameters=parameters))).request("get_it-one")
    assert options(line)[1:3] == ("$AQ/things/a%20b%2F%24c?n=0", ['If-Match: "3"'])


NASTY = {"it's": 'a "quoted" \\ $HOME `id` ``` ; é \n\t', "n": [[-1.5e-09, None, True]] * 40}


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data"])
def test_nothing_in_a_body_escapes_its_quotes(media_type: str) -> None:
    body = {"content": {media_type: {"schema": {}, "examples": {"e": {"summary": "E", "value": NASTY}}}}}
    line = Page(render_reference(small(requestBody=body))).request("get_it-e")
    *_, data, parts = options(line)
    if data:
        assert json.loads(data[0]) == NASTY
    else:
        text, numbers = map(sent_part, parts)
        assert (text, json.loads(numbers)) == tuple(NASTY.values())


# Schemas in words.


def schema_text(**schemas: Any) -> SchemaText:
    return SchemaText(schemas, frozenset(schemas))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "string"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, "list of lists of numbers"),
        ({"type": ["array", "null"], "items": {"type": "string"}}, "list of strings or null"),
        (
            {"anyOf": [{"$ref": "#/components/schemas/TestScore"}, {"type": "null"}]},
            "[test score](#object-TestScore) or null",
        ),
        (
            {"type": "array", "items": {"$ref": "#/components/schemas/TestScore"}},
            "list of [test scores](#object-TestScore)",
        ),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]}, "string, integer or boolean"),
        ({"type": "string", "format": "date-time"}, "time (RFC 3339)"),
        ({"type": "string", "format": "binary", "contentMediaType": "application/x-npy"}, "file"),
        ({}, "value of any type"),
    ],
)
def test_types_in_words(schema: Any, words: str) -> None:
    assert schema_text(TestScore={"type": "object"}).type_of(schema) == words


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 0}, ["0 or more"]),
        ({"type": "integer", "maximum": 9}, ["at most 9"]),
        ({"type": "integer", "minimum": 0, "maximum": 0}, ["only 0"]),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, ["−2⁶³ to 2⁶³ − 1"]),
        ({"type": "string", "minLength": 1, "maxLength": 256}, ["1 to 256 characters"]),
        ({"type": "string", "pattern": "^a+`$"}, ["matches ``^a+`$``"]),
        ({"type": "string", "enum": ["a", "b", "c"]}, ["one of `a`, `b` or `c`"]),
        ({"type": "string", "const": "a"}, ["only `a`"]),
        (
            {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "integer", "minimum": 0}},
            ["not empty", "no item twice", "each: 0 or more"],
        ),
        ({"type": "array", "minItems": 1, "maxItems": 100_000, "items": {}}, ["1 to 100,000 items"]),
        ({"type": "object", "minProperties": 1, "maxProperties": 9}, ["1 to 9 members"]),
        (
            {"oneOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]},
            ["string: 1 or more characters", "integer: 0 or more"],
        ),
        ({"type": ["integer", "null"], "minimum": 1}, ["1 or more"]),
    ],
)
def test_limits_in_words(schema: Any, words: list[str]) -> None:
    assert schema_text().limits_of(schema) == words


SHOWN = {"$ref", "type", "format", "contentMediaType", "description", "default", "enum", "const", "pattern"}
SHOWN |= {
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
}
SHOWN |= {"properties", "required", "items", "anyOf", "oneOf"}
CONDITIONS = {"if", "then", "else", "not"}
"""Keywords that relate fields of a schema; its description says the same."""


def keywords(schema: Any) -> set[str]:
    """The keywords of a schema and of those inside it."""
    below = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return {*schema}.union(*map(keywords, below), keywords(schema["items"]) if "items" in schema else ())


def test_every_keyword_of_the_schemas_is_shown() -> None:
    parameters = [item["schema"] for *_, operation in OPERATIONS.values() for item in operation.get("parameters", ())]
    used = set().union(*map(keywords, [*SCHEMAS.values(), *parameters]))
    assert used - {"additionalProperties"} - CONDITIONS <= SHOWN


def test_required_and_optional_fields_are_marked() -> None:
    query = {text.split()[0]: text for text in PAGE.texts("li", "query_project")}
    assert "string, required, matches" in next(
        text for text in PAGE.texts("li", "label_project") if text.startswith("project_id")
    )
    assert "required" not in query["batch_size"]
    problem = {text.split()[0]: text for text in PAGE.texts("li", "errors")}
    assert "optional" in problem["errors"]
    assert "optional" not in problem["status"]


def test_a_schema_that_refers_to_itself_is_linked() -> None:
    tree = {
        "type": "object",
        "properties": {"below": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}}
    page = Page(render_reference(small(content=content, schemas={"Tree": tree})))
    assert len(page.find("a", "object-Tree", href="#object-Tree")) == 1
    assert len(page.find("a", "get_it", href="#object-Tree")) == 1


# Guides.


def test_every_file_of_the_guide_is_a_page() -> None:
    assert {path.name for path in GUIDE.iterdir()} == {f"{name}.md" for name in docs.GUIDES}


def linked_file(page: Path, href: str) -> tuple[Path, str]:
    """The file and the anchor that a link in a Markdown file leads to on GitHub."""
    path, _, anchor = href.partition("#")
    return ((page.parent / path).resolve() if path else page), anchor


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file on GitHub; those of openapi.yaml are those of the reference."""
    if path.name == "openapi.yaml":
        return set(PAGE.ids())
    return set(Page(render(re.sub(r"<!--.*?-->\n", "", path.read_text(encoding="utf-8")), "x")).ids())


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(GUIDE.iterdir())], ids=str)
def test_every_link_works_on_github(path: Path) -> None:
    for href in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not href.startswith("https://"):
            file, anchor = linked_file(path, href)
            assert file.exists(), href
            assert not anchor or anchor in anchors(file), href


@pytest.mark.parametrize("name", [None, *docs.GUIDES])
def test_every_link_works_when_served(name: str | None, client: FlaskClient) -> None:
    page = GUIDES[name] if name else PAGE
    assert len(page.ids()) == len(set(page.ids()))
    for href in {element["attributes"]["href"] for element in page.find("a")}:
        path, _, anchor = href.partition("#")
        if href.startswith("https://"):
            continue
        folder = "/docs/" if name else "/"
        address = client.get(folder + path, follow_redirects=False).request.path if path else ""
        target = {"/docs": PAGE, "/openapi.yaml": None, "": page}
        target |= {f"/docs/{other}": GUIDES[other] for other in docs.GUIDES}
        address = str(Path(address).resolve()) if address else ""
        assert address in target, href
        found = target[address]
        assert not anchor or (found and anchor in found.ids()), href


def test_the_anchors_are_those_of_github() -> None:
    text = "# One: `two`, three-four_five!\n\n## Who is right, and how often?\n\n## Same\n\n## Same\n"
    assert Page(render(text, "x")).ids()[-4:] == [
        "one-two-three-four_five",
        "who-is-right-and-how-often",
        "same",
        "same-1",
    ]


@pytest.mark.parametrize("name", docs.GUIDES)
def test_a_guide_has_every_heading_in_its_contents(name: str) -> None:
    page = GUIDES[name]
    headings = page.texts("h2", "content") + page.texts("h3", "content")
    assert set(headings) <= set(page.texts("a", "contents"))
    assert page.texts("a", "contents", **{"aria-current": "page"}) == page.texts("h1")
    assert {f"{other}" for other in docs.GUIDES} <= {
        element["attributes"]["href"] for element in page.find("a", "contents")
    }


# No external resources, and valid HTML.


@pytest.mark.parametrize("text", [docs.reference_page(), *map(docs.guide_page, docs.GUIDES)])
def test_a_page_loads_nothing(text: str) -> None:
    page = Page(text)
    assert not re.search(r"url\(|@import|(?:src|srcset|action)=|\bon\w+=\"", text)
    loading = {"script", "img", "iframe", "object", "form", "base"}
    assert loading.isdisjoint(element["tag"] for element in page.elements)
    assert [element["attributes"]["href"][:22] for element in page.find("link")] == ["data:image/png;base64,"]
    default = f"http://{Settings().host}:{Settings().port}"
    links = {element["attributes"]["href"] for element in page.find("a")}
    shown = {text for element in page.find("code") for text in re.findall(r"https?://[^\s<\"']*", element["text"])}
    assert set(re.findall(r"https?://[^\s<\"']*", html.unescape(text))) <= {default} | links | shown


def test_the_reference_names_the_default_address() -> None:
    assert f"export AQ=http://{Settings().host}:{Settings().port}" in PAGE.texts("pre", "start")


@pytest.mark.parametrize("page", [PAGE, *GUIDES.values()])
def test_headings_descend_one_step_at_a_time(page: Page) -> None:
    levels = [int(element["tag"][1]) for element in page.elements if re.fullmatch("h[1-6]", element["tag"])]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [len(page.find(tag)) for tag in ("nav", "main", "title")] == [1, 1, 1]
    assert page.find("html", lang="en")
    assert page.find("meta", name="viewport")


def poisoned(value: Any) -> Any:
    """The document with markup in every text and name that is shown, except names that are referred to."""
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
    schemas["QueryRequest"]["properties"]["<script>"] = {"type": "string"}
    text = render_reference(document)
    assert "<script" not in text
    assert "&lt;script&gt;x&lt;/script&gt;" in text
    assert "<script>" in Page(text).texts("code")


def test_the_page_is_rendered_once() -> None:
    assert docs.reference_page() is docs.reference_page()
    assert docs.reference_page() == render_reference(DOCUMENT)
    assert docs.guide_page("training") is docs.guide_page("training")


def test_the_policy_allows_only_the_parts_of_the_page() -> None:
    directives = dict(directive.split(" ", 1) for directive in docs.CSP.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["style-src"] == "'unsafe-inline'"
    assert directives["img-src"] == "data:"


@pytest.mark.parametrize("name", [None, *docs.GUIDES])
def test_the_service_answers_with_the_page(name: str | None, client: FlaskClient) -> None:
    response = client.get(f"/docs/{name}" if name else "/docs")
    assert response.status_code == 200
    assert response.mimetype == "text/html"
    page = docs.guide_page(name) if name else docs.reference_page()
    shown = re.sub("(AQ=|&quot;)http://127.0.0.1:8000", r"\1http://localhost", page)
    assert response.get_data(as_text=True) == shown
    assert response.headers["Content-Security-Policy"] == docs.CSP


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"Host": "aq.example:8080"}, "http://aq.example:8080"),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example", "X-Forwarded-Prefix": "/aq"},
            "https://a.example/aq",
        ),
        ({"X-Forwarded-Prefix": "/aq/"}, "http://localhost/aq"),
        ({"X-Forwarded-Host": "a.example, b.example"}, "http://a.example"),
        ({"X-Forwarded-Host": "a.example; rm x"}, "http://127.0.0.1:8000"),
        ({"X-Forwarded-Prefix": "/<script>"}, "http://127.0.0.1:8000"),
    ],
)
def test_the_commands_have_the_address_that_the_caller_sees(headers: Any, address: str, client: FlaskClient) -> None:
    page = client.get("/docs", headers=headers).get_data(as_text=True)
    assert re.findall("export AQ=(.*)", page) == [address]


@pytest.mark.parametrize("name", ["nothing", "training.md", "..%2Fpage", "%00"])
def test_an_unknown_page_is_a_problem(name: str, client: FlaskClient) -> None:
    response = client.get(f"/docs/{name}")
    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"
    assert "GET /docs" in response.json["detail"]


def test_the_wheel_holds_the_contract_and_the_pages(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling makes the wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "import json, sys; from service.http import docs; "
        "json.dump([docs.__file__, docs.reference_page(), *map(docs.guide_page, docs.GUIDES)], sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "installed", check=True, capture_output=True)
    file, *shown = json.loads(done.stdout)
    assert Path(file).is_relative_to(tmp_path)
    assert shown == [docs.reference_page(), *map(docs.guide_page, docs.GUIDES)]
    assert (tmp_path / "installed" / "service" / "openapi.yaml").read_text(encoding="utf-8") == docs.openapi_text()
