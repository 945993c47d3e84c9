"""The scores of a model, cached for the next query."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

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
        # The model is second, where the store looks for files that a newer state does not name.
        numbers = tuple(each.number for each in project.segments)
        # Texts are weighted by those of all segments, and a missing value may be replaced by the median of all.
        needs_all = project.n_texts is not None or project.allows_missing
        rows = numbers[segment : segment + 1], numbers if needs_all else ()
        key = (project.pool_id, model_file(project.model.version), *rows, scoring)
        known: SegmentScores = self.cache.get_or_make(
            key, lambda: (SegmentScores.unknown(n_rows, n_chunks), 8 * n_rows + n_chunks), "scores"
        )
        return known
