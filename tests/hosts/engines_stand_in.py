"""Stand in for the parts of serving engines that the guard's adapters touch; ``make engines`` runs the real ones."""

import zlib
from types import ModuleType, SimpleNamespace

import torch
from diffusers import FlowMatchEulerDiscreteScheduler


class CFGParallelMixin:
    """The methods of vLLM-Omni's guidance mixin that the guard replaces, for a single process."""

    def predict_noise_maybe_with_cfg(
        self,
        do_true_cfg,
        true_cfg_scale,
        positive_kwargs,
        negative_kwargs,
        cfg_normalize=True,
        output_slice=None,
        kwargs=None,
    ):
        positive = self.predict_noise(**positive_kwargs)
        if not do_true_cfg:
            return positive
        negative = self.predict_noise(**negative_kwargs)
        return self.combine_cfg_noise((positive,), (negative,), true_cfg_scale, cfg_normalize)

    def combine_cfg_noise(self, positive, negative, true_cfg_scale, cfg_normalize=False, kwargs=None):
        return negative[0] + true_cfg_scale * (positive[0] - negative[0])

    def scheduler_step_maybe_with_cfg(self, noise_pred, t, latents, do_true_cfg):
        return self.scheduler.step(noise_pred, t, latents, return_dict=False)[0]


class StableDiffusion3Pipeline(torch.nn.Module, CFGParallelMixin):
    """A tiny pipeline with the interface of vLLM-Omni's own: it encodes, draws latents, guides, steps and decodes."""

    def __init__(self, *, data=1, stages=1, **config):
        super().__init__()
        parallel = SimpleNamespace(data_parallel_size=data, pipeline_parallel_size=stages)
        plain = {"cache_backend": "none", "step_execution": False, "output_type": "pil", "parallel_config": parallel}
        self.od_config = SimpleNamespace(**{**plain, **config})
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        self.evaluated = 0

    def encode(self, texts):
        """Encode texts to vectors that are equal for equal texts only."""
        seeds = [torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts]
        return torch.stack([torch.randn(4, generator=seed) for seed in seeds])

    def predict_noise(self, hidden_states, timestep, encoder_hidden_states):
        self.evaluated += 1
        return torch.tanh(hidden_states + encoder_hidden_states[:, :, None, None])

    def forward(self, batch):
        sampling, count = batch.requests[0].sampling_params, batch.requests[0].sampling_params.num_outputs_per_prompt
        given = [{"prompt": one.prompt} if isinstance(one.prompt, str) else one.prompt for one in batch.requests]
        positive = self.encode([one["prompt"] for one in given]).repeat_interleave(count, 0)
        negative = self.encode([one.get("negative_prompt", "") for one in given]).repeat_interleave(count, 0)
        seeds = [one.sampling_params.generator for one in batch.requests for _ in range(count)]
        latents = torch.stack([torch.randn(4, 8, 8, generator=seed) for seed in seeds])
        self.scheduler.set_timesteps(sampling.num_inference_steps)
        guided = sampling.guidance_scale > 1
        for t in self.scheduler.timesteps:
            same = {"hidden_states": latents, "timestep": t}
            with_prompt = {**same, "encoder_hidden_states": positive}
            without = {**same, "encoder_hidden_states": negative} if guided else None
            noise = self.predict_noise_maybe_with_cfg(guided, sampling.guidance_scale, with_prompt, without, False)
            latents = self.scheduler_step_maybe_with_cfg(noise, t, latents, guided)
        images = torch.tanh(latents[:, :3])
        return [SimpleNamespace(output=rows, custom_output={}) for rows in images.split(count)]


class DiffusionEngine:
    """The class of vLLM-Omni that turns a worker's output into results for clients."""

    def postprocess_output(self, request, output):
        return [SimpleNamespace(images=output.output, custom_output=output.custom_output)]


def vllm_omni():
    """Build a stand-in for the module of vLLM-Omni's runner, with a diffusers adapter and two own pipelines."""

    class DiffusersAdapterPipeline(torch.nn.Module):
        def __init__(self, pipeline):
            super().__init__()
            self._pipeline = pipeline

        def forward(self, batch):
            with torch.inference_mode():
                return SimpleNamespace(output=self._pipeline(**batch.requests[0].arguments).images)

    class WanPipeline(torch.nn.Module):
        def forward(self, batch):
            return SimpleNamespace(output=["a picture that nobody looked at"])

    class DiffusionModelRunner:
        def __init__(self, model):
            self.model = model
            self.pipeline = None

        def load_model(self, load_format="default"):
            if load_format != "dummy":
                self.pipeline = self.model

        def execute_model(self, request):
            return self.pipeline.forward(SimpleNamespace(requests=[request]))

        def execute_model_batch(self, request):
            return self.execute_model(request)

        def execute_stepwise(self, request):
            return self.execute_model(request)

    module = ModuleType("vllm_omni.diffusion.worker.diffusion_model_runner")
    module.DiffusionModelRunner = DiffusionModelRunner
    module.DiffusersAdapterPipeline = DiffusersAdapterPipeline
    module.WanPipeline = WanPipeline
    module.StableDiffusion3Pipeline = StableDiffusion3Pipeline
    return module


class Pipeline:
    def __init__(self, **arguments):
        self.server_args = SimpleNamespace(**{"num_gpus": 1, "dp_size": 1, **arguments})

    def forward_batch(self, batches, server_args):
        return [self.forward(batch, server_args) for batch in batches]

    def forward_batch_sequentially(self, batches, server_args):
        yield from self.forward_batch(batches, server_args)


class DiffusersPipeline(Pipeline):
    def __init__(self, pipeline, *, caches=False, **arguments):
        super().__init__(**arguments)
        self.diffusers_pipe = pipeline
        self._cache_dit_enabled = caches

    def forward(self, batch, server_args):
        batch.output = self.diffusers_pipe(**batch.arguments).images
        return batch


class DenoisingStage:
    role_affinity = SimpleNamespace(name="DENOISER")


class WanCausalDenoisingStage(DenoisingStage):
    pass


class ImagePipeline(Pipeline):
    def __init__(self, stages, *, image=True, comfyui=False, role="MONOLITHIC"):
        config = SimpleNamespace(task_type=SimpleNamespace(is_image_gen=lambda: image))
        role = SimpleNamespace(name=role)
        super().__init__(pipeline_config=config, comfyui_mode=comfyui, disagg_role=role)
        self.stages = stages

    def forward(self, batch, server_args):
        batch.output = ["a picture that nobody looked at"]
        return batch


class Worker:
    def __init__(self, made):
        self._made, self.pipeline = made, None

    def init_device_and_model(self):
        self.pipeline = self._made

    def execute_forward(self, batch):
        return self.pipeline.forward_batch(batch, self.pipeline.server_args)

    def execute_forward_sequentially(self, batch):
        results = self.pipeline.forward_batch_sequentially(batch, self.pipeline.server_args)
        for _ in batch:
            yield next(results)


def sglang():
    """Build a stand-in for the module of SGLang-Diffusion's worker, with a diffusers wrapper and one own pipeline."""
    module = ModuleType("sglang.multimodal_gen.runtime.managers.gpu_worker")
    module.GPUWorker = type("GPUWorker", (Worker,), {})  # the plugin changes these
    for kind in (DenoisingStage, DiffusersPipeline, ImagePipeline, WanCausalDenoisingStage):
        setattr(module, kind.__name__, kind)
    return module
