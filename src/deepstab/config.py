"""The one typed schema of params.yaml, loaded once at the edge.

Every function takes its own section, never the tree, and no code holds a default that shadows
the file: a key that is missing there is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from deepstab.errors import ParameterError, short_repr

_MAX_KEYS = 1000
_MAX_PROBLEMS = 20
# PyYAML follows YAML 1.1, where `1e-4` is a string; DVC's ruamel follows 1.2, where it is a float.
_EXPONENT_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _parse_exponent(value: Any) -> Any:
    if isinstance(value, str) and _EXPONENT_NUMBER.fullmatch(value):
        return float(value)
    return value


def _freeze_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Number = Annotated[float, BeforeValidator(_parse_exponent), Field(allow_inf_nan=False)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
HeldOutFraction = Annotated[Number, Field(gt=0, lt=1)]
# A name such as 4 is read from YAML as an integer.
VideoName = Annotated[
    str,
    BeforeValidator(lambda v: str(v) if isinstance(v, int) and not isinstance(v, bool) else v),
]
VideoNames = Annotated[tuple[VideoName, ...], BeforeValidator(_freeze_list)]
# Both encoders halve the size four times.
FrameSide = Annotated[int, Field(ge=64, le=1024, multiple_of=16)]


class Section(BaseModel):
    """Base of all parameter sections: immutable, strict about types and unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=False)


class FaultParams(Section):
    """How often a camera has a fault: shares of the generated videos, drawn independently."""

    rolling_shutter: Fraction = Field(
        description="share of videos whose rows are read one after the other, over up to 0.8 of "
        "the time between frames"
    )
    blur: Fraction = Field(
        description="share blurred along the shake, over up to half of the time between frames"
    )
    low_light: Fraction = Field(
        description="share in the dark (gamma 0.5 to 1), with the noise of few photons"
    )
    exposure: Fraction = Field(description="share whose brightness flickers or jumps")
    compression: Fraction = Field(description="share compressed strongly (x264, CRF 26 to 38)")
    stutter: Fraction = Field(description="share with one repeated or dropped frame")
    slow: Fraction = Field(description="share filmed at about 10 frames/s")
    occluder: Fraction = Field(
        description="share with something near before the camera that moves on its own"
    )


class ShakenParams(Section):
    """What all videos have in common that are shaken along a known path."""

    num_frames: int = Field(ge=32, le=100_000, description="frames per video")
    width: int = Field(ge=128, le=8192, multiple_of=2, description="video width, px")
    shake_min: Annotated[Number, Field(gt=0, le=0.2)] = Field(
        description="smallest shake amplitude, fraction of the width (standard deviation)"
    )
    shake_max: Annotated[Number, Field(gt=0, le=0.2)] = Field(
        description="largest shake amplitude, fraction of the width (standard deviation)"
    )
    faults: FaultParams

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shake_min > self.shake_max:
            raise ValueError(
                f"shake_min {self.shake_min} must not exceed shake_max {self.shake_max}"
            )
        return self


class FlightParams(ShakenParams):
    """The embedded data: a virtual drone camera over real photographs."""

    photos: str = Field(
        description="`skimage` for the photographs in scikit-image's wheel, `material` for the "
        "aerial ones of data/material.json besides, or a folder of photos to fly over besides"
    )
    num_flights: int = Field(ge=3, le=100_000, description="number of stable/unstable video pairs")
    height: int = Field(ge=128, le=8192, multiple_of=2, description="video height, px")
    frame_rate: Annotated[Number, Field(ge=1, le=1000)] = Field(description="frames per second")
    object_max: Annotated[Number, Field(ge=0.06, le=1)] = Field(
        description="largest moving object, fraction of the photo's shorter side"
    )
    parallax: Fraction = Field(
        description="share of flights in which parts of the scene are nearer than the rest"
    )


class VideosParams(ShakenParams):
    """Ordinary videos shaken by us: exact truth about real parallax, people and light."""

    folder: str = Field(
        min_length=1,
        description="folder of videos, or `material` for the list in data/material.json",
    )
    variants: int = Field(
        ge=1, le=1000, description="recordings made of each video, each shaken otherwise"
    )


