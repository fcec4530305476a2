"""Notes become drums, bass and other: soundfonts, drum kits, synthesizers."""
