"""Stand in for ComfyUI in tests: the parts that its documentation and its own nodes rely on, around the embedded model.

Models are patched as clones. Wrappers wrap sampler runs (``WrappersMP.OUTER_SAMPLE``), a hook follows guidance, and
conditions are encoded for the model. Results of nodes are cached by their inputs and fingerprints. A node can ask for
the id of the running node and for its graph. The host swallows the exceptions of a prompt handler. :func:`install` puts
the modules that custom nodes import into ``sys.modules`` for a test.
"""

import asyncio
import copy
import importlib.util
import io
import json
import math
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.hosts.ksampling import Conditioning, Denoiser, noise, sampler
from tests.hosts.patched_unet import UNetModel, optimized_attention

INTEGRATION = Path(__file__).parents[2] / "integrations" / "comfyui"
SAMPLER_NAMES = [
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpmpp_2m",
    "dpmpp_sde",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
]


class Condition:
    """A tensor that conditions the model, repeated to the size of a batch when it is needed."""

    def __init__(self, cond):
        self.cond = cond

    def _copy_with(self, cond):
        return type(self)(cond)

    def process_cond(self, batch_size, **_):
        times = math.ceil(batch_size / len(self.cond))
        return self._copy_with(self.cond.repeat(times, *[1] * (self.cond.ndim - 1))[:batch_size])


class Model:
    """The embedded model with the interface of ComfyUI's ``BaseModel``."""

    def __init__(self, pipe):
        self.denoiser = Denoiser(pipe)
        self.scale = pipe.vae.config.scaling_factor
        factors = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).tolist()
        self.latent_format = SimpleNamespace(latent_channels=8, latent_rgb_factors=factors)
        self.model_sampling = SimpleNamespace(percent_to_sigma=lambda at: float(self.denoiser.sigmas(25)[int(at * 24)]))
        self.diffusion_model = UNetModel(pipe.unet)
        self.evaluated = []

    def process_latent_in(self, latent):
        return latent * self.scale

    def process_latent_out(self, latent):
        return latent / self.scale

    def extra_conds(self, *, cross_attn, noise, device, prompt_type, **_):
        assert prompt_type in {"positive", "negative"}
        return {"c_crossattn": Condition(cross_attn)}

    def apply_model(self, x, sigma, c_crossattn, transformer_options):
        self.evaluated.append(len(x))

        def unet(x, timesteps, context):
            return SimpleNamespace(sample=self.diffusion_model(x, timesteps, context, transformer_options))

        self.denoiser.pipe = SimpleNamespace(unet=unet)
        return self.denoiser(x, sigma, c_crossattn)


class InpaintingModel(Model):
    """A model that also takes the unmasked part of the picture and, like Flux, a guidance value as conditions.

    The embedded model uses neither; this class records the values that it receives in ``given``.
    """

    def __init__(self, pipe):
        super().__init__(pipe)
        self.given = []

    def extra_conds(self, *, latent_image=None, denoise_mask=None, guidance=3.5, noise, **more):
        masked = latent_image.expand(noise.shape) * (1 - denoise_mask.expand(len(noise), 1, *noise.shape[2:]))
        strength = torch.full((1,), guidance)
        given = {"c_concat": Condition(masked), "guidance": Condition(strength)}
        return {**super().extra_conds(noise=noise, **more), **given}

    def apply_model(self, x, sigma, c_crossattn, c_concat, guidance, transformer_options):
        self.given.append((c_concat, guidance))
        return super().apply_model(x, sigma, c_crossattn, transformer_options)


class ModelPatcher:
    def __init__(self, model):
        self.model = model
        self.load_device = "cpu"
        self.model_options = {"transformer_options": {}}
        self.wrappers = {}

    def clone(self):
        other = ModelPatcher(self.model)
        options = self.model_options
        other.model_options = {
            key: value.copy() if isinstance(value, dict | list) else value for key, value in options.items()
        }
        other.wrappers = {
            kind: {key: list(group) for key, group in keyed.items()} for kind, keyed in self.wrappers.items()
        }
        return other

    def add_wrapper_with_key(self, kind, key, wrapper):
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, kind, key):
        self.wrappers.get(kind, {}).pop(key, None)

    def set_model_sampler_post_cfg_function(self, function, disable_cfg1_optimization=False):
        before = self.model_options.get("sampler_post_cfg_function", [])
        self.model_options["sampler_post_cfg_function"] = [*before, function]
        if disable_cfg1_optimization:
            self.model_options["disable_cfg1_optimization"] = True


