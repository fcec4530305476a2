import numpy as np

from htdemucs.serve.preview import COLUMN
from htdemucs.serve.spectrogram import MARGIN, frames_needed, spectrogram, wide_spectrogram


def test_a_spectrogram_shows_a_tone_where_it_is():
    time = np.arange(frames_needed(8)) - MARGIN
    tone = np.where(time < 4 * COLUMN, 0, np.sin(2 * np.pi * 1000 * time / 44_100))
    samples = np.rint(32767 * tone).astype(np.int16)[:, None]
    picture = spectrogram(samples, 44_100, 8)
    assert picture.shape == (8, 96)
    assert not picture[0].any()
    assert picture[7].max() >= 250
    assert abs(int(picture[7].argmax()) - int(picture[6].argmax())) == 0
    low = spectrogram(
        np.rint(32767 * np.sin(2 * np.pi * 100 * time / 44_100)).astype(np.int16)[:, None],
        44_100,
        8,
    )
    assert low[3].argmax() < picture[7].argmax()


def test_wide_columns_of_a_spectrogram_are_as_loud_as_their_loudest(client):
    noise = np.random.default_rng(0).integers(-9000, 9000, (400 * COLUMN, 2), dtype=np.int16)

    def read(start, frames):
        return np.pad(
            noise[start : start + frames], ((0, max(0, start + frames - len(noise))), (0, 0))
        )

    narrow = wide_spectrogram(read, 44_100, 0, 160, 1)
    joined = narrow.reshape(40, 4, 96).max(1)
    np.testing.assert_array_equal(wide_spectrogram(read, 44_100, 0, 40, 4), joined)
    np.testing.assert_array_equal(wide_spectrogram(read, 44_100, 7, 33, 4), joined[7:])
    looked = narrow[::4].reshape(10, 4, 96).max(1)  # four places of each
    np.testing.assert_array_equal(wide_spectrogram(read, 44_100, 0, 10, 16), looked)
    answer = client.get("/api/tracks/x/spectrogram?stem=drums&step=3")
    assert "power of two" in answer.json()["error"]
