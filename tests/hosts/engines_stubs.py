"""Stub the packages that a serving engine imports but that cannot be installed on a machine without a GPU.

``make engines`` uses these stubs; no other command does. The engines' own modules are real, except the top module of
``vllm_omni``, which changes vLLM when it is imported, and the subpackages of ``vllm_omni`` in :data:`PACKAGES`.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGES = (
    "addict",
    "aenum",
    "av",
    "cache_dit",
    "compressed_tensors",
    "flashinfer",
    "gguf",
    "imageio_ffmpeg",
    "janus",
    "librosa",
    "modelscope",
    "omegaconf",
    "partial_json_parser",
    "prettytable",
    "pynvml",
    "sentencepiece",
    "sgl_kernel",
    "soundfile",
    "torchvision",
    "triton",
    "tvm_ffi",
    "vllm",
    "vllm_omni.config",
    "vllm_omni.core",
    "vllm_omni.distributed",
    "vllm_omni.worker",
)
VALUES = {"__version__": "0", "__version_tuple__": (0, 0), "QUANTIZATION_METHODS": [], "device_type": "cpu"}
"""Attributes that must have a value of a certain type, in every stubbed module or object."""


class _Kind(type):
    """The metaclass of stubbed classes, which returns another stub for any attribute."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _named(name)

    def __iter__(cls):
        return iter(())

    def __contains__(cls, _):
        return False

    def __getitem__(cls, _):
        return cls

    def __or__(cls, _):
        return cls

    __ror__ = __or__


class _Nothing(metaclass=_Kind):
    """A stubbed object: false, empty, never less or greater than another, and a decorator that changes nothing."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __init_subclass__(cls, **_kwargs):
        pass

    def __call__(self, *args, **_kwargs):
        return args[0] if len(args) == 1 and callable(args[0]) else _Nothing()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return VALUES.get(name) or _Nothing()

    def __iter__(self):
        return iter(())

    def __bool__(self):
        return False

    def __lt__(self, _):
        return False

    __gt__ = __le__ = __ge__ = __lt__


def _named(name):
    return _Nothing() if name[0].islower() else _Kind(name, (_Nothing,), {})


class _Module(ModuleType):
    def __getattr__(self, name):
        if name in VALUES:
            return VALUES[name]
        if name.startswith("__"):
            raise AttributeError(name)
        made = sys.modules.get(f"{self.__name__}.{name}") or _named(name)
        setattr(self, name, made)
        return made


class _Stubs(MetaPathFinder, Loader):
    def find_spec(self, fullname, path=None, target=None):
        if any(fullname == name or fullname.startswith(f"{name}.") for name in PACKAGES):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        module.__path__ = []


def install():
    """Install the stubs, after diffusers and torch have checked which packages are really available."""
    import torch._inductor.codegen.triton  # noqa: F401 (as below)
    from diffusers import DiffusionPipeline, StableDiffusionPipeline  # noqa: F401 (imported for what they bring)

    sys.meta_path.insert(0, _Stubs())
    spec = PathFinder.find_spec("vllm_omni")
    top = ModuleType("vllm_omni")
    top.__path__, top.__spec__ = list(spec.submodule_search_locations), spec
    sys.modules["vllm_omni"] = top
