import json

from htdemucs.training.log import LogEntry, TrainingLog


def entry(step, **changes):
    return LogEntry(step, 0.5, 1.0, 1.0, 2.0, 0.0, **changes)


def test_the_log_goes_on_where_the_checkpoint_was(tmp_path):
    log = TrainingLog(tmp_path, 0, tensorboard=False)
    for step in (2, 4, 6):
        log.write(entry(step))
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # cut off
    log = TrainingLog(tmp_path, 4, tensorboard=False)
    log.write(entry(5, valid={"raw": {"loss": 0.1}}))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert lines[-1]["valid"] == {"raw": {"loss": 0.1}}


def test_tensorboard_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path, 0, tensorboard=True)
    log.write(entry(3, valid={"ema 0.9": {"nsdr": 7.0}}))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.5)]
    assert [e.value for e in events.Scalars("valid ema 0.9/nsdr")] == [7.0]
