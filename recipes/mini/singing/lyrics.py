"""Random lines to sing: English words by template, other languages as free phoneme syllables."""

import numpy as np

_WORDS = {
    "verb": (
        "hold", "find", "leave", "take", "call", "love", "need", "want", "feel", "break", "follow",
        "remember", "carry", "lose", "chase", "believe", "burn", "save", "hear", "catch", "forget",
        "touch", "shake", "wake", "watch", "dream",
    ),
    "noun": (
        "night", "fire", "light", "river", "heart", "city", "shadow", "morning", "summer", "ocean",
        "window", "mirror", "thunder", "silver", "highway", "stranger", "winter", "garden",
        "signal", "engine", "satellite", "color", "story", "feeling", "diamond", "rhythm",
        "machine", "paradise", "echo", "skyline",
    ),
    "adjective": (
        "golden", "broken", "silent", "electric", "endless", "lonely", "crazy", "distant",
        "hollow", "beautiful", "bitter", "perfect", "neon", "heavy", "gentle", "wild", "foolish",
        "sweet",
    ),
    "place": (
        "tonight", "over the ocean", "under the city lights", "all the way down",
        "in the morning", "into the blue", "out on the floor", "beside you", "again and again",
        "forever", "through the fire", "on the other side",
    ),
    "person": ("you", "me", "us", "them", "him", "her", "somebody", "nobody", "everyone"),
}  # fmt: skip
_TEMPLATES = (
    "{verb} {person} {place}",
    "I {verb} the {adjective} {noun}",
    "we {verb} every {noun} {place}",
    "you are my {adjective} {noun}",
    "don't {verb} my {noun}",
    "baby, {verb} {person}",
    "the {noun} and the {noun} {place}",
    "{adjective} {noun}, {adjective} {noun}",
    "never gonna {verb} {person}",
    "why do you {verb} the {noun}",
    "so {adjective}",
    "{place}",
)
_AD_LIBS = (
    "oh oh oh, yeah",
    "la la la la la",
    "na na na na, hey hey",
    "ooh, ooh",
    "yeah, yeah, come on",
    "woah oh, woah oh",
    "hey!",
    "uh huh, alright",
    "ah, ah, ah",
)
_ONSETS = (
    "m", "n", "s", "t", "k", "p", "b", "d", "l", "ɾ", "h", "j", "f", "v", "z", "ʃ", "ɡ", "ts", "ʧ",
    "tɾ", "st",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ɔ", "ɛ", "ø")


def line(rng: np.random.Generator) -> str:
    """Draw a line of English words; about one in six is an ad-lib."""
    if rng.random() < 0.16:
        return str(rng.choice(_AD_LIBS))
    template = str(rng.choice(_TEMPLATES))
    while "{" in template:
        slot = template[template.index("{") + 1 : template.index("}")]
        template = template.replace(f"{{{slot}}}", str(rng.choice(_WORDS[slot])), 1)
    return template


def syllables(rng: np.random.Generator) -> str:
    """Draw the phonemes of a line in no particular language, as open syllables."""
    count = int(rng.integers(4, 10))
    words = [
        f"ˈ{rng.choice(_ONSETS)}{rng.choice(_VOWELS)}" + ("n" if rng.random() < 0.12 else "")
        for _ in range(count)
    ]
    return " ".join("".join(words[i : i + 2]) for i in range(0, count, 2))