class WrappersMP:
    OUTER_SAMPLE = "outer_sample"
    CALC_COND_BATCH = "calc_cond_batch"


class Executor:
    """A callable that runs a function inside wrappers, outermost first.

    Every wrapper gets, as its first argument, an executor of the call that it wraps.
    """

    def __init__(self, original, class_obj, wrappers):
        self.original, self.class_obj, self.wrappers = original, class_obj, list(wrappers)

    def __call__(self, *args, **kwargs):
        if not self.wrappers:
            return self.original(*args, **kwargs)
        return self.wrappers[0](Executor(self.original, self.class_obj, self.wrappers[1:]), *args, **kwargs)


def convert_cond(conditioning):
    return [{**options, "cross_attn": cond, "model_conds": {}} for cond, options in conditioning]


def prepare_mask(mask, shape, device):
    mask = torch.nn.functional.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]).float(), size=shape[-2:])
    return mask.expand(shape[0], 1, *shape[2:]).to(device)


def encode_model_conds(function, conds, noise, device, prompt_type, **more):
    given = {"noise": noise, "device": device, "prompt_type": prompt_type, **more}
    return [{**cond, "model_conds": {**cond["model_conds"], **function(**{**given, **cond})}} for cond in conds]


def calculate_start_end_timesteps(model, conds):
    for at, cond in enumerate(conds):
        if "end_percent" in cond:
            conds[at] = {**cond, "timestep_end": model.model_sampling.percent_to_sigma(cond["end_percent"])}


def calc_cond_batch(model, conds, x, timestep, model_options):
    """Evaluate conditionings inside the wrappers, as ``comfy/samplers.py`` does, and tell the UNet their indices."""
    keyed = model_options.get("transformer_options", {}).get("wrappers", {}).get("calc_cond_batch", {})
    wrappers = [wrapper for group in keyed.values() for wrapper in group]
    return Executor(_calc_cond_batch, None, wrappers)(model, conds, x, timestep, model_options)


def _calc_cond_batch(model, conds, x, timestep, model_options):
    outputs = []
    for number, entries in enumerate(conds):
        options = {**model_options.get("transformer_options", {}), "cond_or_uncond": [number], "sigmas": timestep}
        held = [cond for cond in entries or () if float(timestep[0]) >= cond.get("timestep_end", 0.0)]
        made = [
            model.apply_model(
                x,
                timestep,
                **{k: v.process_cond(batch_size=len(x)).cond for k, v in c["model_conds"].items()},
                transformer_options=options,
            )
            for c in held
        ]
        outputs.append(torch.stack(made).mean(0) if made else torch.zeros_like(x))
    return outputs


def sampling_function(model, x, timestep, uncond, cond, cond_scale, model_options):
    if math.isclose(cond_scale, 1.0) and not model_options.get("disable_cfg1_optimization"):
        uncond = None
    d_c, d_u = calc_cond_batch(model, [cond, uncond], x, timestep, model_options)
    result = d_u + (d_c - d_u) * cond_scale
    for function in model_options.get("sampler_post_cfg_function", []):
        result = function(
            {
                "denoised": result,
                "cond": cond,
                "uncond": uncond,
                "cond_scale": cond_scale,
                "model": model,
                "uncond_denoised": d_u,
                "cond_denoised": d_c,
                "sigma": timestep,
                "model_options": model_options,
                "input": x,
            }
        )
    return result