class SplitParams(Section):
    """Which videos are held out; the rest train. Splits go by video, never by frame."""

    test: VideoNames | HeldOutFraction = Field(
        description="names of the test videos, or the fraction of scenes to hold out for test, at "
        "least one"
    )
    validation: VideoNames | HeldOutFraction = Field(
        description="names of the validation videos, or the fraction of scenes to hold out, at "
        "least one"
    )

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if isinstance(self.test, tuple) and isinstance(self.validation, tuple):
            both = sorted(set(self.test) & set(self.validation))
            if both:
                raise ValueError(f"videos {both} are in both test and validation")
        fractions = [x for x in (self.test, self.validation) if isinstance(x, float)]
        if sum(fractions) >= 1:
            raise ValueError("test + validation must leave videos to train on (sum below 1)")
        if isinstance(self.test, tuple) != isinstance(self.validation, tuple):
            raise ValueError("test and validation must both be lists of names or both fractions")
        return self


class DataParams(Section):
    """Where the videos come from and how they are split."""

    source: Literal["auto", "kaggle", "folder", "videos", "flights"] = Field(
        description="kaggle, folder, videos, flights; auto takes the first available of kaggle, "
        "folder and flights"
    )
    kaggle_root: str = Field(
        description="folder that holds {stable,unstable}/N.*; read by `folder` and `auto`"
    )
    kaggle_dataset: str = Field(
        pattern=r"^[\w.-]+/[\w.-]+$", description="Kaggle data set, owner/name"
    )
    kaggle_version: int = Field(
        ge=1, le=1_000_000, description="pinned version of the Kaggle data set"
    )
    on_bad_pair: Literal["error", "skip"] = Field(
        description="a video without partner, undecodable or of another size than its partner: "
        "stop, or leave the pair out, named in the manifest"
    )
    split: SplitParams
    flights: FlightParams
    videos: VideosParams


class FlowParams(Section):
    """Decoding size and Farneback optical flow (cv2.calcOpticalFlowFarneback), cached to shards."""

    height: FrameSide = Field(description="frame height for network and flow, px")
    width: FrameSide = Field(description="frame width for network and flow, px")
    pyr_scale: Annotated[Number, Field(gt=0, lt=1)] = Field(
        description="image scale between pyramid levels"
    )
    levels: int = Field(ge=1, le=12, description="pyramid levels")
    winsize: int = Field(ge=3, le=101, description="averaging window, px")
    iterations: int = Field(ge=1, le=50, description="iterations per level")
    poly_n: Literal[5, 7] = Field(description="neighborhood of the polynomial expansion, px")
    poly_sigma: Annotated[Number, Field(gt=0, le=10)] = Field(
        description="Gaussian sigma of the polynomial expansion, px"
    )
    gaussian: bool = Field(description="Gaussian instead of box averaging window")
    compression: Literal["none", "zstd"] = Field(
        description="none reads zero-copy, zstd halves the disk"
    )
    shard_mib: int = Field(ge=1, le=4096, description="largest shard, MiB before compression")


class ModelParams(Section):
    """StabGenerator and StabDiscriminator."""

    head: Literal["motion", "fc"] = Field(
        description="motion: least squares on flow, reweighted by a 3D-CNN; fc: plain regressor "
        "from pooled features"
    )
    clip_length: int = Field(ge=4, le=256, description="frames per clip")
    channels: int = Field(
        ge=4, le=128, multiple_of=4, description="channels of the networks' first stage"
    )
    smoothing_sigma: Annotated[Number, Field(gt=0, le=100)] = Field(
        description="motion head: sigma of the Gaussian that smooths the path within a clip, frames"
    )
    reweighting_steps: int = Field(
        ge=1,
        le=20,
        description="motion head: robust reweightings of the least squares, unrolled",
    )
    learned_steps: int = Field(
        ge=1, le=20, description="motion head: so many of them, the last, are the network's too"
    )
    wobble_sigma: Annotated[Number, Field(gt=0, le=100)] = Field(
        description="motion head: sigma of the Gaussian that keeps slow wobble (parallax); "
        "what it does not keep (rolling shutter) is taken out, frames"
    )

    @model_validator(mode="after")
    def _steps_to_learn(self) -> Self:
        if self.learned_steps > self.reweighting_steps:
            raise ValueError(
                f"learned_steps {self.learned_steps} must not exceed "
                f"reweighting_steps {self.reweighting_steps}"
            )
        return self


