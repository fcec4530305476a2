"""Evaluation: scores of a model, or of stems in files, against the true stems.

Start reading at `scoring.py` (one track), then `evaluate.py` (a folder of tracks) and `dataset.py`
(which file is which stem). `compare.py` compares the JSON files of two runs. This package imports
separation and everything below it; the command line and training import this package. To add a
metric: `METRICS` and `StemScores` in metrics.py, `_definitions` in json_report.py, and the schema.
To add a name of stems or mixtures: `STEM_ALIASES` and `MIXTURE_NAMES` in dataset.py. To read
another program's output: `NAMINGS` in estimates.py.
"""

from htdemucs.evaluation.compare import compare
from htdemucs.evaluation.dataset import (
    Multitrack,
    MultitrackReader,
    find_multitracks,
    read_multitrack,
)
from htdemucs.evaluation.estimates import FileEstimator, ModelEstimator
from htdemucs.evaluation.evaluate import Evaluation, evaluate
from htdemucs.evaluation.json_report import to_document, write_document, write_json
from htdemucs.evaluation.metrics import (
    BLEED_METRICS,
    DEFAULT_METRICS,
    METRICS,
    ScoreMeter,
    StemScores,
    museval_frames,
    museval_sdr,
    nsdr,
    si_sdr,
)
from htdemucs.evaluation.report import (
    comparison_to_html,
    to_html,
    write_comparison_report,
    write_report,
)
from htdemucs.evaluation.scoring import EvaluationOptions, TrackScores, score_track

__all__ = [
    "BLEED_METRICS",
    "DEFAULT_METRICS",
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
    "compare",
    "comparison_to_html",
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
    "write_comparison_report",
    "write_document",
    "write_json",
    "write_report",
]
