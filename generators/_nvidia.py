"""NVIDIA's pickles: modules that carry their own source text, and the TensorFlow networks before them.

PyTorch (codebases of StyleGAN2-ADA and StyleGAN3): a dict whose ``G_ema`` is a call of ``_reconstruct_persistent_obj(meta)`` with
``meta = {type, version, module_src, class_name, state}``. Upstream runs ``module_src``; here only ``state``, the module's
``__dict__``, is walked: ``_parameters``, ``_buffers`` and ``_modules`` to dotted names, and the plain attributes beside them.

TensorFlow (ProGAN, StyleGAN, StyleGAN2, StyleGAN2-ADA): a tuple (G, D, Gs) of ``dnnlib.tflib.network.Network`` (ProGAN:
``tfutil.Network``) with state ``{version, name, static_kwargs, components, build_module_src, variables}``, ProGAN's without
``components``. Upstream runs ``build_module_src``; here ``variables`` are read.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from generators._arrays import PLAIN, Array
from generators._pickle import NAME, AllowList, Global, Inert
from generators._storages import TORCH, LazyTensor

__all__ = [
    "CHECKPOINTS",
    "Module",
    "Namespace",
    "Network",
    "Plain",
    "arguments",
    "plain",
    "static_arguments",
    "variables",
    "walk",
]

GENERATOR = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs")
STYLEGAN3 = {  # what NVIDIA's constructors take when a file's arguments do not say
    "channel_base": 32768,
    "channel_max": 512,
    "num_critical": 2,
    "first_cutoff": 2,
    "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3,
    "margin_size": 10,
    "output_scale": 0.25,
    "num_fp16_res": 4,
    "filter_size": 6,
    "lrelu_upsampling": 2,
    "use_radial_filters": False,
    "conv_clamp": 256,
    "magnitude_ema_beta": 0.999,
}
STATIC = {  # a TensorFlow network's arguments under our names
    "latent_size": "z_dim",
    "label_size": "c_dim",
    "dlatent_size": "w_dim",
    "resolution": "img_resolution",
    "num_channels": "img_channels",
    "mapping_layers": "mapping_layers",
    "mapping_lrmul": "mapping_lr_multiplier",
    "conv_clamp": "conv_clamp",
    "num_fp16_res": "num_fp16_res",
    "resample_kernel": "resample_kernel",
}
MODULES = 2000  # a StyleGAN3 at 1024 x 1024 has some 35, a StyleGAN2 some 60
DEPTH = 32
NODES = 50_000
ITEMS = 256  # numbers of an array that is an attribute

Plain: TypeAlias = object  # None, bool, int, float, str, and lists and dicts of them


class Module(Inert):
    """The stand-in of a persistent object: its class's name and its state, without its source text."""

    def __init__(self, meta: object) -> None:
        match meta:
            case {"type": "class", "version": 6, "class_name": str(name), "state": dict(state)}:
                self.name, self.attributes = name[:NAME], state
            case _:
                raise ValueError("expected a persistent object of version 6 and its state, got something else; report this file")

    def build(self, state: object) -> None:
        """Refuse: its state came with it."""
        raise ValueError(
            "expected a persistent object to be whole, got a second state for it: the file is damaged; fetch it again"
        )


class Network(Inert):
    """The stand-in of ``dnnlib.tflib.network.Network`` and of ``tfutil.Network``."""


class Namespace(Inert):
    """The stand-in of ``argparse.Namespace``."""


CHECKPOINTS: AllowList = {
    **PLAIN,
    **TORCH,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Module,
    ("dnnlib.util", "EasyDict"): lambda *_: {},
    ("dnnlib.tflib.network", "Network"): Network,
    ("tfutil", "Network"): Network,
    ("argparse", "Namespace"): Namespace,
}
"""Every name that may occur in a checkpoint, whatever its format."""


def plain(value: object, nodes: Iterator[int] | None = None, depth: int = DEPTH) -> Plain:
    """Settings as numbers, text, lists and dicts; whatever else there is becomes a word in angle brackets."""
    nodes = iter(range(NODES)) if nodes is None else nodes
    if depth < 0 or next(nodes, None) is None:
        raise ValueError(f"expected at most {NODES} settings, nested at most {DEPTH} deep, got more; fetch the file again")
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple() | set():
            return [plain(item, nodes, depth - 1) for item in value]
        case dict():
            return {str(key): plain(item, nodes, depth - 1) for key, item in value.items()}
        case Namespace():
            return plain(value.state, nodes, depth - 1)
        case Array():
            array = value.numpy()
            return plain(array.tolist(), nodes, depth - 1) if array.size <= ITEMS else f"<array of shape {array.shape}>"
        case Global():
            return f"<{value.module}.{value.name}>"
    return f"<{type(value).__name__}>"


