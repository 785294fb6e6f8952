"""Run the guard's plugin in the real vLLM-Omni, as far as the engine runs without a GPU: ``make engines``.

The engine's diffusers adapter is real: it loads a pipeline of random weights and generates. So are the class of its
runner, whose methods the plugin guards, and the entry point that loads the plugin. vLLM is replaced, so this module
makes the runner, picks the loader and schedules. The server and the worker processes are not run.
"""

import hashlib
import importlib
import json
import os
import pickle
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import torch

from dnp_guard import DnpGuardError
from dnp_guard.hosts.engines import attestation
from dnp_guard.hosts.engines.vllm_omni import ENGINE, RUNNER
from dnp_guard.hosts.engines.worker import WORKER
from tests.hosts import engines_stubs
from tests.hosts.tiny import tiny
from tests.policies import policy, star

GUARDED = ("load_model", "execute_model", "execute_model_batch", "execute_stepwise")


def show(name, value):
    print(f"{name:<36}{value}")  # noqa: T201 (it is what the command is for)


def digest(images):
    return hashlib.sha256(images.tobytes()).hexdigest()[:16]


def configure(folder, name, looks, **more):
    """Write a guard's settings and the scripted answers of its backend; return the path of its audit log."""
    script, audit = folder / f"{name}.script.json", folder / f"{name}.jsonl"
    script.write_text(json.dumps(looks))
    settings = {"policy": "glyphs", "vlm": f"scripted:{script}", "audit": [str(audit)], "state": str(folder / "state")}
    file = folder / f"{name}.json"
    file.write_text(json.dumps({**settings, **more}))
    os.environ["DNP_GUARD_ENGINE_CONFIG"] = str(file)
    return audit


def stricter(folder):
    """Write a stricter policy that requests may name; return a list with its path, for the settings."""
    file = folder / "strict.yaml"
    file.write_text(json.dumps(policy(name="strict", categories=[star(action="block")]).resolved()))
    return [str(file)]


def adapter(saved):
    """Return the engine's own diffusers adapter, after it has loaded the saved pipeline."""
    from vllm_omni.diffusion.models.diffusers_adapter import DiffusersAdapterPipeline

    false = ("enable_diffusion_pipeline_profiler", "enforce_eager", "enable_layerwise_offload", "enable_cpu_offload")
    none = ("diffusion_offload_config", "cache_backend", "quantization_config", "diffusers_pipeline_cls")
    config = SimpleNamespace(
        model=str(saved),
        dtype=torch.float32,
        parallel_config=SimpleNamespace(tensor_parallel_size=1, cfg_parallel_size=1, sequence_parallel_size=1),
        diffusers_load_kwargs={},
        diffusers_call_kwargs={},
        model_class_name=None,
        vae_use_slicing=False,
        vae_use_tiling=False,
        output_type="np",
        **dict.fromkeys(false, False),
        **dict.fromkeys(none),
    )
    made = DiffusersAdapterPipeline(od_config=config, device=torch.device("cpu"))
    made.load_weights()
    made._pipeline.set_progress_bar_config(disable=True)  # noqa: SLF001 (the engine's)
    return made


def request(**extra):
    """Return a batch of one request, in the form that the adapter reads; ``extra`` are its extra arguments."""
    sampling = SimpleNamespace(
        height=32,
        width=32,
        num_inference_steps=4,
        guidance_scale=5.0,
        output_type=None,
        num_outputs_per_prompt=1,
        generator=None,
        seed=0,
        generator_device="cpu",
        enable_frame_interpolation=False,
        extra_args=extra,
    )
    batch = SimpleNamespace(prompts=["a lake at night"], sampling_params=sampling, is_dummy_run=lambda: False)
    batch.requests = [batch]
    return batch


def stand_in(runner, saved):
    """Replace two methods of the runner class, so that it loads and runs without vLLM's configuration.

    Call this before the plugin wraps the methods.
    """

    def load_model(self, load_format="diffusers"):
        self.pipeline = adapter(saved) if load_format == "diffusers" else torch.nn.Module()

    runner.load_model = load_model
    runner.execute_model = lambda self, request: self.pipeline.forward(request)


def worker(kind):
    """Load the plugin by its entry point, and return a new runner without a pipeline."""
    (point,) = metadata.entry_points(group="vllm_omni.general_plugins", name="dnp_guard")
    point.load()()
    runner = object.__new__(kind)
    runner.pipeline = None
    return runner


