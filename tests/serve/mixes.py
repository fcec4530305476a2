"""Settings of the mixer, on which the server's exports, the live mixer and the page must agree."""

STEMS = ("drums", "bass", "other", "vocals")

# (settings of each stem, the resulting factors of its left and right channel)
MIXES = [
    ({}, [[1, 1], [1, 1], [1, 1], [1, 1]]),
    (
        {"drums": {"gain": 0.5}, "vocals": {"gain": 1.5}},
        [[0.5, 0.5], [1, 1], [1, 1], [1.5, 1.5]],
    ),
    ({"bass": {"pan": -0.3}, "other": {"pan": 1}}, [[1, 1], [1, 0.7], [0, 1], [1, 1]]),
    ({"vocals": {"mute": True}}, [[1, 1], [1, 1], [1, 1], [0, 0]]),
    (
        {"drums": {"solo": True, "gain": 0.7, "mute": True}, "bass": {"mute": True}},
        [[0.7, 0.7], [0, 0], [0, 0], [0, 0]],
    ),
    (
        {"vocals": {"gain": 0.5, "pan": 0.4}, "bass": {"gain": 1.2}, "drums": {"mute": True}},
        [[0, 0], [1.2, 1.2], [1, 1], [0.3, 0.5]],
    ),
]
