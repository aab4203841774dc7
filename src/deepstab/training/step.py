"""One optimization step of the two networks."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from torch.optim import Adam, Optimizer

from deepstab import geometry
from deepstab.config import LossParams, ModelParams, TrainParams
from deepstab.data.clips import Clip
from deepstab.errors import TrainingError
from deepstab.models.discriminator import StabDiscriminator
from deepstab.models.generator import Correction, StabGenerator
from deepstab.training import losses, processes

# Its multiples spread evenly over a pixel.
_GOLDEN_RATIO = 0.618034
# A clip that is unlike all others must not undo what these have taught.
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Networks:
    """Both networks with their optimizers; `perceptual` is None when its weight is zero."""

    generator: StabGenerator
    discriminator: StabDiscriminator
    optimizer_g: Optimizer
    optimizer_d: Optimizer
    perceptual: losses.PerceptualLoss | None


def build_networks(
    model: ModelParams, train: TrainParams, *, perceptual: losses.PerceptualLoss | None
) -> Networks:
    """Freshly initialized networks; seed torch before."""
    generator, discriminator = StabGenerator(model), StabDiscriminator(model)
    betas = (train.beta1, train.beta2)
    return Networks(
        generator,
        discriminator,
        Adam(generator.parameters(), lr=train.lr_g, betas=betas),
        Adam(discriminator.parameters(), lr=train.lr_d, betas=betas),
        perceptual,
    )


def build_accelerator(params: TrainParams) -> Accelerator:
    """The device and precision to train in.

    Raises:
        TrainingError: a GPU is asked for and there is none.
    """
    if params.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("train.device is cuda but no GPU was found; set it to auto or cpu")
    # Where an operation has no deterministic version on the device, torch warns.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Not called `no` in the file: YAML 1.1 reads that as false, and DVC drops the quotes.
    precision = "no" if params.precision == "fp32" else params.precision
    return Accelerator(cpu=processes.on_processor(params.device), mixed_precision=precision)


def prepared(networks: Networks, accelerator: Accelerator) -> Networks:
    """The networks on the accelerator's device and in its precision."""
    # Evaluation mode: without a wrapper that averages gradients by itself, see `processes`.
    return dataclasses.replace(
        networks,
        generator=accelerator.prepare_model(networks.generator, evaluation_mode=True),
        discriminator=accelerator.prepare_model(networks.discriminator, evaluation_mode=True),
        optimizer_g=accelerator.prepare_optimizer(networks.optimizer_g),
        optimizer_d=accelerator.prepare_optimizer(networks.optimizer_d),
    )


def train_step(
    networks: Networks, clip: Clip, params: LossParams, accelerator: Accelerator, *, step: int
) -> dict[str, float]:
    """Update the discriminator, then the generator, on one batch.

    Args:
        networks: changed in place, as optimizers do.
        clip: a batch of clips, or this process's share of it.
        params: the loss section.
        accelerator: does the backward passes.
        step: number of the step, for error messages.

    Returns:
        The unweighted terms, the total, and the discriminator's loss.

    Raises:
        TrainingError: a term is not finite; the parameters are as before the step.
    """
    correction = networks.generator(clip["unstable"], clip["flow"], clip["aspect"])
    stabilized, inside = geometry.warp(clip["unstable"], correction.theta)

    loss_d = stabilized.new_zeros(())
    if params.lambda_gan > 0:
        loss_d = _discriminator_loss(networks, clip, stabilized, step=step)
    terms = generator_terms(networks, clip, correction, stabilized, inside, params)
    total = terms.total(params)
    figures = _finite({**vars(terms), "total": total, "discriminator": loss_d}, step=step)
    networks.optimizer_g.zero_grad(set_to_none=True)
    accelerator.backward(total)
    processes.average_gradients(networks.generator.parameters())
    accelerator.clip_grad_norm_(networks.generator.parameters(), _LARGEST_GRADIENT)
    networks.optimizer_g.step()
    if params.lambda_gan > 0:
        # Also drops what the generator's backward pass left in the discriminator.
        networks.optimizer_d.zero_grad(set_to_none=True)
        accelerator.backward(loss_d)
        processes.average_gradients(networks.discriminator.parameters())
        networks.optimizer_d.step()
    return figures


def generator_terms(
    networks: Networks,
    clip: Clip,
    correction: Correction,
    stabilized: Float[Tensor, "batch 3 time height width"],
    inside: Float[Tensor, "batch 1 time height width"],
    params: LossParams,
) -> losses.GeneratorTerms:
    """All terms of the generator's loss; those of zero weight that cost a network are zero."""
    theta = correction.theta
    zero = theta.new_zeros(())
    if params.smooth_target == "path":
        smooth = losses.path_smoothness(theta, clip)
    else:
        smooth = losses.theta_smoothness(theta)
    gan = zero
    if params.lambda_gan > 0:
        gan = losses.adversarial(networks.discriminator(stabilized), real=True)
    vgg = zero
    if networks.perceptual is not None:
        vgg = networks.perceptual(stabilized, clip["stable"], inside)
    motion = zero
    if correction.cells is not None and correction.estimate is not None:
        motion = losses.motion_loss(correction.cells, correction.estimate, clip)
    return losses.GeneratorTerms(
        gan=gan,
        pixel=losses.masked_l1(stabilized, clip["stable"], inside),
        vgg=vgg,
        smooth=smooth,
        identity=losses.correction_size(theta, clip["aspect"]),
        motion=motion,
    )


def resampled(
    clip: Float[Tensor, "batch 3 time height width"], *, step: int
) -> Float[Tensor, "batch 3 time height width"]:
    """A clip shifted by a fraction of a pixel, another at every step.

    Stabilized clips are blurred by their warp. The generator cannot help that, so real clips are
    as well, lest the discriminator judge nothing else.
    """
    height, width = clip.shape[-2:]
    fraction = (step * _GOLDEN_RATIO) % 1
    theta = geometry.identity_theta(clip.shape[0], clip.shape[2]).to(clip)
    shift = theta.new_tensor([[0, 0, 2 * fraction / width], [0, 0, 2 * (1 - fraction) / height]])
    return geometry.warp(clip, theta + shift)[0]


def _discriminator_loss(
    networks: Networks,
    clip: Clip,
    stabilized: Float[Tensor, "batch 3 time height width"],
    *,
    step: int,
) -> losses.Scalar:
    """How badly the discriminator tells real clips from stabilized ones."""
    on_real = networks.discriminator(resampled(clip["stable"], step=step))
    on_stabilized = networks.discriminator(stabilized.detach())
    loss = losses.adversarial(on_real, real=True) / 2
    return loss + losses.adversarial(on_stabilized, real=False) / 2


def _finite(figures: dict[str, Tensor], *, step: int) -> dict[str, float]:
    """Losses of the whole batch as plain numbers.

    Raises:
        TrainingError: one is not finite.
    """
    mean = processes.mean(torch.stack([value.detach().float() for value in figures.values()]))
    values = dict(zip(figures, mean.tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"step {step}: loss term {name!r} is {value}; lower train.lr_g or train.lr_d, "
                "or that term's weight; the last good checkpoint is kept"
            )
    return values