def fresh(kind, plain):
    """Undo the plugin's changes to the runner class, as if a new process had started."""
    if WORKER in vars(kind):
        if vars(kind)[WORKER].guard is not None:
            vars(kind)[WORKER].guard.close()
        delattr(kind, WORKER)
    for name, method in plain.items():
        setattr(kind, name, method)


def refuses(kind, load_format):
    """Return the reasons why a worker refuses to load and then to generate; empty unless it refuses both."""
    runner, reasons = worker(kind), []
    for run in (lambda: runner.load_model(load_format), lambda: runner.execute_model(request())):
        try:
            run()
        except DnpGuardError as error:
            reasons.append(error.message.splitlines()[0][:110])
    return reasons if len(reasons) == 2 else []


def result(output):
    """Return the result that a client gets for a worker's output, after the transfer between the engine's processes."""
    from vllm_omni.diffusion.ipc import pack_diffusion_output_shm, unpack_diffusion_output_shm

    kind = importlib.import_module(ENGINE).DiffusionEngine
    serving = object.__new__(kind)
    serving.od_config = SimpleNamespace(model_class_name="StableDiffusionPipeline", enable_cpu_offload=False)
    serving.post_process_func, serving._post_process_accepts_sampling_params = None, False
    arrived = unpack_diffusion_output_shm(pickle.loads(pickle.dumps(pack_diffusion_output_shm(output))))  # noqa: S301
    asked = request()
    asked.request_id, asked.prompt, asked.sampling_params.resolution = "request-0", asked.prompts[0], None
    (made,) = kind.postprocess_output(serving, asked, arrived)
    return made


def main():
    """Run all checks and print their results; return 1 if a check failed."""
    engines_stubs.install()
    kind = importlib.import_module(RUNNER).DiffusionModelRunner
    missing = [name for name in GUARDED if not callable(getattr(kind, name, None))]
    show("vllm_omni", metadata.version("vllm_omni"))
    show("methods that are guarded", f"MISSING: {missing}" if missing else ", ".join(GUARDED))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny("StableDiffusionPipeline").save_pretrained(folder / "model")
        stand_in(kind, folder / "model")
        plain = {name: getattr(kind, name) for name in GUARDED}
        unguarded = digest(adapter(folder / "model").forward(request()).output)
        show("unguarded", unguarded)

        configure(folder, "idle", [{}])
        runner = worker(kind)
        runner.load_model()
        output = runner.execute_model(request())
        idle = digest(output.output)
        show("guarded, nothing seen", idle)
        note = result(output).custom_output.get("dnp_guard", {})
        show("its result says", note)
        show("attested", attestation.header(attestation.reports(folder / "state")))

        fresh(kind, plain)
        log = configure(folder, "seen", [{"star": 0.99}, {}], stricter=stricter(folder))
        runner = worker(kind)
        runner.load_model()
        seen = digest(runner.execute_model(request()).output)
        show("guarded, a star seen", f"{seen} ({vars(kind)[WORKER].guard.last.images[0].decision})")
        digests = [vars(kind)[WORKER].guard.last.digest]
        runner.execute_model(request(dnp_guard={"policy": "strict"}))
        digests.append(vars(kind)[WORKER].guard.last.digest)
        vars(kind)[WORKER].guard.settle()
        records = [json.loads(line) for line in log.read_text().splitlines()]
        injected = next((record["negative"] for record in records if record.get("negative")), None)
        show("injected negative", injected)
        show("with a policy it names", " -> ".join(value[:16] for value in digests))

        refused = []
        for what, form, settings in (
            ("no such policy", "diffusers", {"policy": "no-such-policy"}),
            ("no backend", "diffusers", {"vlm": "nothing:x"}),
            ("the engine's own pipeline", "default", {}),
        ):
            fresh(kind, plain)
            configure(folder, "refused", [{}], **settings)
            refused.append(refuses(kind, form))
            show(f"refused: {what}", "; ".join(refused[-1]) or "NOT REFUSED")
    named = digests[0] != digests[1]
    well = injected and named and all(refused) and not missing and note.get("outcomes") == ["clean"]
    return 0 if idle == unguarded != seen and well else 1


if __name__ == "__main__":
    sys.exit(main())
