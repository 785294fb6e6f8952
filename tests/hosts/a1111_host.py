"""Stand in for AUTOMATIC1111's web UI in tests: its documented callbacks and hooks, around the embedded model.

The stand-in imitates the observed behaviour of a running web UI: the order of callbacks, the values that they may
change, and the treatment of exceptions. The host logs the exceptions of callbacks and hooks and goes on. Only
``InterruptedException``, a ``BaseException``, ends a job; the host then delivers its last latents as an image.
"""

from __future__ import annotations

import base64
import importlib.util
import inspect
import io
import json
import re
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, Self

import torch
from PIL import Image

from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.world.models import LATENT_CHANNELS, MAX_TOKENS
from dnp_guard.preview.autoencoder import to_tensor
from tests.hosts.compvis_unet import compvis
from tests.hosts.patched_unet import UNetModel, optimized_attention

EXTENSION = Path(__file__).parents[2] / "integrations" / "a1111"
FACTOR = 4


class InterruptedException(BaseException):
    """Raised inside sampling to end a job."""


class Options:
    """The host's settings by name; programs cannot change those that are restricted for the API."""

    def __init__(self) -> None:
        self.data_labels: dict[str, Any] = {}
        self.data: dict[str, Any] = {"skip_early_cond": 0.0, "s_min_uncond_all": False, "use_old_scheduling": False}
        self.data |= {"save_images_before_highres_fix": False, "batch_cond_uncond": True}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None

    def add_option(self, name: str, info: Any) -> None:
        self.data_labels[name] = info
        self.data.setdefault(name, info.default)

    def set(self, name: str, value: Any, *, is_api: bool = False) -> bool:
        info, before = self.data_labels.get(name), self.data.get(name)
        if is_api and getattr(info, "restrict_api", False):
            return False
        self.data[name] = value
        try:
            if info is not None and info.onchange is not None:
                info.onchange()
        except Exception:  # noqa: BLE001 (as the host does)
            self.data[name] = before
            return False
        return True


class State:
    """The host's state during a job: its progress, interruptions, and the live previews that it showed."""

    def __init__(self) -> None:
        self.shown: list[Image.Image] = []
        self.interrupted = self.skipped = False
        self.sampling_step = 0

    def assign_current_image(self, image: Image.Image) -> None:
        self.shown.append(image)

    def interrupt(self) -> None:
        self.interrupted = True


class SdConditioning(list):
    """Prompts with the image size and whether they are negative, which the model may need to encode them."""

    def __init__(self, prompts, is_negative_prompt=False, width=None, height=None) -> None:
        super().__init__(prompts)
        self.is_negative_prompt, self.width, self.height = is_negative_prompt, width, height


class DictWithShape(dict):
    @property
    def shape(self):
        return self["crossattn"].shape


def schedules(prompts, steps, hires_steps=None, use_old_scheduling=False):
    """Read prompt editing, ``[before:after:when]``: list per prompt pairs of a last denoiser call and a text."""
    entries = []
    for prompt in prompts:
        edit = re.search(r"(?<!\\)\[([^\[\]:]*):([^\[\]:]*):([\d.]+)\]", prompt)
        if edit is None:
            entries.append([[steps, prompt]])
            continue
        before, after, when = edit.groups()
        at = int(float(when) * steps) if float(when) < 1 else int(float(when))
        texts = [prompt[: edit.start()] + part + prompt[edit.end() :] for part in (before, after)]
        entries.append([[at, texts[0]], [steps, texts[1]]])
    return entries


