"""Sentences for the listener about what reading a file has found."""

from dataclasses import dataclass

NOTABLE = 0.010  # seconds that audio may be away from the picture without a word


@dataclass
class Findings:
    """Counts and times of one pass over a file.

    Attributes:
        skipped_packets: packets left out because they do not decode.
        repaired_samples: samples that are no sound, replaced by 0.
        unreadable: kinds of samples that decode, but cannot be converted.
        assumption: how channels were mixed that do not say where they belong.
        late: seconds from the file's beginning to the first sample, where neither is silence.
        gaps: seconds in all that lack samples after the first one.
    """

    skipped_packets: int = 0
    repaired_samples: int = 0
    unreadable: str | None = None
    assumption: str | None = None
    late: float = 0.0
    gaps: float = 0.0

    def notes(self, *, filled: bool) -> tuple[str, ...]:
        """Return the sentences; `filled` tells that silence was put where samples are missing."""
        notes = []
        if self.skipped_packets:
            notes.append(f"{_counted(self.skipped_packets, 'damaged packet')} left out")
        if self.repaired_samples:
            notes.append(f"{_counted(self.repaired_samples, 'invalid sample')} replaced by 0")
        if self.assumption:
            notes.append(self.assumption)
        missing = []
        if self.late > NOTABLE:
            missing.append(f"starts {self.late:.3f} s late")
        if self.gaps > NOTABLE:
            missing.append(f"has gaps of {self.gaps:.3f} s in all")
        if missing and not filled:
            notes.append(f"the audio {' and '.join(missing)}; set align to video to insert silence")
        return tuple(notes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun} was" if count == 1 else f"{count} {noun}s were"
