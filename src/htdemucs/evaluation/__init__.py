"""Evaluation: scores of a model, or of stems in files, against the true stems.

Start reading at `scoring.py` (one track), then `evaluate.py` (a folder of tracks) and `dataset.py`
(which file is which stem). This package imports separation and everything below it; the command
line and training import this package. To add a metric: `METRICS` and `StemScores` in metrics.py. To
add a name of stems or mixtures: `STEM_ALIASES` and `MIXTURE_NAMES` in dataset.py. To read another
program's output: `NAMINGS` in estimates.py.
"""

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
from htdemucs.evaluation.scoring import EvaluationOptions, TrackScores, score_track

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
    "TrackScores",
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