class SdModel:
    """The embedded model with the interface of the host's models."""

    def __init__(self, pipe: Any, *, sdxl: bool, forge: bool) -> None:
        self._pipe, self._sdxl, self._forge = pipe, sdxl, forge
        self.network = UNetModel(pipe.unet) if forge else compvis(pipe.unet)
        self.model = SimpleNamespace(conditioning_key="crossattn", diffusion_model=self.network)
        self.transformer_options: dict[str, Any] = {}
        """The options of Forge's UNet at its latest call."""
        self.alphas_cumprod = pipe.scheduler.alphas_cumprod
        self.encoded: list[list[str]] = []

    def get_learned_conditioning(self, prompts):
        self.encoded.append(list(prompts))
        tokenizer = self._pipe.tokenizer
        plain = [re.sub(r"\\([()\[\]\\])", r"\1", text) for text in prompts]
        words = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in plain]
        room = MAX_TOKENS - 2
        chunks = max(1, *(-(-len(ids) // room) for ids in words))
        parts = []
        for chunk in range(chunks):
            rows = []
            for ids in words:
                part = ids[chunk * room : (chunk + 1) * room]
                row = [tokenizer.bos_token_id, *part, tokenizer.eos_token_id]
                rows.append(row + [tokenizer.pad_token_id] * (MAX_TOKENS - len(row)))
            parts.append(self._pipe.text_encoder(torch.tensor(rows))[0])
        crossattn = torch.cat(parts, dim=1)
        return {"crossattn": crossattn, "vector": crossattn.mean(dim=1)} if self._sdxl else crossattn

    def velocity(self, x, t, context):
        if self._forge:
            return self.network(x, t, context, self.transformer_options)
        return self.network(x, t, encoder_hidden_states=context)[0]

    def decode(self, latents):
        return self._pipe.vae.decode(latents)[0].clamp(-1, 1) / 2 + 0.5

    def encode(self, images):
        return self._pipe.vae.encode(images * 2 - 1)[0]


class SigmaModel:
    """The model as a denoiser that predicts x̂0 from x = x0 + sigma noise (Karras et al., arXiv 2206.00364)."""

    def __init__(self, model: SdModel) -> None:
        self.inner_model = model
        self.sigmas = ((1 - model.alphas_cumprod) / model.alphas_cumprod) ** 0.5

    def sigma_to_t(self, sigma):
        log, table = sigma.log(), self.sigmas.log()
        high = torch.searchsorted(table, log).clamp(1, len(table) - 1)
        low = high - 1
        part = ((log - table[low]) / (table[high] - table[low])).clamp(0, 1)
        return low + part

    def __call__(self, x, sigma, cond):
        column = sigma.view(-1, 1, 1, 1)
        norm = (column**2 + 1).sqrt()
        velocity = self.inner_model.velocity(x / norm, self.sigma_to_t(sigma), context_of(cond))
        return x / norm**2 - velocity * column / norm


class TimestepModel:
    """The model for samplers that count in timesteps: it predicts the noise in x."""

    def __init__(self, model: SdModel) -> None:
        self.inner_model = model

    def __call__(self, x, timesteps, cond):
        alpha = self.inner_model.alphas_cumprod[timesteps.long()].view(-1, 1, 1, 1)
        return alpha.sqrt() * self.inner_model.velocity(x, timesteps, context_of(cond)) + (1 - alpha).sqrt() * x


def context_of(cond):
    if "crossattn" in cond:
        assert len(cond["vector"]) == len(cond["crossattn"])
        return cond["crossattn"]
    return torch.cat(cond["c_crossattn"], dim=1)


def together(first, second):
    if isinstance(first, dict):
        return DictWithShape({name: torch.cat([first[name], second[name]]) for name in first})
    return torch.cat([first, second])


class CfgDenoiser:
    """The host's classifier-free guidance, with the extensions' callbacks before and after it."""

    def __init__(self, host: Host, sampler: Sampler) -> None:
        self._host, self.sampler, self.p = host, sampler, None
        self.step = self.steps = self.total_steps = 0
        self.mask = self.nmask = None
        self.update_inner_model()

    def update_inner_model(self) -> None:
        self.inner_model = (TimestepModel if self.sampler.timesteps else SigmaModel)(self._host.model)
        if self._host.forge:
            self._host.model.forge_objects = ForgeObjects(self.inner_model)

    def __call__(self, x, sigma, uncond, cond, cond_scale, s_min_uncond):
        host, images = self._host, len(x)
        if host.state.interrupted or host.state.skipped:
            raise InterruptedException
        refiner, switch_at = self.p.refiner or (host.model, 1.0)
        if host.model is not refiner and self.step / self.total_steps >= switch_at:
            host.load(refiner)
            self.update_inner_model()
        text, empty = host.at_step(cond, self.step), host.at_step(uncond, self.step)
        image = torch.zeros(images, 5, 1, 1)
        skipped = cond_scale == 1 if host.forge else False
        twice = 1 if host.forge else 2
        params = SimpleNamespace(
            x=torch.cat([x] * twice),
            image_cond=torch.cat([image] * twice),
            sigma=torch.cat([sigma] * twice),
            sampling_step=host.state.sampling_step,
            text_cond=text,
            text_uncond=None if skipped and not host.reforge else empty,
            denoiser=self,
        )
        host.callbacks("cfg_denoiser", params)
        early = host.options.skip_early_cond
        skipped |= bool(early) and self.step / self.total_steps <= early
        alternate = self.step % 2 or host.options.s_min_uncond_all
        skipped |= bool(alternate and s_min_uncond > 0 and float(sigma[0]) < s_min_uncond)
        answer = self._evaluate(params, images, skipped=skipped)
        if not host.forge:
            answered = SimpleNamespace(x=answer)
            host.callbacks("cfg_denoised", answered)
            answer = answered.x
        c, u = answer[:images], answer[images:]
        combined = c if skipped else u + (c - u) * cond_scale
        if self.mask is not None:
            combined = combined * self.nmask + self.sampler.init_latent * self.mask
        self.sampler.last_latent = combined
        host.show(combined if not self.sampler.timesteps else x)
        after = SimpleNamespace(x=combined)
        host.callbacks("cfg_after_cfg", after)
        self.step += 1
        return after.x

    def _evaluate(self, params, images, *, skipped):
        """Evaluate prompt and unconditional in one batch if their conditionings are equally long, else separately."""
        x, sigma, image = params.x[:images], params.sigma[:images], params.image_cond[:images]
        c = self._host.conditions(params.text_cond, image)
        if skipped:
            self._marked(0)
            answer = self.inner_model(x, sigma, cond=c)
            return torch.cat([answer, answer])
        uncond = params.text_uncond
        if uncond.shape[1] == params.text_cond.shape[1]:
            self._marked(0, 1)
            both = self._host.conditions(together(params.text_cond, uncond), torch.cat([image] * 2))
            return self.inner_model(torch.cat([x] * 2), torch.cat([sigma] * 2), cond=both)
        self._marked(0)
        given = self.inner_model(x, sigma, cond=c)
        self._marked(1)
        return torch.cat([given, self.inner_model(x, sigma, cond=self._host.conditions(uncond, image))])

    def _marked(self, *marks):
        """Tell Forge's UNet which rows belong to the prompt, as ``backend/sampling/sampling_function.py`` does."""
        if self._host.forge:
            options = self.inner_model.inner_model.forge_objects.unet.model_options
            model = self.inner_model.inner_model
            model.transformer_options = {**options["transformer_options"], "cond_or_uncond": list(marks)}


class ForgeObjects:
    """The attribute ``forge_objects`` in which Forge keeps its UNet."""

    def __init__(self, model) -> None:
        model.diffusion_model = model.inner_model.network
        options = {"transformer_options": {}}
        self.unet = SimpleNamespace(model=model, model_options=options, controlnet_linked_list=None)


class Sampler:
    """A sampler for one sampling pass."""

    def __init__(self, host: Host, name: str) -> None:
        self._host, self.name = host, name
        self.func = SAMPLERS[name]
        self.timesteps = name == "DDIM"
        self.model_wrap_cfg = CfgDenoiser(host, self)
        self.sampler_extra_args: dict[str, Any] = {}
        self.last_latent = self.init_latent = None

    def callback_state(self, values: dict[str, Any]) -> None:
        self._host.state.sampling_step = values["i"]

    def sample(self, p, x, cond, uncond, *, start=None, steps=None):
        """Denoise the noise ``x``, or latents with this noise added.

        Args:
            p: the job.
            x: the noise.
            cond: schedules of the prompts.
            uncond: schedules of the negative prompts.
            start: latents to start from, and the number of last steps to run; None to start from noise.
            steps: number of steps of a whole run; the job's by default.
        """
        denoiser, steps = self.model_wrap_cfg, steps or p.steps
        denoiser.p, denoiser.step = p, 0
        extra = {"cond": cond, "uncond": uncond, "cond_scale": p.cfg_scale, "s_min_uncond": p.s_min_uncond}
        self.sampler_extra_args = extra
        levels = timesteps(steps) if self.timesteps else sigmas(self._host.model, steps)
        if start is not None:
            self.init_latent = start[0]
            levels = levels[len(levels) - 1 - start[1] :]
        ran = len(levels) - 1
        denoiser.steps = denoiser.total_steps = ran + self.timesteps
        denoiser.total_steps *= 2 if self.name == "Heun" else 1
        noise, self.last_latent = x, x
        x = self._noisy(noise, levels[0], start)
        self._host.state.sampling_step = 0
        given = {**self._levels(levels), "extra_args": extra, "callback": self.callback_state, "noise": p.noise}
        return self.launch_sampling(ran, lambda: self.func(denoiser, x, **given))

    def launch_sampling(self, steps, func):
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def _levels(self, levels):
        """Return the noise levels as the sampler's arguments: all of them, or the ends and the number of steps."""
        names = inspect.signature(self.func).parameters
        if "n" in names:
            return {"sigma_min": levels[-2], "sigma_max": levels[0], "n": len(levels) - 1}
        return {name: levels for name in ("sigmas", "timesteps") if name in names}

    def _noisy(self, noise, level, start):
        clean = 0 if start is None else start[0]
        if not self.timesteps:
            return clean + noise * level
        alpha = self._host.model.alphas_cumprod[int(level)]
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def sigmas(model, steps):
    table = ((1 - model.alphas_cumprod) / model.alphas_cumprod) ** 0.5
    return torch.cat([table[torch.linspace(999, 0, steps).round().long()], torch.zeros(1)])


def timesteps(steps):
    return torch.linspace(999, 0, steps + 1).round()


def euler(model, x, sigmas, extra_args, callback, noise):
    ones = x.new_ones(len(x))
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones, **extra_args)
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def euler_ancestral(model, x, sigmas, extra_args, callback, noise):
    ones = x.new_ones(len(x))
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones, **extra_args)
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        up = (sigmas[i + 1] ** 2 * (sigmas[i] ** 2 - sigmas[i + 1] ** 2) / sigmas[i] ** 2).sqrt()
        down = (sigmas[i + 1] ** 2 - up**2).sqrt()
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i]) + noise() * up
    return x


