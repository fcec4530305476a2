"""One track: from its file to files of its stems."""

from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.track import SeparatedFile, separate_file

__all__ = ["OutputOptions", "SeparatedFile", "separate_file"]
