"""Run the guard's plugin in the real SGLang-Diffusion, as far as the engine runs without a GPU: ``make engines``.

These parts are real: the engine's plugin loader; its worker, which loads a model of random weights from a folder and
draws on the CPU; all stages of its Stable Diffusion 3; its wrapper of a diffusers pipeline; and the application of its
HTTP server. Kernels and packages that need a GPU are replaced. The server's processes and its scheduler are not run.
"""

import importlib
import json
import logging
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name

import torch
from diffusers import StableDiffusion3Pipeline
from starlette.testclient import TestClient
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from dnp_guard import DnpGuardError, Outcome
from dnp_guard.hosts.engines import attestation
from dnp_guard.hosts.engines.sglang import RUNNER, SERVER
from dnp_guard.hosts.engines.worker import WORKER
from tests.hosts import engines_stubs
from tests.hosts.engines_real import configure, digest, show, stricter
from tests.hosts.tiny import parts, tiny
from tests.hosts.tiny.stable_diffusion import sd3
from tests.policies import policy, star

NATIVE = {"pipeline_class_name": "StableDiffusion3Pipeline"}
WRAPPED = {"backend": "diffusers"}
MODEL = "stable-diffusion-3-medium-diffusers"
"""Name of the model's folder, by which the engine recognises the model."""
OTHERS = {"FLUX.1-dev": "FluxPipeline", "Sana_600M_1024px_diffusers": "SanaPipeline"}
PARAMETERS = {
    MODEL: "stablediffusion3.StableDiffusion3SamplingParams",
    "FLUX.1-dev": "flux.FluxSamplingParams",
    "Sana_600M_1024px_diffusers": "sana.SanaSamplingParams",
}
"""The engine's class of sampling parameters per model."""
WAYS = ("init_device_and_model", "execute_forward", "execute_forward_sequentially")


def save(folder):
    """Save tiny models of random weights in a folder, with text encoders that accept the engine's prompt lengths."""
    torch.manual_seed(0)
    tokenizer = parts.clip_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 606, "eos_token_id": 607, "pad_token_id": 607}
    for model, kind in OTHERS.items():
        pipe = tiny(kind)
        if kind == "FluxPipeline":
            pipe.text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=608, projection_dim=32, **sizes, **ends))
        pipe.save_pretrained(folder / model)
    clips = [
        CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=608, projection_dim=32, **sizes, **ends))
        for _ in range(2)
    ]
    t5 = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=64, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    made = {**sd3(text_encoder_3=t5, tokenizer_3=tokenizer), "text_encoder": clips[0], "text_encoder_2": clips[1]}
    for name, weights in made["transformer"].named_parameters():
        if "context_embedder" in name:  # random weights hardly react to a prompt
            weights.data *= 16
    StableDiffusion3Pipeline(**made).save_pretrained(folder / MODEL)


def arguments(folder, way):
    """Return the engine's server arguments for a saved model, in single precision.

    Args:
        folder: folder of the saved models.
        way: arguments that choose the pipeline, and optionally ``model``, the name of the model's folder.
    """
    from sglang.multimodal_gen.runtime.server_args import ServerArgs, set_global_server_args

    path = folder / way.get("model", MODEL)
    options = {name: value for name, value in way.items() if name != "model"}
    made = ServerArgs.from_kwargs(model_path=str(path), num_gpus=1, **options)
    made.pipeline_config.dit_precision = made.pipeline_config.vae_precision = "fp32"
    made.pipeline_config.text_encoder_precisions = ("fp32",) * len(made.pipeline_config.text_encoder_precisions)
    set_global_server_args(made)
    return made


def drawn(worker, **more):
    """Send one request to a worker, as the engine's scheduler does, and return the answer."""
    from sglang.multimodal_gen.runtime.entrypoints.utils import prepare_request

    asked = {"prompt": "a lake at night", "num_inference_steps": 4, "guidance_scale": 5.0, "seed": 0, **more}
    form = resolve_name(f"sglang.multimodal_gen.configs.sample.{PARAMETERS[Path(worker.server_args.model_path).name]}")
    sampling = form(height=128, width=128, save_output=False, **asked)
    return worker.execute_forward([prepare_request(worker.server_args, sampling)])


def picture(answer):
    """Return the hash of an answer's picture, or the first line of its error."""
    return first_line(answer.error) or digest(answer.output.float().numpy())


def first_line(error):
    """Return the first line of an error; empty if there is no error."""
    return error.splitlines()[0] if error else ""


