"""Evaluation: scores of a model or of separated files, beside known stems."""

from htdemucs.evaluation.dataset import (
    Multitrack,
    MultitrackReader,
    find_multitracks,
    read_multitrack,
)
from htdemucs.evaluation.estimates import FileEstimator, ModelEstimator
from htdemucs.evaluation.evaluate import Evaluation, evaluate
from htdemucs.evaluation.json_report import to_document, write_document
from htdemucs.evaluation.metrics import (
    METRICS,
    ScoreMeter,
    StemScores,
    museval_frames,
    museval_sdr,
    nsdr,
    si_sdr,
)
from htdemucs.evaluation.report import to_html, write_report
from htdemucs.evaluation.scoring import EvaluationOptions, TrackResult, score_track

__all__ = [
    "METRICS",
    "Evaluation",
    "EvaluationOptions",
    "FileEstimator",
    "ModelEstimator",
    "Multitrack",
    "MultitrackReader",
    "ScoreMeter",
    "StemScores",
    "TrackResult",
    "evaluate",
    "find_multitracks",
    "museval_frames",
    "museval_sdr",
    "nsdr",
    "read_multitrack",
    "score_track",
    "si_sdr",
    "to_document",
    "to_html",
    "write_document",
    "write_report",
]
