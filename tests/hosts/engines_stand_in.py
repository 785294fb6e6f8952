"""Stand-ins for the parts of the engines that an adapter touches; ``make engines`` runs the real engines."""

from types import ModuleType, SimpleNamespace

import torch


def vllm_omni():
    """Build the module of vLLM-Omni's runner, with its adapter of a diffusers pipeline and one pipeline of its own."""

    class DiffusersAdapterPipeline(torch.nn.Module):
        def __init__(self, pipeline):
            super().__init__()
            self._pipeline = pipeline

        def forward(self, batch):
            with torch.inference_mode():
                return SimpleNamespace(output=self._pipeline(**batch.requests[0].arguments).images)

    class QwenImagePipeline(torch.nn.Module):
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
    module.QwenImagePipeline = QwenImagePipeline
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
    """Build the module of SGLang-Diffusion's worker, with its wrapper of a diffusers pipeline and one of its own."""
    module = ModuleType("sglang.multimodal_gen.runtime.managers.gpu_worker")
    module.GPUWorker = type("GPUWorker", (Worker,), {})  # the plugin changes these
    for kind in (DenoisingStage, DiffusersPipeline, ImagePipeline, WanCausalDenoisingStage):
        setattr(module, kind.__name__, kind)
    return module
