"""Words become vocals: spoken phrases, sung to melodies."""
