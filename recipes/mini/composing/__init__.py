"""What is played: scores, notes, drum patterns, chord charts and MIDI. Nothing sounds yet."""
