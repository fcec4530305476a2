"""The engine: blocks of a waveform in, blocks of its stems out; no files.

Start with `Separator.stream` in `separator.py`. It cuts the track into segments (`chunking.py`),
runs the network on batches of them (`runner.py`) and adds the outputs up again. `live.py` does the
same with a constant delay; `realtime.py` runs it in a thread beside a sound card, and
`live_tuning.py` chooses the delay for a machine. This package imports `weights/`, `fast/`, `audio/`
and the packages below them.

To add a setting: give it a default in `settings.py` and read it in `Separator.__init__`; if stems
depend on it, add it to `Separator.settings`.
"""

from htdemucs.separation.live import LiveSeparator, Timing
from htdemucs.separation.normalization import Normalization, measure
from htdemucs.separation.realtime import RealTimeSeparator
from htdemucs.separation.separator import OutputCache, Separator

__all__ = [
    "LiveSeparator",
    "Normalization",
    "OutputCache",
    "RealTimeSeparator",
    "Separator",
    "Timing",
    "measure",
]
