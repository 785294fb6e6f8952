"""The surface of each engine that an adapter touches, in its own names; ``make engines`` runs the real ones."""

from types import ModuleType, SimpleNamespace

import torch


def vllm_omni():
    """The module of vLLM-Omni's runner, with its adapter of a diffusers pipeline and one pipeline of its own."""

    class DiffusersAdapterPipeline(torch.nn.Module):
        def __init__(self, pipeline):
            super().__init__()
            self._pipeline = pipeline

        def forward(self, arguments):
            with torch.inference_mode():
                return SimpleNamespace(output=self._pipeline(**arguments).images)

    class QwenImagePipeline(torch.nn.Module):
        def forward(self, arguments):
            return SimpleNamespace(output=["a picture that nobody looked at"])

    class DiffusionModelRunner:
        def __init__(self, model):
            self.model = model
            self.pipeline = None

        def load_model(self, load_format="default"):
            if load_format != "dummy":
                self.pipeline = self.model

        def execute_model(self, arguments):
            return self.pipeline.forward(arguments)

        def execute_model_batch(self, arguments):
            return self.pipeline.forward(arguments)

        def execute_stepwise(self, arguments):
            return self.pipeline.forward(arguments)

    module = ModuleType("vllm_omni.diffusion.worker.diffusion_model_runner")
    module.DiffusionModelRunner = DiffusionModelRunner
    module.DiffusersAdapterPipeline = DiffusersAdapterPipeline
    module.QwenImagePipeline = QwenImagePipeline
    return module