class CFGGuider:
    def __init__(self, patcher):
        self.model_patcher, self.cfg = patcher, 1.0
        self.model_options = patcher.model_options
        self.original_conds = {}

    def set_conds(self, **conds):
        self.original_conds = {key: convert_cond(value) for key, value in conds.items()}

    def __call__(self, x, sigma, **_):
        latent, mask, noise = self.kept
        if mask is not None:  # the unmasked part stays as it is, at the noise of the step
            x = x * mask + (latent + noise * sigma.view(-1, 1, 1, 1)) * (1 - mask)
        made = sampling_function(
            *(self.inner_model, x, sigma, self.conds.get("negative"), self.conds["positive"], self.cfg),
            self.model_options,
        )
        return made if mask is None else made * mask + latent * (1 - mask)

    def outer_sample(self, noise, latent, sampler, sigmas, mask=None, callback=None, disable_pbar=False, seed=None):
        model = self.inner_model = self.model_patcher.model
        latent = model.process_latent_in(latent) if latent.any() else latent
        mask = mask if mask is None else prepare_mask(mask, noise.shape, noise.device)
        given = {"latent_image": latent, "denoise_mask": mask, "seed": seed}
        for kind, conds in self.conds.items():
            calculate_start_end_timesteps(model, conds)
            self.conds[kind] = encode_model_conds(model.extra_conds, conds, noise, noise.device, kind, **given)
        self.kept = (latent, mask, noise / sigmas[0])
        try:
            made = sampler.sample(self, sigmas, callback, noise, seed)
            return self.inner_model.process_latent_out(made)
        finally:
            del self.inner_model

    def sample(self, noise, latent, sampler, sigmas, mask=None, callback=None, seed=None):
        self.conds = copy.copy(self.original_conds)
        options = {**self.model_options["transformer_options"], "wrappers": self.model_patcher.wrappers}
        self.model_options = {**self.model_options, "transformer_options": options}
        wrappers = [
            wrapper for group in self.model_patcher.wrappers.get("outer_sample", {}).values() for wrapper in group
        ]
        run = Executor(self.outer_sample, self, wrappers)
        try:
            return run(noise, latent, sampler, sigmas, mask, callback, True, seed)
        finally:
            del self.conds


class KSampler:
    """A sampler of k-diffusion with the interface of ComfyUI's ``KSAMPLER``."""

    def __init__(self, name):
        self.sampler_function = sampler(name)
        if name in {"dpm_fast", "dpm_adaptive"}:  # ComfyUI wraps these in functions of its own

            def chosen(model, x, sigmas, **more):
                steps = (len(sigmas) - 1,) if name == "dpm_fast" else ()
                return sampler(name)(model, x, float(sigmas[-2]), float(sigmas[0]), *steps, **more)

            chosen.__name__ = f"{name}_function"
            self.sampler_function = chosen

    def sample(self, guider, sigmas, callback, noise, seed):
        total = len(sigmas) - 1
        report = None if callback is None else lambda info: callback(info["i"], info["denoised"], info["x"], total)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.sampler_function(guider, noise, sigmas, extra_args={}, callback=report, disable=True)


class Clip:
    def __init__(self, pipe):
        self.encoded = []
        self._words = Conditioning(pipe)

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        self.encoded.append(tokens)
        return [[self._words.encode([tokens]), {"pooled_output": None}]]


