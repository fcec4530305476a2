"""The network made fast for the machine it runs on."""

from htdemucs.fast.precision import PRECISIONS, choose_precision, prepare

__all__ = ["PRECISIONS", "choose_precision", "prepare"]