class LossParams(Section):
    """lambda_gan*BCE + lambda_pixel*L1 + lambda_vgg*perceptual + lambda_smooth*smoothness
    + lambda_identity*correction size + lambda_motion*error of the motion."""

    lambda_gan: Annotated[Number, Field(ge=0)] = Field(description="weight of the adversarial term")
    lambda_pixel: Annotated[Number, Field(ge=0)] = Field(description="weight of the masked L1 term")
    lambda_vgg: Annotated[Number, Field(ge=0)] = Field(description="weight of the perceptual term")
    lambda_smooth: Annotated[Number, Field(ge=0)] = Field(
        description="weight of the second time-derivative"
    )
    lambda_identity: Annotated[Number, Field(ge=0)] = Field(
        description="weight of the squared correction (holds the crop)"
    )
    lambda_motion: Annotated[Number, Field(ge=0)] = Field(
        description="weight of the error of the estimated motion, where the true one is known"
    )
    smooth_target: Literal["path", "theta"] = Field(
        description="path: second difference of the stabilized path; theta: of theta itself"
    )
    vgg_weights: str = Field(
        min_length=1, description="torchvision (fetched once), none, or the path of a .pth file"
    )
    vgg_frames: int = Field(ge=1, le=256, description="frames per clip given to VGG19")

    @model_validator(mode="after")
    def _vgg_weights_given(self) -> Self:
        if self.vgg_weights == "none" and self.lambda_vgg > 0:
            raise ValueError(
                f"vgg_weights is none but lambda_vgg is {self.lambda_vgg}: "
                "set lambda_vgg to 0 or name the weights (torchvision or a path)"
            )
        return self


class TrainParams(Section):
    """Optimization."""

    epochs: int = Field(ge=1, le=1_000_000, description="passes over the training videos")
    windows_per_video: int = Field(
        ge=1, le=1_000_000, description="random windows drawn from each training video per epoch"
    )
    batch_size: int = Field(ge=1, le=4096, description="clips per step of each process")
    lr_g: Annotated[Number, Field(gt=0)] = Field(description="Adam learning rate of the generator")
    lr_d: Annotated[Number, Field(gt=0)] = Field(
        description="Adam learning rate of the discriminator"
    )
    lr_decay: Literal["none", "cosine"] = Field(
        description="both learning rates: the same throughout, or falling to a twentieth"
    )
    beta1: Annotated[Number, Field(ge=0, lt=1)] = Field(description="Adam beta 1")
    beta2: Annotated[Number, Field(ge=0, lt=1)] = Field(description="Adam beta 2")
    select_by: Literal["psnr", "motion_error"] = Field(
        description="validation figure by which the best epoch is kept; motion_error needs videos "
        "whose true motion is known"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(description="where to train")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        description="fp32, or Accelerate's mixed precision"
    )
    loader_workers: int = Field(ge=0, le=64, description="processes that read shards; 0: none")


class EvaluateParams(Section):
    """Measures on held-out videos."""

    window_stride: int = Field(ge=1, description="frames between the starts of blended windows")
    cropped_ssim_border: Annotated[Number, Field(ge=0, lt=0.5)] = Field(
        description="fraction cut from every side before SSIM"
    )


class TrackingParams(Section):
    """MLflow."""

    experiment: str = Field(min_length=1, description="name of the MLflow experiment")
    log_model: bool = Field(
        description="keep the model in MLflow's own format too, which `deepstab promote` needs; "
        "exporting and checking it takes seconds"
    )


class RegistryParams(Section):
    """When `deepstab promote` makes a model the champion. No stage reads it."""

    name: str = Field(
        pattern=r"^[^/:.@]+$", description="name of the registered model, models:/NAME@champion"
    )
    metric: str = Field(
        min_length=1, description="measure of the stabilized test videos, as in metrics.json"
    )
    direction: Literal["lower", "higher"] = Field(description="which values are better")
    min_improvement: Annotated[Number, Field(ge=0)] = Field(
        description="how much better than the champion's it must be, in the measure's own unit"
    )


class NetworkParams(Section):
    """What it takes to use a trained network: the part of params.yaml its checkpoint is read by."""

    flow: FlowParams
    model: ModelParams