def heun(model, x, sigmas, extra_args, callback, noise):
    ones = x.new_ones(len(x))
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones, **extra_args)
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        slope, width = (x - denoised) / sigmas[i], sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] > 0:
            there = x + slope * width
            slope = (slope + (there - model(there, sigmas[i + 1] * ones, **extra_args)) / sigmas[i + 1]) / 2
        x = x + slope * width
    return x


def ddim(model, x, timesteps, extra_args, callback, noise):
    ones, alphas = x.new_ones(len(x)), model.inner_model.inner_model.alphas_cumprod
    for i in range(len(timesteps) - 1):
        eps = model(x, timesteps[i] * ones, **extra_args)
        a, b = alphas[int(timesteps[i])], alphas[int(timesteps[i + 1])]
        clean = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = b.sqrt() * clean + (1 - b).sqrt() * eps
        callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": clean})
    return x


def dpm_fast(model, x, sigma_min, sigma_max, n, extra_args, callback, noise):
    """Run DPM-Solver of first order (Lu et al., arXiv 2206.00927), in a third of the requested steps."""
    ones, ts = x.new_ones(len(x)), torch.linspace(-sigma_max.log(), -sigma_min.log(), n // 3 + 2)
    for i in range(len(ts) - 1):
        sigma, sigma_next = ts[i].neg().exp(), ts[i + 1].neg().exp()
        denoised = model(x, sigma * ones, **extra_args)
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        x = sigma_next / sigma * x - (ts[i] - ts[i + 1]).expm1() * denoised
    return x


SAMPLERS = {"Euler": euler, "Euler a": euler_ancestral, "Heun": heun, "DPM fast": dpm_fast, "DDIM": ddim}


@dataclass
class Processing:
    """A job, which the host calls a processing object: the settings of a generation and its state."""

    prompt: str = ""
    negative_prompt: str = ""
    sampler_name: str = "Euler"
    steps: int = 12
    cfg_scale: float = 5.0
    seed: int = 0
    batch_size: int = 1
    n_iter: int = 1
    width: int = 32
    height: int = 32
    enable_hr: bool = False
    hr_checkpoint: SdModel | None = None
    refiner: tuple[SdModel, float] | None = None
    hr_second_pass_steps: int = 0
    denoising_strength: float = 0.7
    init_images: list[Image.Image] = field(default_factory=list)
    s_min_uncond: float = 0.0
    script_args: tuple[Any, ...] = ()
    override_settings: dict[str, Any] = field(default_factory=dict)
    save_images: bool = False
    is_api: bool = True
    is_hr_pass: bool = False
    batch_index: int = 0
    iteration: int = 0
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    subseeds: list[int] = field(default_factory=list)
    subseed_strength: float = 0.0


class ImageRNG:
    """The random number generator of a batch, which draws every image's noise from the image's own seed."""

    def __init__(
        self, shape, seeds, subseeds=None, subseed_strength=0.0, seed_resize_from_h=0, seed_resize_from_w=0
    ) -> None:
        self.shape, self.seeds, self.subseeds, self.subseed_strength = tuple(shape), seeds, subseeds, subseed_strength
        self.seed_resize_from_h, self.seed_resize_from_w = seed_resize_from_h, seed_resize_from_w
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def next(self, size=None):
        shape = (self.shape[0], *(size or self.shape[1:]))
        return torch.stack([torch.randn(*shape, generator=generator) for generator in self.generators])


def decode_latent_batch(model, batch, target_device=None, check_for_nans=False):
    return [image * 2 - 1 for image in model.decode(batch)]


class Host:
    """The web UI with one extension or none.

    Args:
        folder: folder of the extension; None for no extension.
        forge: whether the host behaves like Forge.
        reforge: whether the host behaves like reForge: as Forge, but with older names of modules, with the
            unconditional in callbacks at every guidance scale, and with a copy of the prompts for infotexts.
        sdxl: whether conditioning is passed in dictionaries, as for Stable Diffusion XL.
        options: settings, as if read from the host's own file.
    """

    def __init__(
        self, folder: Path | None = EXTENSION, *, forge=False, reforge=False, sdxl=False, options=None
    ) -> None:
        self.folder, self.forge, self.reforge = folder, forge or reforge, reforge
        self.model = SdModel(load_pipeline(), sdxl=sdxl, forge=self.forge)
        self.state, self.options = State(), Options()
        self.options.data |= options or {}
        self.errors: list[BaseException] = []
        self.saved: list[tuple[str, Image.Image]] = []
        self.registered: dict[str, list[Any]] = {}
        self.scripts: list[Any] = []
        self.routes: dict[str, Any] = {}
        self.loaded: list[Any] = []
        self._before: dict[str, ModuleType | None] = {}
        self._path: list[str] = []

    def __enter__(self) -> Self:
        known = set(sys.modules)
        for name, module in self._modules().items():
            self._before[name] = sys.modules.get(name)
            sys.modules[name] = module
        self._load()
        self._own = {name for name in set(sys.modules) - known if name.startswith("dnp_guard_extension")}
        return self

    def reload(self) -> None:
        """Run the scripts again but keep the modules that they import, as the button *Reload UI* does."""
        self.callbacks("script_unloaded")
        self.registered.clear()
        self.scripts.clear()
        self._load()

    def _load(self) -> None:
        self._path = list(sys.path)
        sys.path.insert(0, str(self.folder))
        try:
            for file in sorted((self.folder / "scripts").glob("*.py")) if self.folder else ():
                spec = importlib.util.spec_from_file_location(file.stem + "_script", file)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                classes = [member for member in vars(module).values() if isinstance(member, type)]
                self.scripts += [
                    script_class()
                    for script_class in classes
                    if issubclass(script_class, Script) and script_class is not Script
                ]
        finally:
            sys.path[:] = self._path
        self.callbacks("ui_settings")
        app = SimpleNamespace(add_api_route=lambda path, call, methods: self.routes.__setitem__(path, call))
        self.callbacks("app_started", None, app)
        self.defaults = [[component.value for component in script.ui(False)] for script in self.scripts]

    def __exit__(self, *_: object) -> None:
        self.callbacks("script_unloaded")
        for name, module in self._before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        for name in self._own:
            parent, _, last = name.rpartition(".")
            sys.modules.pop(name, None)
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(last, None)

    def load(self, model: SdModel) -> None:
        """Load another checkpoint, as for a refiner or a hires pass."""
        self.model = sys.modules["modules.shared"].sd_model = model

    def callbacks(self, kind: str, *args: Any) -> None:
        for callback in self.registered.get(kind, []):
            try:
                callback(*args)
            except Exception as error:  # noqa: BLE001 (as the host does)
                self.errors.append(error)

    def hook(self, name: str, p: Processing, *args: Any, **values: Any) -> None:
        for script in self.scripts:
            try:
                getattr(script, name)(p, *args, *p.script_args, **values)
            except Exception as error:  # noqa: BLE001 (as the host does)
                self.errors.append(error)

    def set_through_the_api(self, values: dict[str, Any]) -> None:
        """Set options as the HTTP API does; Forge's API does not mark the request as coming from a program."""
        for name, value in values.items():
            self.options.set(name, value, is_api=not self.forge)

    def conditions(self, conditioning, image):
        if isinstance(conditioning, dict):
            return {**conditioning, "c_concat": [image]}
        return {"c_crossattn": [conditioning], "c_concat": [image]}

    def at_step(self, prompts, step):
        if prompts is None:
            return None
        texts = [next((text for end, text in schedule if step <= end), schedule[-1][1]) for schedule in prompts]
        conditioning = self.model.get_learned_conditioning(texts)
        return DictWithShape(conditioning) if isinstance(conditioning, dict) else conditioning

    def show(self, latents) -> None:
        self.state.assign_current_image(self.picture(latents, 0, 0))

    def picture(self, latents, index=0, approximation=None):
        return Image.fromarray((self.model.decode(latents)[index] * 255).byte().permute(1, 2, 0).numpy())

    def save(self, image, p, suffix, *, info="") -> None:
        params = SimpleNamespace(image=image, p=p, filename=f"outputs/{len(self.saved):05}{suffix}.png", pnginfo={})
        params.pnginfo["parameters"] = info
        self.callbacks("before_image_saved", params)
        self.saved.append((params.filename, params.image))

    def process(self, p: Processing) -> SimpleNamespace:
        """Run a job; return its ``images`` and the ``infotexts`` that are saved with them."""
        before = dict(self.options.data)
        for name, value in p.override_settings.items():
            self.options.set(name, value, is_api=True)
        p.script_args = p.script_args or tuple(value for values in self.defaults for value in values)
        self.state.interrupted = False
        try:
            with torch.no_grad():
                return self._process(p)
        finally:
            self.options.data = before

    def _process(self, p: Processing) -> SimpleNamespace:
        count = p.batch_size * p.n_iter
        p.all_prompts, p.all_negative_prompts = [p.prompt] * count, [p.negative_prompt] * count
        if isinstance(p.prompt, list):
            p.all_prompts = list(p.prompt)
        self.hook("process", p)
        images, texts = [], []
        for number in range(p.n_iter):
            p.iteration = number
            rows = slice(number * p.batch_size, (number + 1) * p.batch_size)
            p.prompts, p.negative_prompts = p.all_prompts[rows], p.all_negative_prompts[rows]
            if self.state.interrupted:
                break
            size = (p.height // FACTOR, p.width // FACTOR)
            p.seeds = [p.seed + number * p.batch_size + index for index in range(p.batch_size)]
            p.rng, p.sd_model, p.sample = (
                ImageRNG((LATENT_CHANNELS, *size), p.seeds),
                self.model,
                partial(self.sample, p),
            )
            self.hook("process_batch", p, batch_number=number, prompts=p.prompts, seeds=p.seeds, subseeds=[])
            decoded = decode_latent_batch(self.model, p.sample())
            decoded = torch.clamp((torch.stack(decoded).float() + 1.0) / 2.0, min=0.0, max=1.0)
            self.hook("postprocess_batch", p, images=decoded, batch_number=number)
            for index in range(len(decoded)):
                p.batch_index = index
                shown = SimpleNamespace(image=Image.fromarray((decoded[index] * 255).byte().permute(1, 2, 0).numpy()))
                self.hook("postprocess_image", p, shown)
                self.hook("postprocess_image_after_composite", p, shown)
                text = infotext(p, list(p.prompts) if self.reforge else p.prompts, index)
                if p.save_images:
                    self.save(shown.image, p, "", info=text)
                images.append(shown.image)
                texts.append(text)
        result = SimpleNamespace(images=images, infotexts=texts)
        self.hook("postprocess", p, result)
        return result

    def sample(self, p: Processing, **_: Any):
        noise = p.noise = lambda size=None: p.rng.next(size)
        cond = schedules(p.prompts, p.steps)
        without = self.forge and not self.reforge and p.cfg_scale == 1
        uncond = None if without else schedules(p.negative_prompts, p.steps)
        p.sampler = Sampler(self, p.sampler_name)
        start = None
        if p.init_images:
            latents = self.model.encode(to_tensor(p.init_images)).expand(p.batch_size, -1, -1, -1)
            start = (latents, int(min(p.denoising_strength, 0.999) * p.steps) + 1)
        x = noise()
        self.hook("process_before_every_sampling", p, x=x, noise=x, c=cond, uc=uncond)
        samples = p.sampler.sample(p, x, cond, uncond, start=start)
        return self._hires(p, samples, cond, uncond) if p.enable_hr and not self.state.interrupted else samples

    def _hires(self, p: Processing, samples, cond, uncond):
        if self.options.save_images_before_highres_fix:
            for index in range(len(samples)):
                self.save(self.picture(samples, index), p, "-before-highres-fix")
        p.is_hr_pass, size = True, (p.height * 2 // FACTOR, p.width * 2 // FACTOR)
        try:
            self.load(p.hr_checkpoint or self.model)
            larger = torch.nn.functional.interpolate(samples, size=size, mode="nearest")
            p.sampler = Sampler(self, p.sampler_name)
            steps = p.hr_second_pass_steps or p.steps
            drawn, p.noise = p.noise, lambda: drawn(size)
            x = p.noise()
            self.hook("process_before_every_sampling", p, x=x, noise=x, c=cond, uc=uncond)
            whole = int(steps / min(p.denoising_strength, 0.999))
            return p.sampler.sample(p, x, cond, uncond, start=(larger, steps), steps=whole)
        finally:
            p.is_hr_pass = False

    def _modules(self) -> dict[str, ModuleType]:
        """Return stand-ins for the host's modules that an extension may import, by name."""
        on = {
            f"on_{kind}": (lambda callback, kind=kind, **_: self.registered.setdefault(kind, []).append(callback))
            for kind in (
                *("cfg_denoiser", "cfg_denoised", "cfg_after_cfg", "before_image_saved", "ui_settings"),
                *("app_started", "script_unloaded"),
            )
        }
        parts: dict[str, dict[str, Any]] = {
            "modules": {},
            "modules.script_callbacks": on,
            "modules.scripts": {"Script": Script, "AlwaysVisible": object()},
            "modules.shared": {
                "opts": self.options,
                "state": self.state,
                "sd_model": self.model,
                "OptionInfo": OptionInfo,
            },
            "modules.devices": {"autocast": nullcontext, "cpu": torch.device("cpu")},
            "modules.processing": {"decode_latent_batch": decode_latent_batch},
            "modules.prompt_parser": {
                "SdConditioning": SdConditioning,
                "DictWithShape": DictWithShape,
                "get_learned_conditioning_prompt_schedules": schedules,
            },
            "modules.sd_samplers_common": {
                "InterruptedException": InterruptedException,
                "sample_to_image": self.picture,
            },
            "gradio": dict.fromkeys(
                ("Accordion", "Button", "Checkbox", "Textbox", "Dropdown", "Markdown", "Radio"), Component
            ),
        }
        if self.reforge:
            parts |= {"ldm_patched": {}, "ldm_patched.modules": {}, "modules_forge": {}}
            parts["ldm_patched.modules.model_management"] = {"load_model_gpu": self.loaded.append}
            parts |= {"ldm_patched.ldm": {}, "ldm_patched.ldm.modules": {}}
            parts["ldm_patched.ldm.modules.attention"] = {"optimized_attention": optimized_attention}
            parts["ldm_patched.modules.conds"] = {"CONDRegular": SimpleNamespace}
            parts["ldm_patched.modules.samplers"] = {"calc_cond_uncond_batch": evaluated}
            parts["modules_forge.forge_sampler"] = {"cond_from_a1111_to_patched_ldm": compiled}
        elif self.forge:
            parts |= {"backend": {}, "backend.sampling": {}}
            parts["backend.attention"] = {"attention_function": optimized_attention}
            parts["backend.memory_management"] = {"load_model_gpu": self.loaded.append}
            parts["backend.sampling.condition"] = {"Condition": SimpleNamespace, "compile_conditions": compiled}
            parts["backend.sampling.sampling_function"] = {"calc_cond_uncond_batch": evaluated}
        asked = FunctionType(type(self).set_through_the_api.__code__, {"__name__": "modules.api.api"})
        self.set_through_the_api = MethodType(asked, self)
        modules = {}
        for name, values in parts.items():
            modules[name] = ModuleType(name)
            vars(modules[name]).update(values)
        for name, module in modules.items():
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(modules[parent], last, module)
        return modules


def infotext(p: Processing, all_prompts: list[str], index: int) -> str:
    """Return the generation parameters that are saved with an image, as the host writes them."""
    values = {"Steps": p.steps, "Sampler": p.sampler_name, **p.extra_generation_params}
    entries = {
        name: value(p=p, index=index, all_prompts=all_prompts) if callable(value) else value
        for name, value in values.items()
    }
    return ", ".join(f"{name}: {value}" for name, value in entries.items() if value is not None)


def compiled(conditioning):
    return [{"conditioning": conditioning, "model_conds": {}}]


def evaluated(model, cond, uncond, x, sigma, options):
    conditioning = cond[0]["conditioning"]
    model.inner_model.transformer_options = {**options["transformer_options"], "cond_or_uncond": [0]}
    if isinstance(conditioning, dict):
        return model(x, sigma, cond=conditioning), None
    return model(x, sigma, cond={"c_crossattn": [conditioning]}), None


class OptionInfo:
    def __init__(
        self, default, label="", component=None, component_args=None, onchange=None, section=None, restrict_api=False
    ) -> None:
        self.default, self.label, self.section, self.restrict_api = default, label, section, restrict_api
        self.component, self.component_args, self.onchange = component, component_args, onchange


class Component:
    """A stand-in for any component of gradio."""

    def __init__(self, *args: Any, **values: Any) -> None:
        self._value = values.get("value")
        self.label, self.interactive = values.get("label"), values.get("interactive")
        self.visible, self.lines = values.get("visible", True), values.get("lines")
        self.clicked: Any = None

    @property
    def value(self) -> Any:
        """The value of the component when a page is loaded; if it is a function, its result."""
        return self._value() if callable(self._value) else self._value

    def click(self, fn: Any, inputs: Any, outputs: Any) -> None:
        self.clicked = fn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Script:
    """The base class of an extension's script, with hooks that do nothing."""

    def process(self, p, *args): ...

    def process_batch(self, p, *args, **values): ...

    def process_before_every_sampling(self, p, *args, **values): ...

    def postprocess_batch(self, p, *args, **values): ...

    def postprocess_image(self, p, pp, *args): ...

    def postprocess_image_after_composite(self, p, pp, *args): ...

    def postprocess(self, p, processed, *args): ...


class Api:
    """A server of the host's HTTP API on loopback, which runs one job at a time."""

    def __init__(self, host: Host) -> None:
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                routes = {
                    "/sdapi/v1/samplers": lambda: [{"name": name} for name in SAMPLERS],
                    "/sdapi/v1/options": lambda: host.options.data,
                    "/sdapi/v1/scripts": lambda: {"txt2img": [script.title().lower() for script in host.scripts]},
                    **host.routes,
                }
                self._answer(routes[self.path]())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/sdapi/v1/options":
                    host.set_through_the_api(body)
                    self._answer(None)
                    return
                always = body.pop("alwayson_scripts", {})
                args = list(host.defaults[0]) if host.defaults else []
                for value in always.values():
                    args[: len(value["args"])] = value["args"]
                pictures = [
                    Image.open(io.BytesIO(base64.b64decode(encoded))) for encoded in body.pop("init_images", [])
                ]
                known = {name: value for name, value in body.items() if name in Processing.__dataclass_fields__}
                with lock:  # a host ignores unknown keys
                    p = Processing(**known, init_images=pictures, script_args=tuple(args))
                    result = host.process(p)
                encoded = []
                for image in result.images:
                    written = io.BytesIO()
                    image.save(written, "PNG")
                    encoded.append(base64.b64encode(written.getvalue()).decode())
                self._answer({"images": encoded, "info": json.dumps({"infotexts": result.infotexts})})

            def _answer(self, document: Any) -> None:
                data = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
