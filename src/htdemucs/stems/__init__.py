"""One track: from its file to files of its stems."""

from htdemucs.stems.options import OutputOptions
from htdemucs.stems.separate import SeparatedFile, separate_file

__all__ = ["OutputOptions", "SeparatedFile", "separate_file"]
