"""One track: from its file to the files of its stems.

Start with `separate_track` in track.py, then writer.py. manifest.py records how stems were made,
paths.py names files, output_options.py has all options for them. pipe.py and live_player.py
separate audio while it arrives; mixer.py mixes it. Imports `separation` and the layers below.
An output format is added in `htdemucs.formats`; an option of the files in `OutputOptions`,
where `writer.Postprocessor` reads it.
"""

from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.track import separate_file

__all__ = ["OutputOptions", "separate_file"]
