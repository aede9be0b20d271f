"""The measurements' own arithmetic, and that the GPU part runs; how fast anything is, no test says."""

from __future__ import annotations

import importlib.util
import io
import json
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import kernels, peers, scaling
from benchmarks.flops import counted, step_flop
from benchmarks.images import random_cifar
from benchmarks.paired import interleaved, ratios
from benchmarks.plan import METHODS, Plan
from benchmarks.table import Entry, Missing, Row, Table, high, number, percentile
from ssl_lab.config import RunConfig
from ssl_lab.trainer import Trainer

TINY = Plan(device=torch.device("cpu"), tiny=True)
WHOLE = Plan(device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beside other work two threads on tiny networks wait for one another; the other tests get theirs back."""
    before = torch.get_num_threads()
    monkeypatch.setattr("ssl_lab.trainer.usable_cores", lambda: 1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12,346"), (999.9, "1,000"), (123.45, "123"), (12.345, "12.3"), (1.2345, "1.23"),
        (0.012345, "0.0123"), (0, "0"), (-2.5, "-2.50"),
    ],
)  # fmt: skip
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert number(value) == text


def test_a_row_says_n_median_and_spread() -> None:
    row = Row("a | b", "ms", [3.0, 1.0, 2.0, 10.0], ["derived", "more"])
    assert row.line("step") == "| step | a / b | 4 | 2.50 | ms | 1.00 to 10.0 | derived; more |"
    assert Row("once", "s", [2.0]).line("page") == "| page | once | 1 | 2.00 | s | one value |  |"


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_a_row_without_a_figure_cannot_be_made(values: list[float]) -> None:
    with pytest.raises(ValueError, match="are not measurements"):
        Row("nothing", "s", values)


def test_percentiles() -> None:
    values = [float(i) for i in range(1, 41)]
    assert percentile(values, 0.95) == 38
    assert percentile([7.0], 0.95) == 7
    assert high(values, "ms") == "95th percentile 38.0 ms"


def test_the_table_is_printed_and_kept_as_json_and_outlives_a_section_that_fails(tmp_path: Path) -> None:
    out, file = io.StringIO(), tmp_path / "new" / "results.json"
    table = Table({"Hardware": "two cores"}, out, file)

    def broken() -> Iterator[Entry]:
        yield Row("before", "s", [1.0])
        raise RuntimeError("no more\nand more words")

    table.begin()
    table.take("one", iter([Row("what", "ms", [1.0, 2.0]), Missing("the rest", "there is none")]))
    assert not table.failed
    table.take("two", broken())
    table.end()
    assert table.failed
    lines = out.getvalue().splitlines()
    assert lines[:3] == ["Hardware: two cores", "", "| section | what | n | median | unit | spread | besides |"]
    assert "| one | what | 2 | 1.50 | ms | 1.00 to 2.00 |  |" in lines
    assert "* one: the rest: there is none" in lines
    assert "* two: what has no row above: it failed: RuntimeError: no more" in lines
    kept = json.loads(file.read_text())
    assert kept["about"] == {"Hardware": "two cores"}
    assert [(row["section"], row["what"], row["values"]) for row in kept["rows"]] == [
        ("one", "what", [1.0, 2.0]), ("two", "before", [1.0]),
    ]  # fmt: skip
    assert kept["rows"][0] | {"n": 2, "median": 1.5, "least": 1.0, "most": 2.0, "unit": "ms"} == kept["rows"][0]
    assert [left["why"] for left in kept["left_out"]] == ["there is none", "it failed: RuntimeError: no more"]


# ---------------------------------------------------------------- side by side


def test_paired_ratios_do_not_see_a_drift_that_both_have() -> None:
    drift = [1.0, 3.0, 9.0, 2.0]
    assert ratios([1.5 * d for d in drift], drift) == [1.5] * 4
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_measures_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleaved({name: partial(measure, name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1.0, 6.0, 7.0], "b": [2.0, 5.0, 8.0], "c": [3.0, 4.0, 9.0]}


# ---------------------------------------------------------------- FLOP


def whole(method: str) -> RunConfig:
    return WHOLE.resnet(method, 128)


def test_a_view_through_the_resnet_is_555_million_multiplications() -> None:
    small = whole("BYOL").model_copy(update={"batch_size": 2})
    encoder = Trainer(small, random_cifar(2, 2)).online.encoder
    flop = counted(encoder, torch.zeros(1, 3, 32, 32).expand(2, -1, -1, -1), backward=False)
    assert flop / 2 / 2 == pytest.approx(555e6, rel=2e-3)


def test_an_image_of_byol_is_8_89_gflop_and_of_simsiam_6_66() -> None:
    assert step_flop(whole("BYOL")) == pytest.approx(8.89e9, rel=2e-3)
    assert step_flop(whole("SimSiam")) == pytest.approx(6.66e9, rel=2e-3)


# ---------------------------------------------------------------- the command


def test_sections_are_chosen_by_name_and_run_in_their_order() -> None:
    assert command.chosen(None, gpu=True) == list(command.GPU)
    assert command.chosen(None, gpu=False) == [name for name in command.SECTIONS if name != "profile"]
    assert command.chosen("peers, peak", gpu=False) == ["peak", "peers"]
    with pytest.raises(ValueError, match="no section speed; the sections are peak, step"):
        command.chosen("peak,speed", gpu=False)
    with pytest.raises(ValueError, match="no section"):
        command.chosen(" ,", gpu=False)


def test_an_unknown_section_is_an_error_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["--only", "speed"])
    assert end.value.code == 2
    assert "there is no section speed" in capsys.readouterr().err


def test_every_section_is_listed_and_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(command.SECTIONS)
    assert [line.split()[0] for line in listed if "GPU part" in line] == list(command.GPU)
    for module, _ in command.SECTIONS.values():
        assert callable(importlib.import_module(module).measure)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_gpu_part_asks_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--gpu"])
    assert "--gpu --device cpu" in capsys.readouterr().err


def without_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has only what the engine needs."""
    found = importlib.util.find_spec
    hidden = types.SimpleNamespace(
        util=types.SimpleNamespace(find_spec=lambda name: None if name == "lightly" else found(name))
    )
    monkeypatch.setattr(peers, "importlib", hidden)


def test_the_gpu_part_runs_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_lightly(monkeypatch)
    assert command.main(["--gpu", "--device", "cpu", "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert "a trial at tiny sizes: the figures mean nothing" in out
    kept = json.loads((tmp_path / "found.json").read_text())
    rows = {section: [row["what"] for row in kept["rows"] if row["section"] == section] for section in command.GPU}
    for method in METHODS:
        assert any(what.startswith(f"{method}, tiny ResNet") for what in rows["step"]), method
    assert any("BYOL with the record" in what for what in rows["step"])
    derived = [row["besides"] for row in kept["rows"] if row["what"].startswith("101 epochs")]
    assert derived
    assert all("derived from the row above, not run" in said[0] for said in derived)
    for what in ("DirectPred over linear predictor", "DirectCopy over linear predictor", "recorded over alone"):
        assert any(found.startswith(what) for found in rows["overhead"]), what
    for what in ("one run, BYOL", "2 runs one after another, DirectPred", "2 runs as one over one after another, BYOL"):
        assert any(found.startswith(what) for found in rows["together"]), what
    assert any("torchvision's transforms per image" in what for what in rows["peers"])
    assert not any("lightly" in what for what in rows["peers"])
    assert any(what.startswith("linear probe") for what in rows["evaluation"])
    assert any(what.startswith("convolution") for what in rows["profile"])
    # What the machine is called or where it keeps its files is nobody's business.
    assert "/" not in kept["about"]["Hardware"]


@pytest.mark.skipif(importlib.util.find_spec("lightly") is None, reason="lightly is not installed")
@pytest.mark.filterwarnings("ignore")
def test_lightly_is_measured_where_it_is_installed() -> None:
    rows = [entry for entry in peers.measure(TINY) if isinstance(entry, Row)]
    assert any(row.what.startswith("lightly's example, fp32: BYOL") for row in rows)
    assert any(row.what.startswith("ours, fp32 over lightly's example") for row in rows)


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolution"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816wgrad_optimized>", "convolution"),
        ("void cudnn::bn_bw_1C11_kernel_new<float>", "batch norm"),
        ("void at::native::batch_norm_collect_statistics_channels_last_kernel<at::native::Var>", "batch norm"),
        ("nvjet_tst_128x64_64x10_1x2_h_bz_NNT", "matrix product"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x128>", "matrix product"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", "elementwise"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "copy"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, sum_functor>>", "reduction"),
        ("triton_poi_fused_add_3", "elementwise"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("void at::native::syevj_something", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, name: str) -> None:
    assert kernels.group(kernel) == name


# ------------------------------------------------------------------ scaling


def test_the_page_on_scaling_says_what_its_arithmetic_gives(capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main()
    page = Path("docs/scaling.md").read_text()
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page


def test_a_step_says_what_two_real_ranks_were_counted_to_say() -> None:
    """ResNet-18, width 64, hidden 512, d = 128, DirectPred: counted in a run of two gloo ranks."""
    said = scaling.traffic(scaling.model("resnet18", hidden=512, dim=128), on_gpu=False)
    assert said.collectives == 82 + 42 + 1
    assert said.gathered == pytest.approx(170e3, rel=0.005)
    assert said.reduced + said.predictor == pytest.approx(216e3 + 65.5e3, rel=0.005)
    assert said.gradients == pytest.approx(46.6e6, rel=0.02)


def test_efficiency_has_its_limits() -> None:
    """Alone 100 %; the more images a GPU the better; a slow wire costs what the bytes say."""
    m = scaling.model("resnet50")
    one, eight, _ = scaling.LINKS
    assert scaling.efficiency(m, one, 1, 1e14) == 1
    assert scaling.efficiency(m, eight, 1e6, 1e14) == pytest.approx(1, abs=1e-3)
    slow = scaling.Link(name="", gpus=2, bandwidth=1e6, latency=0.0)
    compute = m.image_flop / 1e14
    # Two GPUs send their bytes once, whether they are summed or gathered.
    assert scaling.seconds(m, slow, 1, 1e14) == pytest.approx(scaling.traffic(m).total / 1e6 + compute / 2)
    t = scaling.traffic(m)
    assert scaling.on_the_wire(t, 64) == pytest.approx(63 * t.gathered + 126 / 64 * (t.total - t.gathered))
    assert scaling.efficiency(m, eight, 64, 1e14, of_whole=True) == scaling.efficiency(m, eight, 8, 1e14)
