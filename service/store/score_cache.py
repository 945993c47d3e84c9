"""The scores that a model gave, kept for the next question."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from service.domain.project import Project
from service.learning.scoring import SegmentScores
from service.store.cache import Cache
from service.store.layout import model_file


@dataclass(frozen=True, slots=True, eq=False)
class ProjectScoreCache:
    """What is at hand of the scores of a project's pool under its current model."""

    cache: Cache
    project: Project

    def segment_scores(self, scoring: Hashable, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return what is known of a segment's scores; what is added to it may be there for the next question."""
        project = self.project
        # Scores that fill the memory segment by segment would drive out all else, and then one another.
        if project.model is None or 8 * project.n_samples > self.cache.capacity // 2:
            return SegmentScores.unknown(n_rows, n_chunks)
        # The model comes second, where the store looks for what a newer state does not name any more.
        key = (project.pool_id, model_file(project.model.version), project.segments[segment].number, scoring)
        known: SegmentScores = self.cache.get_or_make(
            key, lambda: (SegmentScores.unknown(n_rows, n_chunks), 8 * n_rows + n_chunks), "scores"
        )
        return known
