"""Every configuration is composed and built, every experiment runs; targets are called only if they are allowed."""

import copy
import importlib.metadata
import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models import AutoencoderTiny
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from generators.linear import LinearGenerator
from pulse_framework.cli.compose import ConfigError, build, choices, configs_folder, load
from pulse_framework.cli.draws import resolve
from pulse_framework.cli.methods import default_entries
from pulse_framework.cli.restore import prepare
from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.search import Plan
from tests.degradations.deepinv_standins import LinearPhysics
from tests.features.networks import untrained
from tests.generators import test_biggan as biggan

FILES = sorted(path.relative_to(configs_folder()) for path in configs_folder().glob("*/*.yaml"))
EXPERIMENTS = choices("experiment")
GOLDEN = Path(__file__).parent / "golden"


class Decoder(nn.Module):
    """The smallest decoder: 6 numbers to grey 8x8 images."""

    def __init__(self, side: int = 8) -> None:
        super().__init__()
        self.layer, self.side = nn.Linear(6, side * side), side

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(z)).reshape(-1, 1, self.side, self.side)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "y.png"
    Image.new("RGB", (8, 8), (90, 120, 150)).save(path)
    return path


@pytest.fixture(scope="module")
def lpips_files(tmp_path_factory):
    """Of 59 and 10 MB: written once."""
    folder = tmp_path_factory.mktemp("lpips")
    return {net: untrained(net, folder / f"{net}.pth") for net in ("vgg", "alex")}


