"""Label Studio's labelling config and its tasks: the choices, what they are about, and what people chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

TEXT_TAGS = ("Text", "HyperText", "Paragraphs")

Annotation = Mapping[str, Any]


class ConfigError(ValueError):
    """The labelling config has no choices, or cannot be read."""


@dataclass(frozen=True, slots=True)
class LabelingConfig:
    """The first choices of a labelling config.

    `control` and `target` are the names of the tags, `classes` the choices (none if each task has its own), `field` the
    field of the task that the choices are about, and `is_text` whether it is a text.
    """

    control: str
    target: str
    classes: tuple[str, ...]
    has_several: bool
    field: str | None
    is_text: bool

    def answer_in(self, result: Iterable[Mapping[str, Any]]) -> str | list[str] | None:
        """Return the choice in the result of an annotation, all of them where several may be chosen, or None."""
        for region in result:
            if region.get("from_name") == self.control and region.get("type") == "choices":
                chosen = [str(choice) for choice in region["value"].get("choices", ())]
                if chosen:
                    return sorted(chosen) if self.has_several else chosen[0]
        return None

    def result_of(self, choices: Sequence[str], confidence: float | None) -> list[dict[str, Any]]:
        """Return the result of a prediction: the choices, with the confidence of the model."""
        score = {} if confidence is None else {"score": round(confidence, 4)}
        names = {"from_name": self.control, "to_name": self.target, "type": "choices"}
        return [{**names, "value": {"choices": [*choices]}, **score}]


def read_config(xml: str) -> LabelingConfig:
    """Return the first choices of a labelling config. Raises ConfigError."""
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise ConfigError("the labelling config must not declare entities")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - without entities
    except ET.ParseError as error:
        raise ConfigError(f"the labelling config is not XML: {error}") from None
    control = next((tag for tag in root.iter("Choices") if tag.get("name") and tag.get("toName")), None)
    if control is None:
        raise ConfigError("the labelling config has no <Choices> with name and toName, which are what is learned")
    target = control.attrib["toName"].split(",")[0].strip()
    about = next((tag for tag in root.iter() if tag.get("name") == target), None)
    value = "" if about is None else about.get("value", "")
    return LabelingConfig(
        control=control.attrib["name"],
        target=target,
        classes=tuple(choices_of(control)),
        has_several=control.get("choice") == "multiple",
        field=value[1:] if value.startswith("$") else None,
        is_text=about is not None and about.tag in TEXT_TAGS,
    )


def choices_of(control: ET.Element) -> Iterable[str]:
    """Yield the choices as annotations have them: by their alias, or else by their value."""
    for choice in control.iter("Choice"):
        name = choice.get("alias") or choice.get("value")
        if name:
            yield name


@dataclass(frozen=True, slots=True)
class TaskFields:
    """Which fields of a task are its text or vector, and its address; without, the text that the config shows."""

    text: str | None = None
    vector: str | None = None
    url: str | None = None

    def content_of(self, data: Mapping[str, Any], config: LabelingConfig) -> str | list[float] | None:
        """Return the text or vector of a task, None if it has none."""
        if self.vector is not None:
            return vector_or_none(data.get(self.vector))
        if self.text is None and not config.is_text:
            # A picture or a sound: its vector stands in another field.
            return next((vector for vector in map(vector_or_none, data.values()) if vector), None)
        text = data.get(self.text or config.field or "")
        return None if text in (None, "") else str(text)

    def url_of(self, data: Mapping[str, Any]) -> str | None:
        """Return the address of a task, None without a field for it."""
        return None if self.url is None else str(data.get(self.url) or "")


def vector_or_none(value: object) -> list[float] | None:
    """Return a list of numbers, None for anything else."""
    is_vector = isinstance(value, list) and value and all(type(number) in (int, float) for number in value)
    return value if is_vector and isinstance(value, list) else None


def answers_of(config: LabelingConfig, annotations: Iterable[Annotation]) -> dict[str, str | list[str] | None]:
    """Return the last answer of each annotator, as `answer_in` does."""
    return {who: answer_in(config, annotation) for who, annotation in last_of_annotators(annotations).items()}


def answer_in(config: LabelingConfig, annotation: Annotation) -> str | list[str] | None:
    """Return the choice of an annotation, or None if the task was skipped or sent without a choice."""
    return None if annotation.get("was_cancelled", False) else config.answer_in(annotation["result"])


def last_of_annotators(annotations: Iterable[Annotation]) -> dict[str, Annotation]:
    """Return the last annotation of each annotator."""
    last: dict[str, Annotation] = {}
    for annotation in sorted(annotations, key=lambda each: str(each.get("updated_at", ""))):
        annotator = annotation["completed_by"]
        if isinstance(annotator, Mapping):
            annotator = annotator["id"]
        last[str(annotator)] = annotation
    return last
