"""How well a model separates: scores, and what they are worth."""

from htdemucs.evaluation.document import to_document, write_document
from htdemucs.evaluation.estimates import FileEstimator, ModelEstimator
from htdemucs.evaluation.evaluate import Evaluation, evaluate
from htdemucs.evaluation.metrics import (
    METRICS,
    ScoreMeter,
    StemScores,
    museval_frames,
    museval_sdr,
    nsdr,
    si_sdr,
)
from htdemucs.evaluation.options import EvaluationOptions
from htdemucs.evaluation.report import to_html, write_report
from htdemucs.evaluation.scoring import TrackResult, score_track
from htdemucs.evaluation.tracks import Track, TrackReader, find_tracks

__all__ = [
    "METRICS",
    "Evaluation",
    "EvaluationOptions",
    "FileEstimator",
    "ModelEstimator",
    "ScoreMeter",
    "StemScores",
    "Track",
    "TrackReader",
    "TrackResult",
    "evaluate",
    "find_tracks",
    "museval_frames",
    "museval_sdr",
    "nsdr",
    "score_track",
    "si_sdr",
    "to_document",
    "to_html",
    "write_document",
    "write_report",
]