class Plugin:
    """A factory of the engine's workers, with and without the guard's plugin, in a single process.

    Args:
        kind: the engine's worker class.
        folder: folder of the saved models.
    """

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder
        self.plain = {name: getattr(kind, name) for name in WAYS}

    def worker(self, way):
        """Return a worker that has just loaded its model."""
        return self.kind(local_rank=0, rank=0, master_port=29511, server_args=arguments(self.folder, way))

    def guarded(self, way, name, looks, **settings):
        """Load the plugin with the engine's own loader, as in a new process, and return a guarded worker.

        Args:
            way: arguments that choose the pipeline, see :func:`arguments`.
            name: name for the files of this guard.
            looks: answers of the scripted backend, look by look.
            settings: further settings of the guard.
        """
        from sglang.multimodal_gen.runtime.platforms import plugins

        if WORKER in vars(self.kind):
            if self.guard is not None:
                self.guard.close()
            delattr(self.kind, WORKER)
        for method, before in self.plain.items():
            setattr(self.kind, method, before)
        self.log = configure(self.folder, name, looks, **settings)
        plugins._reset_lifecycle_for_tests()  # noqa: SLF001 (the engine's own, for tests)
        plugins.load_plugins()
        return self.worker(way)

    @property
    def guard(self):
        return vars(self.kind)[WORKER].guard

    def injected(self):
        """Return the first negative prompt in the audit log; None if there is none."""
        self.guard.settle()
        records = [json.loads(line) for line in self.log.read_text().splitlines()]
        return next((record["negative"] for record in records if record.get("negative")), None)


def compared(plugin, way, title):
    """Return whether the guard changes no bit if nothing is found, and steers if a star is found.

    It must also refuse a policy that is not offered, and apply a policy that the request names.
    """
    unguarded = picture(drawn(plugin.worker(way)))
    show(f"{title}: unguarded", unguarded)
    worker = plugin.guarded(way, "idle", [{}])
    answer = drawn(worker)
    idle = picture(answer)
    show("guarded, nothing seen", idle)
    show("attested", answer.usage["dnp_guard"])
    again = drawn(worker, diffusers_kwargs={"dnp_guard": {"policy": "other"}})
    show("a policy not offered", first_line(again.error) or "NOT REFUSED")
    worker = plugin.guarded(way, "seen", [{"star": 0.99}, {}], stricter=stricter(plugin.folder))
    seen = picture(drawn(worker))
    show("guarded, a star seen", f"{seen} ({plugin.guard.last.images[0].decision})")
    injected = plugin.injected()
    show("injected negative", injected)
    named = drawn(worker, diffusers_kwargs={"dnp_guard": {"policy": "strict"}}).usage["dnp_guard"]
    show("with a policy it names", named)
    return bool(idle == unguarded != seen and injected and again.error and named != answer.usage["dnp_guard"])


def redrawn(plugin):
    """Return whether the engine's own stages draw an image again after a failed final look, steered by the finding."""
    file = plugin.folder / "again.yaml"
    made = policy(queries={"steps": [0.5]}, categories=[star(still_present="retry")])
    file.write_text(json.dumps(made.resolved()))
    worker = plugin.guarded(NATIVE, "again", [{}, {"star": 0.99}, {}], policy=str(file))
    again = picture(drawn(worker))
    (image,) = plugin.guard.last.images
    show("drawn again", f"{again} ({image.decision}, {image.attempts} attempts)")
    return image.attempts == 2 and image.decision == Outcome.STEERED


def refusals(plugin):
    """Return whether a worker that cannot be guarded refuses to start, and requests that cannot be steered fail."""
    reasons = []
    for what, settings in (("no such policy", {"policy": "no-such-policy"}), ("no backend", {"vlm": "nothing:x"})):
        try:
            plugin.guarded(NATIVE, "refused", [{}], **settings)
            reasons.append("")
        except DnpGuardError as error:
            reasons.append(error.message.splitlines()[0][:110])
        show(f"refused: {what}", reasons[-1] or "NOT REFUSED")
    worker = plugin.guarded(NATIVE, "idle", [{}])
    video = resolve_name("sglang.multimodal_gen.configs.task_type.ModelTaskType").T2V
    for what, asked in (
        ("TeaCache", {"enable_teacache": True}),
        ("cfg_gate_step", {"cfg_gate_step": 0.5}),
        ("a video", {"task_type": video}),
    ):
        answer = drawn(worker, **asked)
        reasons.append(first_line(answer.error) if answer.output is None else "")
        show(f"refused: {what}", reasons[-1] or "NOT REFUSED")
    return all(reasons)


def main():
    """Run all checks and print their results; return 1 if a check failed."""
    engines_stubs.install()
    logging.disable(logging.CRITICAL)  # the engine logs every stage
    kind = importlib.import_module(RUNNER).GPUWorker
    show("sglang", metadata.version("sglang"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder)
        plugin = Plugin(kind, folder)
        well = [compared(plugin, NATIVE, "own stages"), redrawn(plugin)]
        well += [
            compared(plugin, {"model": model, "pipeline_class_name": kind}, kind) for model, kind in OTHERS.items()
        ]
        well += [compared(plugin, WRAPPED, "diffusers"), refusals(plugin)]
        plugin.guarded(NATIVE, "idle", [{}])
        server = importlib.import_module(SERVER).create_app(arguments(folder, NATIVE))
        answer = TestClient(server).get(attestation.PATH)
        show("its HTTP server", answer.json())
    return 0 if all(well) and answer.json()["guarded"] else 1


if __name__ == "__main__":
    sys.exit(main())