class Params(Section):
    """The whole of params.yaml."""

    seed: int = Field(ge=0, lt=2**31, description="seed of data, initialization and sampling")
    data: DataParams
    flow: FlowParams
    model: ModelParams
    loss: LossParams
    train: TrainParams
    evaluate: EvaluateParams
    tracking: TrackingParams
    registry: RegistryParams

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.evaluate.window_stride > self.model.clip_length:
            raise ValueError(
                f"evaluate.window_stride {self.evaluate.window_stride} must not exceed "
                f"model.clip_length {self.model.clip_length}: frames would be left out"
            )
        for name in ("flights", "videos"):
            num_frames = getattr(self.data, name).num_frames
            if num_frames < self.model.clip_length:
                raise ValueError(
                    f"data.{name}.num_frames {num_frames} must reach "
                    f"model.clip_length {self.model.clip_length}"
                )
        return self

    @property
    def network(self) -> NetworkParams:
        """The sections a checkpoint is read by."""
        return NetworkParams(flow=self.flow, model=self.model)


def parse_params(tree: object, *, origin: str) -> Params:
    """Validate a parameter tree.

    Args:
        tree: nested mappings, as read from YAML or a checkpoint.
        origin: where it came from, named in errors.

    Raises:
        ParameterError: one line naming every bad key, its value and what is allowed.
    """
    return _validate(Params, tree, origin=origin)


def parse_network_params(tree: object, *, origin: str) -> NetworkParams:
    """Validate the sections of a parameter tree that describe the network; others may have changed.

    Args:
        tree: nested mappings, as read from a checkpoint.
        origin: where it came from, named in errors.

    Raises:
        ParameterError: as `parse_params`.
    """
    if isinstance(tree, dict):
        tree = {name: tree[name] for name in NetworkParams.model_fields if name in tree}
    return _validate(NetworkParams, tree, origin=origin)


def load_params(path: Path) -> Params:
    """Read and validate a parameter file.

    Raises:
        ParameterError: the file is missing, is no YAML, or holds a bad value.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise ParameterError(
            f"{path}: no such parameter file; run from the project root or pass --params"
        ) from None
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    except RecursionError:
        raise ParameterError(f"{path}: nested too deep; correct its brackets") from None
    # PyYAML stumbles over what is no such thing: a date 2024-99-99, `!!int x`, `!!bool x`.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ParameterError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse_params(tree, origin=str(path))


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which no key of a section may stand twice; PyYAML would take the last, DVC none."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} stands twice; remove one", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        # A few lines of `<<` can merge into gigabytes.
        if len(node.value) > _MAX_KEYS:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {_MAX_KEYS} keys in one section", node.start_mark
            )


def flatten(params: Section, prefix: str = "") -> dict[str, str | int | float | bool | list[str]]:
    """Dotted keys as in params.yaml (`train.lr_g`) to plain values."""
    flat: dict[str, str | int | float | bool | list[str]] = {}
    for name in type(params).model_fields:
        value = getattr(params, name)
        if isinstance(value, Section):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


SomeSection = TypeVar("SomeSection", bound=Section)


def _validate(schema: type[SomeSection], tree: object, *, origin: str) -> SomeSection:
    if not isinstance(tree, dict):
        raise ParameterError(f"{origin}: expected a mapping of sections, found {short_repr(tree)}")
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        problems = list(dict.fromkeys(_describe(e) for e in error.errors()))
        if len(problems) > _MAX_PROBLEMS:
            problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more"]
        raise ParameterError(f"{origin}: {'; '.join(problems)}") from None


def _describe(error: Any) -> str:
    # Union branches (list of names | fraction) appear in the location: keep the keys alone.
    key = ".".join(str(part) for part in error["loc"] if _is_key(part)) or "parameters"
    value = short_repr(error["input"])
    match error["type"]:
        case "missing":
            return f"{key} is missing; copy it from params.yaml as delivered"
        case "extra_forbidden":
            key = ".".join(map(str, error["loc"]))
            return f"{key} is no known parameter (value {value}); remove or correct it"
        case "value_error":
            return f"{key}: {error['ctx']['error']}"
        case _:
            return f"{key}: {value} is not allowed: {error['msg']}"


def _is_key(part: object) -> bool:
    return isinstance(part, str) and part.isidentifier() and part not in {"float", "tuple"}
