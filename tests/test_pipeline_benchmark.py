from benchmarks import pipeline


def test_every_part_of_the_way_costs_something():
    cells = pipeline.row("wav", 48_000, minutes=0.05).strip("| ").split(" | ")
    assert cells[:2] == ["wav", "48000"]
    assert len(cells) == 4 + len(pipeline.PARTS)
    whole, decoding, resampling, *_ = map(float, cells[3:])
    assert whole > decoding > 0
    assert resampling > 0
