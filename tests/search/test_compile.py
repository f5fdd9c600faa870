"""The generator compiled: the same search to rounding, one graph, and what happens where nothing can be compiled."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generators._stylegan2_architecture import Architecture, random_tensors
from generators.stylegan2 import StyleGAN2
from pulse_framework.cli.compose import build, load
from pulse_framework.priors import SpherePrior
from pulse_framework.search import Adam, Engine, Geocross, L2Consistency, Objective, Phase, Search, StopRule
from pulse_framework.search.compiled import compiler_fault, synthesis
from pulse_framework.testing.toys import PoolToy

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # PyTorch's own, as it starts its compiler

ROOT = Path(__file__).parents[2]
TINY = Architecture((4, 3), z_dim=3, w_dim=4, mapping_layers=1)


def run(compile_):
    generator = StyleGAN2(random_tensors(TINY), TINY, noise="stored").double()
    phase = Phase(
        prior=SpherePrior(),
        objective=Objective({"data": L2Consistency(), "styles": Geocross(weight=0.01)}),
        optimiser=Adam(rate=0.1),
        stop=StopRule(steps=6),
        blocks=["w_plus"],
    )
    rng = torch.Generator().manual_seed(0)
    shape = PoolToy().measurement_shape(generator.image_shape)
    searches = [Search(str(i), torch.rand(shape, generator=rng, dtype=torch.float64), seed=1) for i in range(2)]
    engine = Engine(generator, PoolToy(), [phase], compile=compile_, slots=1)
    return {result.key: result for result in engine.run(searches)}


def compare():
    if fault := compiler_fault():  # a machine without a compiler says so
        with pytest.raises(ValueError, match="expected a compiler for cpu, got none"):
            run(True)
        sys.stdout.write(f"refused: {fault}\n")
        return
    eager, compiled = run(False), run(True)
    for key, expected in eager.items():
        torch.testing.assert_close(compiled[key].trace, expected.trace, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(compiled[key].image, expected.image, rtol=1e-9, atol=1e-9)
    sys.stdout.write(f"{len(eager)} compared\n")


def test_compiled_search_is_the_eager_one_to_rounding():
    """In a process of its own: the checks of annotations that the tests put into every function cannot be compiled."""
    script = "from tests.search.test_compile import compare; compare()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "2 compared\n" or (done.stdout.startswith("refused: ") and shutil.which("g++") is None), done.stderr


@pytest.fixture
def no_compiler(monkeypatch):
    torch.compiler.reset()
    import torch._inductor.cpp_builder as builder

    def none():
        raise builder.exc.InvalidCxxCompiler

    monkeypatch.setattr(builder, "get_cpp_compiler", none)
    yield
    torch.compiler.reset()


def test_without_a_compiler_auto_says_so_and_goes_on(no_compiler, caplog):
    generator = StyleGAN2(random_tensors(TINY), TINY, noise="stored")
    assert compiler_fault()
    with caplog.at_level(logging.WARNING):
        assert synthesis(generator, "auto", torch.device("cpu")) is generator
    assert "no compiler for cpu" in caplog.text
    assert "the search runs uncompiled" in caplog.text
    with pytest.raises(ValueError, match="expected a compiler for cpu, got none"):
        synthesis(generator, True, torch.device("cpu"))


def test_a_plan_is_refused_before_any_work(no_compiler):
    generator = StyleGAN2(random_tensors(TINY), TINY, noise="stored")
    plan = build(load(["search.compile=true", "search.blocks=[w_plus]"]).search)
    with pytest.raises(ValueError, match=r"search compile: expected a compiler, got none .*search.compile=auto"):
        plan.check(generator)


def test_uncompiled_is_the_generator_itself():
    generator = StyleGAN2(random_tensors(TINY), TINY, noise="stored")
    assert synthesis(generator, False, torch.device("cpu")) is generator
