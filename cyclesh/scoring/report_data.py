"""What a report is made of: plain data, so that a finished run can be reported on again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cyclesh.scoring.cases import CaseScore


class Event(NamedTuple):
    """Where a stretch of a run begins: a phase, or the decay of the rates."""

    step: int
    name: str


@dataclass(frozen=True)
class CaseImages:
    """The volumes of one test case, on one grid; None for what the run does not have.

    Volumes are (z, y, x), indices growing to the patient's superior, anterior and right (RAS+
    transposed). Images are float32 in [-1, 1], labels uint8 class indices.
    """

    case: str
    source_modality: str
    target_modality: str
    source: np.ndarray
    translation: np.ndarray | None = None
    reconstruction: np.ndarray | None = None
    truth: np.ndarray | None = None  # the true volume of the target modality, of a paired case
    label: np.ndarray | None = None
    predicted_source: np.ndarray | None = None  # by the run's own segmentor
    predicted_translation: np.ndarray | None = None  # by the judge, as the S-score has it
    s_score: float | None = None


@dataclass(frozen=True)
class ReportData:
    """One run. Everything but the first four fields may be missing: the report says so."""

    title: str
    modalities: tuple[str, str]
    structures: tuple[str, ...]
    spacing_mm: tuple[float, float, float]  # z, y, x
    results: Mapping[str, Any]  # the content of results.json
    metrics: Sequence[Mapping[str, Any]] = ()  # the rows of metrics.jsonl
    events: Sequence[Event] = ()  # in order; the first stretch begins at step 0
    case_scores: Sequence[CaseScore] = ()  # the rows of cases.csv
    # One row a case and structure of its synthetic volume: `modality` is the volume's.
    s_scores: Sequence[CaseScore] = ()
    cases: Sequence[CaseImages] = ()
    warnings: tuple[str, ...] = ()
    attribution: str = ""  # whom to name beside every picture of the data