@pytest.fixture
def extra(tmp_path, lpips_files):
    """What the configurations of users' own files need to be complete."""
    rng = torch.Generator().manual_seed(0)
    linear = LinearGenerator(0.1 * torch.randn(3, 16, 16, 4, generator=rng), torch.full((3, 16, 16), 0.5))
    save_file(linear.state_dict(), tmp_path / "linear.safetensors")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit", category=DeprecationWarning)
        torch.jit.save(torch.jit.trace(Decoder(), torch.zeros(2, 6)), tmp_path / "decoder.ts")
    with np.load(GOLDEN / "stylegan1_pulse_32.npz") as file:
        weights = {key.removeprefix("weights/"): torch.from_numpy(file[key]) for key in file if key.startswith("weights/")}
    torch.save(weights, tmp_path / "synthesis.pt")
    torch.save({"mean": torch.zeros(64), "std": torch.ones(64)}, tmp_path / "fit.pt")
    shapes = {"4x4/Dense": (5, 32), "4x4/Conv": (3, 3, 2, 2), "ToRGB_lod0": (1, 1, 2, 3)}
    progan = {f"{name}/weight": torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    progan |= {f"{name}/bias": torch.zeros(3 if name == "ToRGB_lod0" else 2) for name in shapes}
    save_file(progan, tmp_path / "progan.safetensors")
    widths = {f"{part}coder_block_out_channels": (4, 4) for part in ("en", "de")}
    autoencoder = AutoencoderTiny(**widths, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    autoencoder.save_pretrained(tmp_path / "vae")
    torch.save({name: tensor.float() for name, tensor in biggan.weights().items()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(biggan.CONFIG))
    np.save(tmp_path / "matrix.npy", np.ones((2, 12)))
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    return {
        "generator/biggan": [f"generator.path='{tmp_path}'"],
        "generator/diffusers_decoder": [f"generator.path='{tmp_path / 'vae'}'", "generator.side=4"],
        "generator/progan": [f"generator.path='{tmp_path / 'progan.safetensors'}'"],
        "generator/stylegan1": [
            f"generator.synthesis='{tmp_path / 'synthesis.pt'}'",
            f"generator.gaussian_fit='{tmp_path / 'fit.pt'}'",
        ],
        "generator/stylegan2": [f"generator.path='{GOLDEN / 'stylegan2_ada_skip.pkl'}'"],
        "generator/stylegan3": [f"generator.path='{GOLDEN / 'stylegan3_t.pkl'}'"],
        "generator/faces-stylegan2-64": ["generator.fit_samples=2000"],
        "generator/multi_code": [],
        "generator/tuned": ["generator.generator.fit_samples=2000"],
        "generator/linear": [f"generator.path='{tmp_path / 'linear.safetensors'}'"],
        "generator/module": ["generator.network={_target_:my_decoders.Decoder}", "generator.latent_shape=[6]"],
        "generator/torchscript": [f"generator.network.path='{tmp_path / 'decoder.ts'}'", "generator.latent_shape=[6]"],
        "features/lpips-vgg": [f"features.path='{lpips_files['vgg']}'"],
        "features/lpips-alex": [f"features.path='{lpips_files['alex']}'"],
        "degradation/bicubic": ["degradation.factor=8"],
        "degradation/downscale": ["degradation.factor=8"],
        "degradation/downscale_kernel": [f"degradation.path='{tmp_path / 'matrix.npy'}'", "degradation.factor=8"],
        "degradation/mask_file": [f"degradation.path='{tmp_path / 'mask.png'}'"],
        "degradation/psf": [f"degradation.path='{tmp_path / 'matrix.npy'}'"],
        "degradation/varying_blur": [f"degradation.path='{tmp_path / 'matrix.npy'}'"],
        "degradation/matrix": [f"degradation.path='{tmp_path / 'matrix.npy'}'"],
        "degradation/callable": ["degradation.function={_target_:my_decoders.Decoder}"],
        "degradation/deepinv": ["degradation.physics={_target_:my_decoders.LinearPhysics}"],
    }


@pytest.fixture
def allowed(monkeypatch):
    """A module of the user's own, with the decoder and an operator."""
    module = types.ModuleType("my_decoders")
    for made in (Decoder, LinearPhysics):
        setattr(module, made.__name__, made)
        monkeypatch.setattr(made, "__module__", "my_decoders")
    monkeypatch.setitem(sys.modules, "my_decoders", module)
    return ["my_decoders"]


@pytest.mark.weights
@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_is_composed_and_built(file, picture, extra, allowed, tmp_path):
    group, name = file.parent.name, file.stem
    if group == "checkpoint":  # the reader of `pulse weights inspect`, which is no part of the main configuration
        reader = OmegaConf.merge(OmegaConf.load(configs_folder() / file), {"path": str(GOLDEN / "stylegan3_t.pkl")})
        assert build(reader).family == "stylegan3"
        return
    if group == "bench":  # methods of `pulse bench`, none of them part of the main configuration
        tries = [overrides for entry in default_entries() for overrides in entry.tries]
        assert len(tries) > 4
        assert all(isinstance(build(load(overrides).search), Plan) for overrides in tries)
        return
    complete = extra.get(f"{group}/{name}", [])
    config = load([f"{group}={name}", *complete, f"output='{tmp_path}'", f"data.inputs=['{picture}']"])
    if group == "experiment":
        assert isinstance(build(config.search), Plan)
        return
    if group == "logger" and name == "none":
        assert not config.logger
        return
    made = build(resolve(config[group], 0, name), allowed)
    if group == "trainer":
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if here.get(name, True):
            made()
        else:
            with pytest.raises(ValueError, match="use device auto or cpu"):
                made()
    wanted = {"generator": Generator, "degradation": Degradation, "prior": LatentPrior, "search": Plan}
    assert isinstance(made, wanted.get(group, object))


def test_every_group_is_known():
    groups = {
        "bench",
        "checkpoint",
        "engine",
        "features",
        "generator",
        "degradation",
        "prior",
        "objective",
        "search",
        "data",
        "trainer",
        "logger",
        "experiment",
    }
    assert {file.parent.name for file in FILES} == groups


@pytest.mark.weights
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_two_steps(experiment, picture, extra, tmp_path):
    config = load([f"experiment={experiment}"])
    own = config.choices.generator
    generator = own if f"generator/{own}" in extra else "linear"
    settings = [
        f"experiment={experiment}",
        f"generator={generator}",
        *extra[f"generator/{generator}"],
        "search.steps=2",
        f"data.inputs=['{picture}']",
        f"output='{tmp_path / 'out'}'",
    ]
    report = prepare(load(settings))(quiet=True)
    assert report.counts.total() == 1
    assert report.exit_status(strict=False) == 0
    assert Path(report.written[0]).exists()


WRONG = {
    "search.nope=1": "search.nope: expected one of prior, objective, blocks",
    "nope=1": "nope: expected one of generator",
    "generator=nope": "digiface-dcgan-64",
    "nope/x=1": "nope",
    "experiment=nope": "pulse_stylegan",
    "search.steps=[1": "override search.steps=[1",
    "search.steps": "search.steps",
    "search.steps=${nope}": "nope",
}


@pytest.mark.parametrize("override", WRONG)
def test_mistakes_are_told_in_one_line(override):
    with pytest.raises(ConfigError) as caught:
        build(load([override]).search)
    assert WRONG[override] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_value_is_named():
    with pytest.raises(ConfigError, match=r"^generator\.path: expected a value, got none; give generator\.path=VALUE$"):
        build(load(["generator=linear"]).generator)


FORBIDDEN = (
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.load",
    "hydra.utils.get_method",
    "hydra.utils.instantiate",
    "pulse_framework.runtime.outputs.os.system",
    "pulse_framework.cli.compose.hydra.utils.get_class",
    "pulse_framework.weights.sources.subprocess.run",
    "pulse_framework_evil.f",
    "generatorsx.f",
)


@pytest.mark.parametrize("target", FORBIDDEN)
@pytest.mark.parametrize("nested", [False, True])
def test_targets_outside_the_list_are_refused(target, nested):
    inner = {"_target_": target, "_args_": ["true"]}
    node = OmegaConf.create({"_target_": "degradations.compose.compose", "parts": [{"a": [inner]}]} if nested else inner)
    with pytest.raises(ConfigError, match="expected a"):
        build(node)


def test_targets_without_callable_or_module_are_refused():
    for target in ("pulse_framework.nope", "pulse_framework.runtime", "generators.dcgan.nope.f"):
        with pytest.raises(ConfigError):
            build(OmegaConf.create({"_target_": target}))


def test_the_user_may_allow_a_package(allowed):
    node = OmegaConf.create({"_target_": "my_decoders.Decoder", "side": 4})
    with pytest.raises(ConfigError, match="--allow my_decoders"):
        build(node)
    assert build(node, allowed).side == 4
    with pytest.raises(ConfigError, match="--allow my_decoders"):
        build(OmegaConf.create({"allow": ["my_decoders"], **node}))


def test_entry_points_become_choices(monkeypatch, allowed):
    points = {
        "pulse_framework.generators": [
            importlib.metadata.EntryPoint("mine", "my_decoders:Decoder", "pulse_framework.generators")
        ],
        "pulse_framework.degradations": [
            importlib.metadata.EntryPoint("none-at-all", "my_decoders:Decoder", "pulse_framework.degradations"),
            importlib.metadata.EntryPoint("bicubic", "my_decoders:Decoder", "pulse_framework.degradations"),
        ],
    }
    real = importlib.metadata.entry_points
    load()  # Hydra registers its own parts at first use, and that must not end up in the copy
    monkeypatch.setattr(ConfigStore.instance(), "repo", copy.deepcopy(ConfigStore.instance().repo))
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **group: points.get(group.get("group")) if "group" in group else real()
    )
    assert "mine" in choices("generator")
    assert "none-at-all" in choices("degradation")
    assert isinstance(build(load(["generator=mine"]).generator), Decoder)
    assert isinstance(build(load(["degradation=none-at-all"]).degradation), Decoder)
    assert load(["degradation=bicubic"]).degradation._target_ == "degradations.downscale.Downscale"