class Vae:
    def __init__(self, pipe):
        self._pipe = pipe

    @torch.no_grad()
    def encode(self, pixels):
        return self._pipe.vae.encode(pixels.permute(0, 3, 1, 2) * 2 - 1).latents

    @torch.no_grad()
    def decode(self, latent):
        return (self._pipe.vae.decode(latent).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


PREVIEWS = []
"""The predictions that the host's own preview was given in the latest run."""


def _drawn(guider, name, latent, steps, seed, denoise=1.0):
    PREVIEWS.clear()
    model = guider.model_patcher.model
    levels = model.denoiser.sigmas(steps, highest=denoise)
    x = noise(latent["samples"].shape, levels, seed) + latent["samples"] * model.scale * (denoise < 1)
    shown = lambda step, x0, x, total: PREVIEWS.append(x0)  # noqa: E731
    mask = latent.get("noise_mask")
    return {**latent, "samples": guider.sample(x, latent["samples"], KSampler(name), levels, mask, shown, seed)}


def _node(inputs, returns, function, *, output=False, intermediate=False, optional=None):
    """Build a ComfyUI node class that runs a function.

    Args:
        inputs: types of the required inputs, by name.
        returns: types of the outputs.
        function: takes the inputs by name, and returns the outputs.
        output: whether the node delivers a result, such as a saved picture.
        intermediate: whether the node shows a result, and passes it on as well.
        optional: types of the optional inputs, by name.
    """
    types = {"required": {key: (kind,) for key, kind in inputs.items()}}
    types["optional"] = {key: (kind,) for key, kind in (optional or {}).items()}
    body = {"INPUT_TYPES": classmethod(lambda _: types), "RETURN_TYPES": returns, "FUNCTION": "run"}
    body |= {"OUTPUT_NODE": output, "HAS_INTERMEDIATE_OUTPUT": intermediate}
    return type("Node", (), {**body, "run": lambda _, **given: function(**given)})


def nodes_of(pipe, saved):
    """Build the host's own node classes, by name; nodes that save or show pictures append them to ``saved``."""
    cond = {"positive": "CONDITIONING", "negative": "CONDITIONING"}
    numbers = {"seed": "INT", "steps": "INT", "cfg": "FLOAT", "sampler_name": SAMPLER_NAMES, "scheduler": ["normal"]}
    size = {"width": "INT", "height": "INT", "batch_size": "INT"}

    def load(ckpt_name):
        return ModelPatcher(Model(pipe)), Clip(pipe), Vae(pipe)

    def ksampler(model, positive, negative, latent_image, seed, steps, cfg, sampler_name, scheduler, denoise):
        guider = CFGGuider(model)
        guider.set_conds(positive=positive, negative=negative)
        guider.cfg = cfg
        return (_drawn(guider, sampler_name, latent_image, steps, seed, denoise),)

    def basic_guider(model, conditioning):
        guider = CFGGuider(model)
        guider.set_conds(positive=conditioning)
        return (guider,)

    def custom(guider, latent_image, seed, steps, sampler_name):
        return (_drawn(guider, sampler_name, latent_image, steps, seed),)

    def added(destination, source, x, y, operation):
        made = destination.clone()
        made[:, y : y + source.shape[1], x : x + source.shape[2]] += source
        return (made.clamp(0, 1),)

    def crop(image, region):
        saved.append(image)  # as the page shows a picture
        top, left, height, width = region
        return {"ui": {"images": len(image)}, "result": (image[:, top : top + height, left : left + width],)}

    def save(images, filename_prefix):
        saved.append(images)
        return {"ui": {"images": len(images)}, "result": ()}

    return {
        "CheckpointLoaderSimple": _node({"ckpt_name": "STRING"}, ("MODEL", "CLIP", "VAE"), load),
        "LoraLoader": _node(
            {"model": "MODEL", "clip": "CLIP"}, ("MODEL", "CLIP"), lambda model, clip: (model.clone(), clip)
        ),
        "CLIPTextEncode": _node(
            {"clip": "CLIP", "text": "STRING"},
            ("CONDITIONING",),
            lambda clip, text: (clip.encode_from_tokens_scheduled(clip.tokenize(text)),),
        ),
        "EmptyLatentImage": _node(
            size,
            ("LATENT",),
            lambda width, height, batch_size: ({"samples": torch.zeros(batch_size, 8, height // 4, width // 4)},),
        ),
        "KSampler": _node(
            {"model": "MODEL", **numbers, **cond, "latent_image": "LATENT", "denoise": "FLOAT"}, ("LATENT",), ksampler
        ),
        "BasicGuider": _node({"model": "MODEL", "conditioning": "CONDITIONING"}, ("GUIDER",), basic_guider),
        "SamplerCustomAdvanced": _node(
            {"guider": "GUIDER", "latent_image": "LATENT", "seed": "INT", "steps": "INT", "sampler_name": "COMBO"},
            ("LATENT",),
            custom,
        ),
        "VAEDecode": _node(
            {"samples": "LATENT", "vae": "VAE"}, ("IMAGE",), lambda samples, vae: (vae.decode(samples["samples"]),)
        ),
        "VAEEncode": _node(
            {"pixels": "IMAGE", "vae": "VAE"}, ("LATENT",), lambda pixels, vae: ({"samples": vae.encode(pixels)},)
        ),
        "SetLatentNoiseMask": _node(
            {"samples": "LATENT", "mask": "MASK"}, ("LATENT",), lambda samples, mask: ({**samples, "noise_mask": mask},)
        ),
        "FluxGuidance": _node(
            {"conditioning": "CONDITIONING", "guidance": "FLOAT"},
            ("CONDITIONING",),
            lambda conditioning, guidance: ([[cond, {**more, "guidance": guidance}] for cond, more in conditioning],),
        ),
        "SolidMask": _node(
            {"value": "FLOAT", "width": "INT", "height": "INT"},
            ("MASK",),
            lambda value, width, height: (torch.full((1, height, width), float(value)),),
        ),
        "MaskComposite": _node(
            {"destination": "MASK", "source": "MASK", "x": "INT", "y": "INT", "operation": "COMBO"}, ("MASK",), added
        ),
        "MaskToImage": _node(
            {"mask": "MASK"}, ("IMAGE",), lambda mask: (mask.reshape(-1, *mask.shape[-2:], 1).expand(-1, -1, -1, 3),)
        ),
        "ImageToMask": _node(
            {"image": "IMAGE", "channel": "COMBO"}, ("MASK",), lambda image, channel: (image[..., 0],)
        ),
        "MaskPreview": _node({"mask": "MASK"}, (), lambda mask: saved.append(mask) or {"result": ()}, output=True),
        "PreviewAny": _node({"source": "*"}, (), lambda source: {"result": (str(source),)}, output=True),
        "ImageCrop": _node({"image": "IMAGE", "region": "BOUNDING_BOX"}, ("IMAGE",), crop, intermediate=True),
        "Region": _node({}, ("BOUNDING_BOX",), lambda: ((0, 0, 16, 16),)),
        "LoadVideo": _node({"file": "STRING"}, ("VIDEO",), lambda file: (file,)),
        "CreateVideo": _node({"images": "IMAGE", "fps": "FLOAT"}, ("VIDEO",), lambda images, fps: (images,)),
        "SaveVideo": _node({"video": "VIDEO"}, (), lambda video: saved.append(video) or {"result": ()}, output=True),
        "SaveVoxels": _node({"voxels": "VOXEL"}, (), lambda voxels: {"result": ()}, output=True),
        "Voxels": _node({"image": "IMAGE"}, ("VOXEL",), lambda image: (image,)),
        "LoadImage": _node({"image": "STRING"}, ("IMAGE",), lambda image: (torch.full((1, 32, 32, 3), 0.25),)),
        "SaveImage": _node({"images": "IMAGE", "filename_prefix": "STRING"}, (), save, output=True),
        "SaveLatent": _node({"samples": "LATENT"}, (), lambda samples: {"result": ()}, output=True),
    }


class Routes(dict):
    """HTTP handlers by path, with the interface of aiohttp's route table."""

    def get(self, path):
        return lambda handler: self.setdefault(path, handler)


class PromptServer:
    """The server that takes workflows and runs them, one at a time.

    Attributes:
        executed: class names of the nodes that the latest workflow ran, without cached ones.
        shown: values that nodes gave the page to show, by node id.
    """

    def __init__(self, classes):
        self.last_prompt_id = None
        self.executing = None
        self.routes = Routes()
        self.classes = classes
        self.executed = []
        self.shown = {}
        self.metadata = {}
        self._handlers = []
        self.cache = {}

    def add_on_prompt_handler(self, handler):
        self._handlers.append(handler)

    def post(self, workflow, **extra):
        """Handle ``POST /prompt``: run a workflow, and return the status with the nodes' outputs or an error."""
        document = {"prompt": workflow, "client_id": "test", "extra_data": {"client_id": "test", **extra}}
        for handler in self._handlers:
            try:
                document = handler(document)
            except Exception:  # noqa: BLE001, S112 (that is what the host does)
                continue
        if "prompt" not in document:
            return 400, "no prompt"
        nodes = document["prompt"]
        unknown = [node["class_type"] for node in nodes.values() if node["class_type"] not in self.classes]
        if unknown:
            return 400, f"node {unknown[0]} does not exist"
        outputs = [name for name, node in nodes.items() if getattr(self.classes[node["class_type"]], "OUTPUT_NODE", 0)]
        if not outputs:
            return 400, "Prompt has no outputs"
        for name, node in nodes.items():
            kind = self.classes[node["class_type"]]
            missing = set(kind.INPUT_TYPES()["required"]) - set(node["inputs"])
            if missing:
                return 400, f"{name}: required inputs are missing: {sorted(missing)}"
            valid = kind.VALIDATE_INPUTS(**node["inputs"]) if hasattr(kind, "VALIDATE_INPUTS") else True
            if valid is not True:
                return 400, f"Custom validation failed for node: {name} - {valid}"
        self.metadata = document["extra_data"].get("extra_pnginfo")
        self.last_prompt_id = f"prompt-{id(document)}-{len(self.executed)}"
        self.executed = []
        done = {}
        return 200, {name: self._run(nodes, name, done) for name in outputs}

    def _signature(self, nodes, name):
        node = nodes[name]
        kind = self.classes[node["class_type"]]
        plain = {key: value for key, value in node["inputs"].items() if not isinstance(value, list)}
        changed = kind.IS_CHANGED(**plain) if hasattr(kind, "IS_CHANGED") else ""
        changed = object() if isinstance(changed, float) and math.isnan(changed) else changed
        given = [
            (key, (self._signature(nodes, value[0]), value[1]) if isinstance(value, list) else value)
            for key, value in sorted(node["inputs"].items())
        ]
        return (name, node["class_type"], changed, tuple(given))

    def _run(self, nodes, name, done):
        if name in done:
            return done[name]
        signature = self._signature(nodes, name)
        if signature not in self.cache:
            self.cache[signature] = self._executed(nodes, name, done)
        done[name] = self.cache[signature]
        return done[name]

    def _executed(self, nodes, name, done):
        node = nodes[name]
        kind = self.classes[node["class_type"]]
        given = {
            key: self._run(nodes, value[0], done)[value[1]] if isinstance(value, list) else value
            for key, value in node["inputs"].items()
        }
        hidden = {"UNIQUE_ID": name, "DYNPROMPT": SimpleNamespace(get_node=nodes.__getitem__)}
        hidden["EXTRA_PNGINFO"] = self.metadata
        given |= {key: hidden[kind] for key, kind in kind.INPUT_TYPES().get("hidden", {}).items()}
        self.executed.append(node["class_type"])
        self.executing = SimpleNamespace(node_id=name, list_index=0)
        result = getattr(kind(), kind.FUNCTION)(**given)
        self.shown[name] = result.get("ui", {}) if isinstance(result, dict) else {}
        return result["result"] if isinstance(result, dict) else result


class Api:
    """An HTTP server on loopback with the part of ComfyUI's API that programs use to run workflows.

    Args:
        comfy: the return value of :func:`install`.
    """

    def __init__(self, comfy):
        self._comfy = comfy
        self._history = {}
        self._metadata = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                where = urlsplit(self.path)
                if where.path == "/view":
                    self._answer(200, api.picture(parse_qs(where.query)["filename"][0]), "image/png")
                else:
                    self._answer(200, json.dumps(api.answer(where.path)).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                extra = body.get("extra_data", {})
                status, document = api.queued(body["prompt"], extra) if self.path == "/prompt" else api.freed()
                self._answer(status, json.dumps(document).encode())

            def _answer(self, status, content, kind="application/json"):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path):
        if path == "/object_info":
            listing = {}
            for name, kind in self._comfy.server.classes.items():
                required = {key: list(value) for key, value in kind.INPUT_TYPES()["required"].items()}
                required |= {"ckpt_name": [["glyphs"]]} if name == "CheckpointLoaderSimple" else {}
                listing[name] = {"input": {"required": required}}
            return listing
        if path in self._comfy.server.routes:
            return asyncio.run(self._comfy.server.routes[path](None))
        name = path.removeprefix("/history/")
        return {name: self._history[name]} if name in self._history else {}

    def freed(self):
        self._comfy.server.cache.clear()
        return 200, {}

    def queued(self, nodes, extra):
        name, before = f"run-{len(self._history)}", len(self._comfy.saved)
        try:
            status, answer = self._comfy.server.post(nodes, **extra)
        except Exception as error:  # noqa: BLE001 (what a node raises ends its workflow, and not the host)
            self._history[name] = {"status": {"status_str": "error", "messages": [str(error)]}, "outputs": {}}
            return 200, {"prompt_id": name}
        if status != 200:
            return status, {"error": answer}
        self._metadata |= dict.fromkeys(range(before, len(self._comfy.saved)), self._comfy.server.metadata or {})
        images = [
            {"filename": f"{index}-{at}", "subfolder": "", "type": "output"}
            for index in range(before, len(self._comfy.saved))
            for at in range(len(self._comfy.saved[index]))
        ]
        self._history[name] = {"status": {"status_str": "success"}, "outputs": {"7": {"images": images}}}
        return 200, {"prompt_id": name}

    def picture(self, filename):
        index, at = map(int, filename.split("-"))
        image = self._comfy.saved[index][at]
        picture = Image.fromarray((image.numpy() * 255).round().clip(0, 255).astype("uint8"))
        written = io.BytesIO()
        metadata = PngInfo()
        for key, value in self._metadata[index].items():
            metadata.add_text(key, json.dumps(value))
        picture.save(written, "PNG", pnginfo=metadata)
        return written.getvalue()


def install(monkeypatch, pipe):
    """Install the stand-in for ComfyUI and load the extension into it, for one test.

    Returns:
        A namespace with ``integration`` (the extension's package), ``server``, ``saved`` (saved pictures) and
        ``reloads`` (models that were loaded to the device again).
    """
    saved = []
    classes = nodes_of(pipe, saved)
    server = PromptServer(classes)
    reloads = []
    modules = {
        "comfy": {},
        "comfy.patcher_extension": {"WrappersMP": WrappersMP},
        "comfy.sampler_helpers": {"convert_cond": convert_cond, "prepare_mask": prepare_mask},
        "comfy.samplers": {
            "calculate_start_end_timesteps": calculate_start_end_timesteps,
            "encode_model_conds": encode_model_conds,
            "calc_cond_batch": calc_cond_batch,
        },
        "comfy.model_management": {"load_models_gpu": reloads.append},
        "comfy.ldm": {},
        "comfy.ldm.modules": {},
        "comfy.ldm.modules.attention": {"optimized_attention": optimized_attention},
        "comfy_execution": {},
        "comfy_execution.utils": {"get_executing_context": lambda: server.executing},
        "aiohttp": {"web": SimpleNamespace(json_response=lambda document: document)},
        "comfyui_version": {"__version__": "0.3.64"},
        "nodes": {"NODE_CLASS_MAPPINGS": classes},
        "server": {"PromptServer": SimpleNamespace(instance=server)},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
    for name in [module_name for module_name in sys.modules if module_name.startswith("comfyui_dnp_guard")]:
        monkeypatch.delitem(sys.modules, name)
    spec = importlib.util.spec_from_file_location(
        "comfyui_dnp_guard", INTEGRATION / "__init__.py", submodule_search_locations=[str(INTEGRATION)]
    )
    integration = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "comfyui_dnp_guard", integration)
    spec.loader.exec_module(integration)
    for name in [module_name for module_name in sys.modules if module_name.startswith("comfyui_dnp_guard.")]:
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))  # removed after the test
    classes.update(integration.NODE_CLASS_MAPPINGS)
    return SimpleNamespace(integration=integration, server=server, saved=saved, reloads=reloads)
