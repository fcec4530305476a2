"""The network seen from inside: the size of the data at every stage, and the data itself.

`trace` is the door. Start reading in `stages.py`, which says what is known about a stage, and
`walk.py`, which follows each module's `forward` and explains every size by a formula. `run.py` runs
the network and gives each stage its tensor. `figure.py` draws the stages, and `page.py` makes the
page that shows the data of a song.

This package may import `separation`, `weights`, `audio` and `model`. A new module in a network
needs a method in `walk.py`; a test compares the sizes and operations of each with real runs.
"""

from htdemucs.tracing.run import run, trace
from htdemucs.tracing.stages import Resolution, Size, Stage
from htdemucs.tracing.walk import stages_of

__all__ = ["Resolution", "Size", "Stage", "run", "stages_of", "trace"]
