"""The published networks' keywords, and their translation into our configurations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from htdemucs.errors import CheckpointError
from htdemucs.model import NetworkConfig
from htdemucs.model.family import CONFIGS, kind
from htdemucs.weights import assembly

# The published constructors' keywords and their defaults, in order: a checkpoint may pass them by
# position.
_HTDEMUCS: dict[str, Any] = {
    "sources": None,
    "audio_channels": 2,
    "channels": 48,
    "channels_time": None,
    "growth": 2,
    "nfft": 4096,
    "wiener_iters": 0,
    "end_iters": 0,
    "wiener_residual": False,
    "cac": True,
    "depth": 4,
    "rewrite": True,
    "multi_freqs": None,
    "multi_freqs_depth": 3,
    "freq_emb": 0.2,
    "emb_scale": 10,
    "emb_smooth": True,
    "kernel_size": 8,
    "time_stride": 2,
    "stride": 4,
    "context": 1,
    "context_enc": 0,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 1,
    "dconv_depth": 2,
    "dconv_comp": 8,
    "dconv_init": 1e-3,
    "bottom_channels": 0,
    "t_layers": 5,
    "t_emb": "sin",
    "t_hidden_scale": 4.0,
    "t_heads": 8,
    "t_dropout": 0.0,
    "t_max_positions": 10000,
    "t_norm_in": True,
    "t_norm_in_group": False,
    "t_group_norm": False,
    "t_norm_first": True,
    "t_norm_out": True,
    "t_max_period": 10000.0,
    "t_weight_decay": 0.0,
    "t_lr": None,
    "t_layer_scale": True,
    "t_gelu": True,
    "t_weight_pos_embed": 1.0,
    "t_sin_random_shift": 0,
    "t_cape_mean_normalize": True,
    "t_cape_augment": True,
    "t_cape_glob_loc_scale": (5000.0, 1.0, 1.4),
    "t_sparse_self_attn": False,
    "t_sparse_cross_attn": False,
    "t_mask_type": "diag",
    "t_mask_random_seed": 42,
    "t_sparse_attn_window": 500,
    "t_global_window": 100,
    "t_sparsity": 0.95,
    "t_auto_sparsity": False,
    "t_cross_first": False,
    "rescale": 0.1,
    "samplerate": 44100,
    "segment": 10,
    "use_train_segment": True,
}
_HDEMUCS: dict[str, Any] = {
    "sources": None,
    "audio_channels": 2,
    "channels": 48,
    "channels_time": None,
    "growth": 2,
    "nfft": 4096,
    "wiener_iters": 0,
    "end_iters": 0,
    "wiener_residual": False,
    "cac": True,
    "depth": 6,
    "rewrite": True,
    "hybrid": True,
    "hybrid_old": False,
    "multi_freqs": None,
    "multi_freqs_depth": 2,
    "freq_emb": 0.2,
    "emb_scale": 10,
    "emb_smooth": True,
    "kernel_size": 8,
    "time_stride": 2,
    "stride": 4,
    "context": 1,
    "context_enc": 0,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 1,
    "dconv_depth": 2,
    "dconv_comp": 4,
    "dconv_attn": 4,
    "dconv_lstm": 4,
    "dconv_init": 1e-4,
    "rescale": 0.1,
    "samplerate": 44100,
    "segment": 40,
}
_DEMUCS: dict[str, Any] = {
    "sources": None,
    "audio_channels": 2,
    "channels": 64,
    "growth": 2.0,
    "depth": 6,
    "rewrite": True,
    "lstm_layers": 0,
    "kernel_size": 8,
    "stride": 4,
    "context": 1,
    "gelu": True,
    "glu": True,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 1,
    "dconv_depth": 2,
    "dconv_comp": 4,
    "dconv_attn": 4,
    "dconv_lstm": 4,
    "dconv_init": 1e-4,
    "normalize": True,
    "resample": True,
    "rescale": 0.1,
    "samplerate": 44100,
    "segment": 40,
}

Values = Mapping[str, Any]  # every keyword with its value
_OUR_NAMES = {"nfft": "n_fft", "samplerate": "sample_rate"}
_SCALARS = (type(None), bool, int, float, str, Fraction)


@dataclass(frozen=True)
class Keywords:
    """The keywords of one kind of network.

    Attributes:
        kind: the kind's name.
        defaults: every keyword and its default, in order.
        inert: keywords without effect on a trained network whose other keywords are all supported:
            settings of features that are off, of the initial values, or of the optimiser. They are
            not compared with the defaults, because released checkpoints have others (a sparse
            attention window of 400, for one).
        harmless: keywords that may differ from the default as long as the feature stays off.
    """

    kind: str
    defaults: Values
    inert: frozenset[str]
    harmless: Mapping[str, Callable[[Any, Values], bool]]

    @property
    def fields(self) -> dict[str, str]:
        """Keyword -> field of the configuration with the same meaning."""
        names = {name: _OUR_NAMES.get(name, name) for name in self.defaults}
        known = CONFIGS[self.kind].__dataclass_fields__
        return {name: field for name, field in names.items() if field in known}


KEYWORDS = {
    keywords.kind: keywords
    for keywords in (
        Keywords(
            "HTDemucs",
            _HTDEMUCS,
            inert=frozenset(
                {
                    "multi_freqs_depth",  # multi_freqs is off
                    "emb_smooth",  # initial values
                    "time_stride",  # used only where the branches merge, which depth rules out
                    "norm_groups",  # norm_starts keeps these norms out
                    "t_max_positions",  # t_emb is "sin"
                    "t_norm_in_group",  # t_norm_in takes precedence
                    "t_weight_decay",
                    "t_lr",
                    "t_cape_mean_normalize",
                    "t_cape_augment",
                    "t_cape_glob_loc_scale",
                    "t_mask_type",  # attention is dense
                    "t_mask_random_seed",
                    "t_sparse_attn_window",
                    "t_global_window",
                    "t_sparsity",
                    "t_auto_sparsity",
                }
            ),
            harmless={
                "channels_time": lambda value, values: value in (None, values["channels"]),
                "multi_freqs": lambda value, _: not value,
                "norm_starts": lambda value, values: bool(value >= values["depth"]),
            },
        ),
        Keywords(
            "HDemucs",
            _HDEMUCS,
            inert=frozenset({"emb_smooth", "wiener_residual"}),  # the latter adds up to nothing
            harmless={
                "channels_time": lambda value, values: value in (None, values["channels"]),
                "wiener_iters": lambda value, values: value == 0 or bool(values["cac"]),
                "end_iters": lambda value, values: value == 0 or bool(values["cac"]),
            },
        ),
        Keywords("Demucs", _DEMUCS, inert=frozenset(), harmless={}),
    )
}


def to_config(kind: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> NetworkConfig:
    """Return the configuration that a checkpoint's constructor arguments describe.

    Raises:
        CheckpointError: a keyword asks for a feature that this network lacks; the message names it.
    """
    known = KEYWORDS[kind]
    if len(args) > len(known.defaults):
        raise CheckpointError(
            f"the checkpoint passes {len(args)} arguments, too many to be genuine"
        )
    by_position = dict(zip(known.defaults, args, strict=False))
    if twice := sorted(by_position.keys() & keywords.keys()):
        raise CheckpointError(f"the checkpoint passes {twice[0]} twice; download it again")
    arguments = {name: _simple(value) for name, value in (by_position | dict(keywords)).items()}
    values = {**known.defaults, **arguments}
    for name in arguments:
        if not _supported(known, name, values):
            raise CheckpointError(
                f"the checkpoint sets {assembly.shown(name)}={assembly.shown(values[name])}, which "
                f"no released {kind} has and this package cannot run"
            )
    fields = {field: _whole(values[name]) for name, field in known.fields.items()}
    if "multi_freqs" in fields:
        fields["multi_freqs"] = fields["multi_freqs"] or ()
    return assembly.configuration(kind, fields)


def from_config(config: NetworkConfig) -> dict[str, Any]:
    """Return the published constructor's keywords for this configuration."""
    known = KEYWORDS[kind(config)]
    values = {name: getattr(config, field) for name, field in known.fields.items()}
    if "norm_starts" not in known.fields and "norm_starts" in known.defaults:
        values["norm_starts"] = max(4, config.depth)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _supported(known: Keywords, name: str, values: Values) -> bool:
    if name in known.fields or name in known.inert:
        return True
    value = values[name]
    if name not in known.defaults:
        return value in (None, False, 0, "", [], {}, ())  # an unknown feature, switched off
    if name in known.harmless:
        try:
            return known.harmless[name](value, values)
        except TypeError:
            return False
    return bool(value == known.defaults[name])


def _simple(value: Any) -> Any:
    """Return a simple value, or else its type, which is safe to compare and to print."""
    if type(value) in _SCALARS or (isinstance(value, dict) and not value):
        return value
    if isinstance(value, list | tuple) and all(type(item) in _SCALARS for item in value):
        return list(value)
    return type(value)


def _whole(value: Any) -> Any:
    """Return a whole float as an integer, so that growth=2.0 is growth=2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
