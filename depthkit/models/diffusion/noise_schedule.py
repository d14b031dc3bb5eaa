"""Noise schedules: DDPM's forward process and DDIM's steps back."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.masked import per_image


class PredictionType(StrEnum):
    """Outputs of the network: the noise, z_0, or sqrt(a_t) noise - sqrt(1 - a_t) z_0."""

    V_PREDICTION = "v_prediction"
    EPSILON = "epsilon"
    SAMPLE = "sample"


class Spacing(StrEnum):
    """Choices of a few timesteps among all of the schedule, named as in diffusers."""

    TRAILING = "trailing"
    LEADING = "leading"
    LINSPACE = "linspace"


class BetaSchedule(StrEnum):
    """Growth of the betas with t: linear, or with a linear square root."""

    LINEAR = "linear"
    SCALED_LINEAR = "scaled_linear"


SD2_SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}
"""Schedule of Stable Diffusion 2."""


class NoiseSchedule:
    """Noisy latents z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) noise, where a_t falls from nearly 1 with t.

    Args:
        config: ``scheduler_config.json`` of a diffusers folder; other settings have the defaults of ``DDIMScheduler``.

    Attributes:
        alphas_cumprod: a_t for t = 0, 1, ..., float32 ``(T,)``, on the CPU.
        prediction_type: kind of the network's output: the noise ("epsilon"), z_0 ("sample"), or sqrt(a_t) noise -
            sqrt(1 - a_t) z_0 ("v_prediction").
        zero_snr: whether the last timestep is noise alone (Lin et al. 2024, algorithm 1).

    Raises:
        RecipeError: an unknown kind of schedule, or one that cannot be learnt: at a timestep of noise alone, the noise says
            nothing about z_0.

    Example:
        >>> NoiseSchedule({**SD2_SCHEDULE, "timestep_spacing": "trailing"}).timesteps(4)
        [999, 749, 499, 249]
    """

    def __init__(self, config: Mapping[str, Any] = SD2_SCHEDULE) -> None:
        self.config = {key: value for key, value in config.items() if not key.startswith("_")}
        get = self.config.get
        self.length = int(get("num_train_timesteps", 1000))
        self.prediction_type = check_choice("prediction_type", get("prediction_type", "epsilon"), PredictionType)
        self.spacing = check_choice("timestep_spacing", get("timestep_spacing", "leading"), Spacing)
        self.zero_snr = bool(get("rescale_betas_zero_snr", False))
        if get("thresholding"):
            raise RecipeError("expected a noise schedule without dynamic thresholding, which latents have no use for; got one.")
        if self.zero_snr and self.prediction_type == PredictionType.EPSILON:
            raise RecipeError(
                "expected v_prediction or sample with a noise schedule that ends in noise alone (zero terminal SNR); got "
                "epsilon. Set prediction_type to v_prediction, or rescale_betas_zero_snr to false."
            )
        # float32 throughout, like the schedules that published weights were trained with
        low, high = float(get("beta_start", 1e-4)), float(get("beta_end", 0.02))
        kind = check_choice("beta_schedule", get("beta_schedule", "linear"), BetaSchedule)
        power = 2 if kind == BetaSchedule.SCALED_LINEAR else 1
        if get("trained_betas") is not None:
            raise RecipeError("expected a noise schedule that beta_schedule describes; got a list trained_betas. Leave it out.")
        roots = torch.linspace(low ** (1 / power), high ** (1 / power), self.length, dtype=torch.float32, device="cpu")
        self.alphas_cumprod = (1 - roots**power).cumprod(0)
        if self.zero_snr:
            root = self.alphas_cumprod.sqrt()
            self.alphas_cumprod = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
        self._alphas: list[float] = self.alphas_cumprod.tolist()  # for one timestep, which then waits for no device
        self._tables = {self.alphas_cumprod.device: self.alphas_cumprod}  # by device, so that steps copy nothing
        self._last = 1.0 if get("set_alpha_to_one", True) else self._alphas[0]
        self._bound = float(get("clip_sample_range", 1.0)) if get("clip_sample", True) else None

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Compute z_t, ``(B, C, h, w)``.

        Args:
            clean: z_0, ``(B, C, h, w)``.
            noise: of unit variance, ``(B, C, h, w)``.
            timestep: int64 ``(B,)``.
        """
        signal, rest = self._weights(clean, timestep)
        return signal * clean + rest * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Compute the target of the network's output, ``(B, C, h, w)``; arguments as of ``add_noise``."""
        if self.prediction_type == PredictionType.SAMPLE:
            return clean
        if self.prediction_type == PredictionType.EPSILON:
            return noise
        signal, rest = self._weights(clean, timestep)
        return signal * noise - rest * clean

    def clean(self, output: Tensor, noisy: Tensor, timestep: Tensor | int) -> Tensor:
        """Compute z_0 from the network's output, ``(B, C, h, w)``.

        Args:
            output: of the network, ``(B, C, h, w)``.
            noisy: z_t, ``(B, C, h, w)``.
            timestep: int64 ``(B,)``, or one for all.
        """
        return self._clean_and_noise(output, noisy, timestep)[0]

    def timesteps(self, steps: int) -> list[int]:
        """List the timesteps of ``steps`` steps from noise to z_0, falling.

        "trailing" begins at the last timestep, where the latent is (nearly) pure noise. A single step of another spacing would
        begin at a timestep with hardly any noise, and return its input.

        Raises:
            RecipeError: ``steps`` is not between 1 and the schedule's length, or is 1 with a spacing other than trailing.
        """
        if not 1 <= steps <= self.length:
            raise RecipeError(f"expected between 1 and {self.length} steps; got {steps}.")
        if steps == 1 and self.spacing != Spacing.TRAILING:
            raise RecipeError(
                f"expected several steps, as {self.spacing} ones do not begin with noise alone and a single one would return "
                "what it began with; got 1. Set sampling's steps to 10 or more, or scheduler's timestep_spacing to trailing."
            )
        if self.spacing == Spacing.LEADING:
            offset = int(self.config.get("steps_offset", 0))
            return [k * (self.length // steps) + offset for k in reversed(range(steps))]
        if self.spacing == Spacing.TRAILING:
            stride = (self.length - self.length / steps) - self.length  # NumPy's, whose last bit rounds a half here or there
            return [round(self.length + k * stride) - 1 for k in range(steps)]
        stride = (self.length - 1) / max(steps - 1, 1)
        return [round(k * stride) for k in reversed(range(steps))]

    def step(self, output: Tensor, noisy: Tensor, timestep: int, steps: int) -> Tensor:
        """Step to the next lower of ``steps`` timesteps, or to z_0, by DDIM without fresh noise (Song et al. 2021, eq. 12).

        Args:
            output: of the network, ``(B, C, h, w)``.
            noisy: z_t, ``(B, C, h, w)``.
            timestep: t.
            steps: number of steps in all.
        """
        clean, noise = self._clean_and_noise(output, noisy, timestep)
        if self._bound is not None:
            clean = clean.clamp(-self._bound, self._bound)
        following = timestep - self.length // steps
        alpha = self._alphas[following] if following >= 0 else self._last
        return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise

    def _clean_and_noise(self, output: Tensor, noisy: Tensor, timestep: Tensor | int) -> tuple[Tensor, Tensor]:
        signal, rest = self._weights(noisy, timestep)
        if self.prediction_type == PredictionType.SAMPLE:
            return output, (noisy - signal * output) / rest
        if self.prediction_type == PredictionType.EPSILON:
            return (noisy - rest * output) / signal, output
        return signal * noisy - rest * output, signal * output + rest * noisy

    def _weights(self, like: Tensor, timestep: Tensor | int) -> tuple[Any, Any]:
        """Return the weights of z_0 and of the noise: floats for one timestep, else tensors ``(B, 1, 1, 1)``."""
        if isinstance(timestep, int):
            alpha = self._alphas[timestep]
            return alpha**0.5, (1 - alpha) ** 0.5
        if like.device not in self._tables:
            self._tables[like.device] = self.alphas_cumprod.to(like.device)
        alphas = per_image(self._tables[like.device][timestep], like)
        return alphas.sqrt(), (1 - alphas).sqrt()