def walk(root: Module) -> tuple[dict[str, LazyTensor], dict[str, dict[str, Plain]]]:
    """Tensors by dotted name, as ``state_dict`` names them, and the plain attributes of each module by its dotted name."""
    tensors: dict[str, LazyTensor] = {}
    attributes: dict[str, dict[str, Plain]] = {}
    nodes, modules = iter(range(NODES)), iter(range(MODULES))

    def visit(module: Module, path: tuple[str, ...]) -> None:
        if len(path) > DEPTH or next(modules, None) is None:
            raise ValueError(f"expected at most {MODULES} modules, nested at most {DEPTH} deep, got more; fetch the file again")
        hidden = module.attributes.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _table(module, kind):
                if isinstance(tensor, LazyTensor):
                    if kind == "_parameters" or not (isinstance(hidden, set | list | tuple) and name in hidden):
                        tensors[".".join((*path, name))] = tensor
                elif tensor is not None:
                    raise ValueError(
                        f"expected tensors in {kind} of {module.name!r}, got {type(tensor).__name__}; fetch the file again"
                    )
        attributes[".".join(path)] = _settings(module, nodes)
        for name, child in _children(module):
            visit(child, (*path, name))

    visit(root, ())
    return tensors, attributes


def arguments(attributes: dict[str, dict[str, Plain]], family: str) -> dict[str, Plain]:
    """The architecture as a generator's own constructor was told it, the defaults of that constructor included."""
    root, fc0, conv = (attributes.get(name, {}) for name in ("", "mapping.fc0", "synthesis.b4.conv1"))
    args, kwargs = root.get("_init_args"), root.get("_init_kwargs")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError(
            "expected the arguments of the generator's constructor beside it, got none; save its state dict and use that"
        )
    told = dict(zip(GENERATOR, args, strict=False)) | kwargs
    mapping, synthesis = (told.pop(name, None) for name in GENERATOR[-2:])
    told |= synthesis if isinstance(synthesis, dict) else {}
    if isinstance(mapping, dict) and "num_layers" in mapping:
        told["mapping_layers"] = mapping["num_layers"]
    told["mapping_lr_multiplier"] = fc0.get("bias_gain", 0.01)  # what a layer makes of its `lr_multiplier`
    if family == "stylegan3":
        return STYLEGAN3 | told
    return told | {
        "conv_clamp": conv.get("conv_clamp")
    }  # the default differs between the two codebases; each layer keeps its own


def static_arguments(network: Network) -> tuple[int, dict[str, Plain], Plain]:
    """A TensorFlow network's version, its architecture as it and its components were told it, and all that it was told."""
    match network.state:
        case {"version": int(version), "static_kwargs": dict(own), **rest}:
            components = rest.get("components")  # version 2 has none
            states = (
                [part.state for part in components.values() if isinstance(part, Network)] if isinstance(components, dict) else []
            )
            parts = [state["static_kwargs"] for state in states if isinstance(state, dict) and "static_kwargs" in state]
            told: dict[object, object] = {}
            for part in (*parts, own):
                told |= part if isinstance(part, dict) else {}
            return version, {ours: plain(told[theirs]) for theirs, ours in STATIC.items() if theirs in told}, plain(told)
    raise ValueError("expected the static_kwargs of a TensorFlow network, got none; fetch the file again")


def _settings(module: Module, nodes: Iterator[int]) -> dict[str, Plain]:
    """A module's own attributes and what it was made with; not its machinery."""
    kept = {
        name: value
        for name, value in module.attributes.items()
        if isinstance(name, str) and name != "training" and (not name.startswith("_") or name in ("_init_args", "_init_kwargs"))
    }
    return {name: plain(value, nodes) for name, value in kept.items()}


def _tensors(module: Module) -> Iterator[tuple[str, LazyTensor]]:
    """A module's own tensors, those that its state dict has."""
    hidden = module.attributes.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _table(module, kind):
            if tensor is None or (kind == "_buffers" and isinstance(hidden, set) and name in hidden):
                continue
            if not isinstance(tensor, LazyTensor):
                raise ValueError(
                    f"expected tensors in {kind} of {module.name!r}, got {type(tensor).__name__}; fetch the file again"
                )
            yield name, tensor


def _children(module: Module) -> Iterator[tuple[str, Module]]:
    for name, child in _table(module, "_modules"):
        if isinstance(child, Module):
            yield name, child
        elif child is not None:
            raise ValueError(f"expected modules inside {module.name!r}, got {type(child).__name__}; fetch the file again")


def _table(module: Module, kind: str) -> Iterable[tuple[str, object]]:
    table = module.attributes.get(kind)
    if not isinstance(table, dict) or not all(isinstance(name, str) and name and "." not in name for name in table):
        raise ValueError(f"expected {kind} of {module.name!r} to be a dict of names, got something else; fetch the file again")
    return table.items()


def variables(network: Network, prefix: str = "", depth: int = 3) -> dict[str, object]:
    """The variables of a TensorFlow network and its components, by ``component/local name``; those of rank 0 are numbers."""
    match network.state:
        case {"version": 2 | 3 | 4, "variables": list(own), "components": dict(components)} if depth and len(components) < 16:
            pass
        case {"version": 2 | 3 | 4, "variables": list(own)}:
            components = {}
        case _:
            raise ValueError(
                "expected a TensorFlow network of version 2 to 4, got another; convert it with the code that wrote it"
            )
    found: dict[str, object] = {}
    for item in own:
        match item:
            case (str(name), Array() | int() | float() as value):
                found[prefix + name] = value
            case _:
                raise ValueError("expected names and arrays as a network's variables, got something else; fetch the file again")
    for name, component in components.items():
        if not isinstance(name, str) or not isinstance(component, Network):
            raise ValueError("expected networks as a network's components, got something else; fetch the file again")
        found |= variables(component, f"{prefix}{name}/", depth - 1)
    return found
