"""The scores of a model, cached for the next query."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from service.domain.project import Project
from service.learning.scoring import SegmentScores
from service.store.cache import Cache
from service.store.layout import model_file


@dataclass(frozen=True, slots=True, eq=False)
class ProjectScoreCache:
    """The cached scores of a project's pool under its current model."""

    cache: Cache
    project: Project

    @property
    def keeps(self) -> bool:
        """Whether scores are cached: those of a model that would not evict all else, and then one another."""
        return self.project.model is not None and 8 * self.project.n_samples <= self.cache.capacity // 2

    def segment_scores(self, scoring: Hashable, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return the known scores of a segment; scores added to them may be cached for the next query."""
        project = self.project
        if project.model is None or not self.keeps:
            return SegmentScores.unknown(n_rows, n_chunks)
        numbers = self._numbers
        # Texts are weighted by those of all segments, and a missing value may be replaced by the median of all.
        needs_all = project.n_texts is not None or project.allows_missing
        known: SegmentScores = self._get_or_make(
            (numbers[segment : segment + 1], numbers if needs_all else (), scoring),
            lambda: (SegmentScores.unknown(n_rows, n_chunks), 8 * n_rows + n_chunks),
        )
        return known

    def of_model(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Return what is cached of the model and the pool under a key, or what `make` returns, with its bytes."""
        return self._get_or_make((self._numbers, (), key), make)

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(each.number for each in self.project.segments)

    def _get_or_make(self, key: tuple[Hashable, ...], make: Callable[[], tuple[Any, int]]) -> Any:
        if self.project.model is None:
            return make()[0]
        # The model is second, where the store looks for files that a newer state does not name.
        return self.cache.get_or_make(
            (self.project.pool_id, model_file(self.project.model.version), *key), make, "scores"
        )
