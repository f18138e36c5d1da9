"""The stages of a training on video, by epoch: stills, then clips with the base network held, then clips."""

from typing import NamedTuple


class Stage(NamedTuple):
    """What an epoch trains on and what learns: clips of frames with the memory switched on, or shuffled stills without
    it; the base network held as it is, or not."""

    clips: bool
    base_held: bool


def stage_of(cfg, epoch: int) -> Stage:
    """The stage of an epoch, counted from 1, by MODEL.RNN; epoch 0, where nobody knows, is one after all stages."""
    rnn = cfg.MODEL.RNN
    if not rnn.IN_USE or 0 < epoch <= rnn.USE_LSTM_AFTER_EPOCH:
        return Stage(clips=False, base_held=False)
    return Stage(clips=True, base_held=0 < epoch <= rnn.USE_LSTM_AFTER_EPOCH + rnn.FREEZE_BASE_EPOCHS)


def num_still_epochs(cfg) -> int:
    """How many of the epochs train on stills."""
    rnn, epochs = cfg.MODEL.RNN, cfg.TRAIN.MAX_EPOCHS
    return min(rnn.USE_LSTM_AFTER_EPOCH, epochs) if rnn.IN_USE else epochs
