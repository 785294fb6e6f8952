"""Run k-diffusion's samplers on the embedded model, through denoisers like those that users of k-diffusion write."""

import importlib.util
import sys
from types import ModuleType

import torch

from dnp_guard.hosts.kdiffusion import KDiffusion
from dnp_guard.preview import autoencoder

STEPS = 25
SCALE = 5.0
SAMPLERS = (
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpmpp_2m",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "lms",
)
"""The tested samplers: names of functions in ``k_diffusion.sampling``, without ``sample_``."""


def sampling():
    """Import ``k_diffusion.sampling`` without its package, which would import torchvision, clip and wandb."""
    name = "k_diffusion.sampling"
    if name in sys.modules:
        return sys.modules[name]
    folder = importlib.util.find_spec("k_diffusion").submodule_search_locations
    package = sys.modules["k_diffusion"] = ModuleType("k_diffusion")
    package.__path__ = list(folder)
    tools = sys.modules["k_diffusion.utils"] = package.utils = ModuleType("k_diffusion.utils")
    tools.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    return importlib.import_module(name)


def sampler(name):
    return getattr(sampling(), f"sample_{name}")


class Denoiser:
    """The embedded UNet, which predicts v, as a denoiser D(x; sigma) that returns x̂0.

    D = x / (sigma² + 1) - v sigma / sqrt(sigma² + 1), where v is the network's output for x / sqrt(sigma² + 1) at the
    timestep with the nearest noise level (k-diffusion's scalings of a v-model, sigma_data = 1).

    Attributes:
        images: number of images evaluated so far.
    """

    def __init__(self, pipe):
        self.pipe = pipe
        alphas = pipe.scheduler.alphas_cumprod
        self.log_sigmas = ((1 - alphas) / alphas).sqrt().log()
        self.images = 0

    def sigmas(self, steps, *, highest=1.0):
        """Return the noise levels of evenly spaced timesteps, followed by zero.

        Args:
            steps: number of timesteps.
            highest: where to begin, as a share of the highest timestep.
        """
        at = torch.linspace(highest * (len(self.log_sigmas) - 1), 0, steps)
        return torch.cat([self.log_sigmas[at.round().long()].exp(), torch.zeros(1)])

    def timesteps(self, sigma):
        return (sigma.log()[:, None] - self.log_sigmas).abs().argmin(1)

    @torch.no_grad()
    def __call__(self, x, sigma, cond):
        self.images += len(x)
        wide = sigma.view(-1, 1, 1, 1)
        scale = (wide**2 + 1).sqrt()
        v = self.pipe.unet(x / scale, self.timesteps(sigma), cond).sample
        return x / scale**2 - v * wide / scale


class CFGDenoiser:
    """Classifier-free guidance as users of k-diffusion write it."""

    def __init__(self, inner_model):
        self.inner_model = inner_model

    def __call__(self, x, sigma, uncond, cond, cond_scale):
        both = self.inner_model(torch.cat([x, x]), torch.cat([sigma, sigma]), cond=torch.cat([uncond, cond]))
        without, given = both.chunk(2)
        return without + (given - without) * cond_scale


class WebUIDenoiser:
    """Classifier-free guidance as in A1111: prompts composed with ``AND``, unconditional rows last, a counter of calls.

    ``cond`` is one list of (conditioning, weight) pairs per image, ``uncond`` one conditioning per image, and
    ``image_cond`` a further tensor for the model. The inner model takes its conditioning as a dictionary.
    """

    def __init__(self, inner_model):
        self.inner_model = lambda x, sigma, cond: inner_model(x, sigma, cond["c_crossattn"][0])
        self.step = 0

    def __call__(self, x, sigma, uncond, cond, cond_scale, s_min_uncond, image_cond):
        assert len(cond) == len(uncond) == len(x) == len(image_cond)
        parts = [(index, *pair) for index, pairs in enumerate(cond) for pair in pairs]
        repeated = [index for index, _, _ in parts]
        skips = s_min_uncond > 0 and self.step % 2 == 1 and float(sigma[0]) < s_min_uncond
        conditioning = [condition for _, condition, _ in parts] + ([] if skips else list(uncond))
        index = repeated + ([] if skips else list(range(len(x))))
        out = self.inner_model(x[index], sigma[index], cond={"c_crossattn": [torch.stack(conditioning)]})
        without = out[:0] if skips else out[-len(x) :]
        result = out[[repeated.index(at) for at in range(len(x))]] if skips else without.clone()
        if not skips:
            for row, (at, _, weight) in enumerate(parts):
                result[at] += (out[row] - without[at]) * (weight * cond_scale)
        self.step += 1
        return result


class Conditioning:
    """The embedded text encoder, and the decoder of the embedded autoencoder."""

    def __init__(self, pipe):
        self.pipe = pipe

    @torch.no_grad()
    def encode(self, texts):
        return self.pipe.encode_prompt(list(texts), self.pipe.device, 1, do_classifier_free_guidance=False)[0]

    def decode(self, latents):
        return autoencoder.decode(self.pipe.vae, latents)


def noise(x0_like, sigmas, seed):
    """Draw initial noise of a shape, scaled to the first noise level; image i has the seed ``seed + i``."""
    count, *shape = x0_like
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + index)) for index in range(count)]
    return torch.stack(drawn) * sigmas[0]


def run(name, target, conditioning, sigmas, prompts, seed, **more):
    """Generate pictures of prompts with the sampler of a name.

    Args:
        name: name of the sampler.
        target: the guarded target, from :func:`target`.
        conditioning: the text encoder.
        sigmas: the noise levels.
        prompts: one prompt per image.
        seed: seed of the first image's noise and of the global generator, from which the sampler draws.
        more: further arguments of ``target.sample``; ``extra`` are further arguments of the denoiser.
    """
    empty = conditioning.encode([""] * len(prompts))
    extra = {"cond": conditioning.encode(prompts), "uncond": empty, "cond_scale": SCALE, **more.pop("extra", {})}
    x = noise((len(prompts), 8, 8, 8), sigmas, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return target.sample(
            sampler(name), x, sigmas, prompts=prompts, seed=seed, extra_args=extra, disable=True, **more
        )


def target(pipe, **arguments):
    """Return a ``KDiffusion``, to which a guard can be attached, and the denoiser and text encoder that it uses."""
    denoiser, words = Denoiser(pipe), Conditioning(pipe)
    given = {"denoise": denoiser, "encode": words.encode, "decode": words.decode, **arguments}
    return KDiffusion(CFGDenoiser(denoiser), **given), denoiser, words
