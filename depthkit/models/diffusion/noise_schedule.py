"""How much noise a latent has at each timestep, and the way back: DDPM's forward process and DDIM's steps."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from depthkit.errors import RecipeError
from depthkit.masked import per_image

PredictionType = Literal["v_prediction", "epsilon", "sample"]
Spacing = Literal["trailing", "leading", "linspace"]
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
"""That of Stable Diffusion 2."""


class NoiseSchedule:
    """Noisy latents z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) noise, where a_t falls from nearly 1 with t.

    Args:
        config: ``scheduler_config.json`` of a diffusers folder; what it does not say is as in ``DDIMScheduler``.

    Attributes:
        alphas_cumprod: a_t for t = 0, 1, ..., float32 ``(T,)``, on the CPU.
        prediction_type: what the network's output stands for: the noise ("epsilon"), z_0 ("sample"), or sqrt(a_t) noise -
            sqrt(1 - a_t) z_0 ("v_prediction").
        zero_snr: whether the last timestep is noise alone (Lin et al. 2024, algorithm 1).

    Raises:
        RecipeError: a kind of schedule that is not known, or one that cannot be learnt: at a timestep of noise alone, the
            noise says nothing of z_0.

    Example:
        >>> NoiseSchedule({**SD2_SCHEDULE, "timestep_spacing": "trailing"}).timesteps(4)
        [999, 749, 499, 249]
    """

    def __init__(self, config: Mapping[str, Any] = SD2_SCHEDULE) -> None:
        self.config = {key: value for key, value in config.items() if not key.startswith("_")}
        get = self.config.get
        self.length = int(get("num_train_timesteps", 1000))
        self.prediction_type: PredictionType = _one_of("prediction_type", get("prediction_type", "epsilon"), PredictionType)
        self.spacing: Spacing = _one_of("timestep_spacing", get("timestep_spacing", "leading"), Spacing)
        self.zero_snr = bool(get("rescale_betas_zero_snr", False))
        if get("thresholding"):
            raise RecipeError("expected a noise schedule without dynamic thresholding, which latents have no use for; got one.")
        if self.zero_snr and self.prediction_type == "epsilon":
            raise RecipeError(
                "expected v_prediction or sample with a noise schedule that ends in noise alone (zero terminal SNR); got "
                "epsilon. Set prediction_type to v_prediction, or rescale_betas_zero_snr to false."
            )
        # float32 throughout, like the schedules that published weights were trained with
        low, high = float(get("beta_start", 1e-4)), float(get("beta_end", 0.02))
        kind = get("beta_schedule", "linear")
        if kind not in ("linear", "scaled_linear") or get("trained_betas") is not None:
            raise RecipeError(f"expected a noise schedule that is linear or scaled_linear; got {kind} or a list of betas.")
        power = 2 if kind == "scaled_linear" else 1
        roots = torch.linspace(low ** (1 / power), high ** (1 / power), self.length, dtype=torch.float32, device="cpu")
        self.alphas_cumprod = (1 - roots**power).cumprod(0)
        if self.zero_snr:
            root = self.alphas_cumprod.sqrt()
            self.alphas_cumprod = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
        self._alphas: list[float] = self.alphas_cumprod.tolist()  # for one timestep, which then waits for no device
        self._last = 1.0 if get("set_alpha_to_one", True) else self._alphas[0]
        self._bound = float(get("clip_sample_range", 1.0)) if get("clip_sample", True) else None

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t, ``(B, C, h, w)``.

        Args:
            clean: z_0, ``(B, C, h, w)``.
            noise: of unit variance, ``(B, C, h, w)``.
            timestep: int64 ``(B,)``.
        """
        signal, rest = self._weights(clean, timestep)
        return signal * clean + rest * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What the network shall output, ``(B, C, h, w)``; arguments as of ``add_noise``."""
        if self.prediction_type == "sample":
            return clean
        if self.prediction_type == "epsilon":
            return noise
        signal, rest = self._weights(clean, timestep)
        return signal * noise - rest * clean

    def clean(self, output: Tensor, noisy: Tensor, timestep: Tensor | int) -> Tensor:
        """z_0 according to the network's output, ``(B, C, h, w)``.

        Args:
            output: of the network, ``(B, C, h, w)``.
            noisy: z_t, ``(B, C, h, w)``.
            timestep: int64 ``(B,)``, or one for all.
        """
        return self._clean_and_noise(output, noisy, timestep)[0]

    def timesteps(self, steps: int) -> list[int]:
        """The timesteps of so many steps from noise to z_0, falling.

        "trailing" begins at the last one, where the latent is noise (nearly) alone. A single step of the other kinds would be
        one where it has hardly any, and return the noise.

        Raises:
            RecipeError: not between 1 and the schedule's length, or one that is not trailing.
        """
        if not 1 <= steps <= self.length:
            raise RecipeError(f"expected between 1 and {self.length} steps; got {steps}.")
        if steps == 1 and self.spacing != "trailing":
            raise RecipeError(
                f"expected several steps, as {self.spacing} ones do not begin with noise alone and a single one would return "
                "what it began with; got 1. Set sampling's steps to 10 or more, or scheduler's timestep_spacing to trailing."
            )
        if self.spacing == "leading":
            offset = int(self.config.get("steps_offset", 0))
            return [k * (self.length // steps) + offset for k in reversed(range(steps))]
        if self.spacing == "trailing":
            stride = (self.length - self.length / steps) - self.length  # NumPy's, whose last bit rounds a half here or there
            return [round(self.length + k * stride) - 1 for k in range(steps)]
        stride = (self.length - 1) / max(steps - 1, 1)
        return [round(k * stride) for k in reversed(range(steps))]

    def step(self, output: Tensor, noisy: Tensor, timestep: int, steps: int) -> Tensor:
        """The latent at the next lower of ``steps`` timesteps, or z_0: DDIM without fresh noise (Song et al. 2021, eq. 12).

        Args:
            output: of the network, ``(B, C, h, w)``.
            noisy: z_t, ``(B, C, h, w)``.
            timestep: t.
            steps: how many there are in all.
        """
        clean, noise = self._clean_and_noise(output, noisy, timestep)
        if self._bound is not None:
            clean = clean.clamp(-self._bound, self._bound)
        following = timestep - self.length // steps
        alpha = self._alphas[following] if following >= 0 else self._last
        return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise

    def _clean_and_noise(self, output: Tensor, noisy: Tensor, timestep: Tensor | int) -> tuple[Tensor, Tensor]:
        signal, rest = self._weights(noisy, timestep)
        if self.prediction_type == "sample":
            return output, (noisy - signal * output) / rest
        if self.prediction_type == "epsilon":
            return (noisy - rest * output) / signal, output
        return signal * noisy - rest * output, signal * output + rest * noisy

    def _weights(self, like: Tensor, timestep: Tensor | int) -> tuple[Any, Any]:
        """Of z_0 and of the noise: floats for one timestep, else tensors ``(B, 1, 1, 1)``."""
        if isinstance(timestep, int):
            alpha = self._alphas[timestep]
            return alpha**0.5, (1 - alpha) ** 0.5
        alphas = per_image(self.alphas_cumprod.to(like.device)[timestep], like)
        return alphas.sqrt(), (1 - alphas).sqrt()


def _one_of(name: str, value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        raise RecipeError(f"expected {name} to be one of {', '.join(get_args(kind))}; got {value!r}.")
    return value
