"""What decoding a file found out about it: its length, damage, assumptions and gaps."""

from dataclasses import dataclass

TOLERANCE = 0.010  # seconds that audio may be late without a warning


@dataclass
class DecodeReport:
    """Counts and times of one pass over a file.

    Attributes:
        source_length: samples so far, at the sample rate that the file starts with.
        skipped_packets: packets left out because they do not decode.
        replaced_samples: invalid samples, replaced by 0.
        unsupported_format: FFmpeg's name of a sample format that cannot be converted.
        layout_warning: how channels without a known position were mixed.
        late: seconds from the beginning of the file to the first sample, if neither is silence.
        gaps: seconds in all without samples after the first one.
    """

    source_length: int = 0
    skipped_packets: int = 0
    replaced_samples: int = 0
    unsupported_format: str | None = None
    layout_warning: str | None = None
    late: float = 0.0
    gaps: float = 0.0

    def warnings(self, *, gaps_filled: bool) -> tuple[str, ...]:
        """Return sentences for the user; gaps that were filled with silence are not mentioned."""
        warnings = []
        if self.skipped_packets:
            warnings.append(f"{_count(self.skipped_packets, 'damaged packet')} left out")
        if self.replaced_samples:
            warnings.append(f"{_count(self.replaced_samples, 'invalid sample')} replaced by 0")
        if self.layout_warning:
            warnings.append(self.layout_warning)
        missing = []
        if self.late > TOLERANCE:
            missing.append(f"starts {self.late:.3f} s late")
        if self.gaps > TOLERANCE:
            missing.append(f"has gaps of {self.gaps:.3f} s in all")
        if missing and not gaps_filled:
            warnings.append(
                f"the audio {' and '.join(missing)}; set align to video to insert silence"
            )
        return tuple(warnings)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} was" if number == 1 else f"{number} {noun}s were"
