"""The paper's rows: their recipes, identities and overrides (Sec. 3.4 and 4.2)."""

from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.overrides import experiment_named, parse_setting

CIFAR = [
    "plain20", "plain32", "plain44", "plain56", "plain110",
    "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202", "resnet110-nowarmup",
]  # fmt: skip
SIGNALS = [
    f"{network}-{start}"
    for network in ("plain56", "resnet56")
    for start in ("gaussian", "xavier", "nobn", "nobn-gaussian", "nobn-xavier")
]
IMAGENET = [
    "plain18", "plain34", "resnet18", "resnet34-a", "resnet34-b", "resnet34-c", "resnet50",
    "resnet101", "resnet152", "plain18-3x", "plain34-3x", "plain50", "plain101",
]  # fmt: skip
RESNET20 = EXPERIMENTS["resnet20"]
OTHER_VALUES: dict[str, Any] = dict(
    name="other", family="imagenet", depth=26, block="bottleneck", shortcut="B", norm="none",
    bottleneck_stride="3x3", initialisation="xavier", iterations=64_001, global_batch_size=256,
    bn_group=32, bn_momentum=0.2, bn_eps=1e-3, lr=0.2, lr_drops=(32_000,), warmup_lr=0.01,
    warmup_until_err=70.0, weight_decay=0.0, weight_decay_scope="all", momentum=0.8, sgd="torch",
    augmentation="none", normalisation="none", precision="bf16", holdout=5000, eval_every=999,
    crop=192, scale=(256, 512), colour=0.0, decoding="dct_scaled", test_side=288, test_sides=(224,),
    protocols=("ten_crop",), statistics_images=1280,
)  # fmt: skip


def test_the_25_configurations_of_the_paper_are_rows_and_ten_without_its_care() -> None:
    assert list(EXPERIMENTS) == CIFAR + SIGNALS + IMAGENET
    assert all(name == experiment.name for name, experiment in EXPERIMENTS.items())


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_rows_follow_section_4_2(name: str) -> None:
    experiment = EXPERIMENTS[name]
    assert (experiment.family, experiment.iterations, experiment.lr_drops) == (
        "cifar",
        64_000,
        (32_000, 48_000),
    )
    assert (experiment.global_batch_size, experiment.bn_group, experiment.groups) == (128, 64, 2)
    assert (experiment.lr, experiment.momentum, experiment.weight_decay) == (0.1, 0.9, 1e-4)
    assert experiment.shortcut == ("none" if "plain" in name else "A")
    assert (experiment.augmentation, experiment.normalisation, experiment.precision) == (
        "pad_crop_flip",
        "per_pixel_mean",
        "fp32",
    )


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_rows_follow_section_3_4(name: str) -> None:
    experiment = EXPERIMENTS[name]
    times = 3 if name.endswith("-3x") else 1
    assert experiment.iterations == 600_000 * times
    assert experiment.lr_drops == (150_000 * times, 300_000 * times)
    assert (
        experiment.family,
        experiment.global_batch_size,
        experiment.bn_group,
        experiment.groups,
    ) == ("imagenet", 256, 32, 8)
    assert experiment.block == ("bottleneck" if experiment.depth >= 50 else "basic")


@pytest.mark.parametrize("name", SIGNALS)
def test_rows_for_the_signals_differ_from_their_network_in_norm_and_initialisation_alone(
    name: str,
) -> None:
    experiment, base = EXPERIMENTS[name], EXPERIMENTS[name.partition("-")[0]]
    same = dict(name=base.name, artifacts=base.artifacts, norm="batch", initialisation="he_fan_in")
    assert replace(experiment, **same) == base
    assert (experiment.norm == "none") == ("-nobn" in name)
    assert experiment.initialisation == {"gaussian": "gaussian_0.01", "xavier": "xavier"}.get(
        name.split("-")[-1], "he_fan_in"
    )


def test_footnotes_three_to_five_are_rows() -> None:
    cited = {experiment.artifacts[0]: [] for experiment in EXPERIMENTS.values()}
    for experiment in EXPERIMENTS.values():
        cited[experiment.artifacts[0]].append(experiment.name)
    assert cited["footnote_3"] == ["plain18-3x", "plain34-3x"]
    assert cited["footnote_4"] == ["plain50", "plain101"]
    assert cited["footnote_5"] == ["resnet110-nowarmup"]


def test_table_6_holds_the_six_residual_cifar_networks() -> None:
    in_table = [
        experiment.depth for experiment in EXPERIMENTS.values() if "table_6" in experiment.artifacts
    ]
    assert in_table == [20, 32, 44, 56, 110, 1202]


def test_golden_fingerprint() -> None:
    assert RESNET20.fingerprint == "c289b6b56546c30b"
    assert asdict(RESNET20) == dict(
        name="resnet20", artifacts=("table_6", "figure_6", "figure_7"), family="cifar", depth=20,
        block="basic", shortcut="A", norm="batch", bottleneck_stride="1x1",
        initialisation="he_fan_in", iterations=64000, global_batch_size=128, bn_group=64,
        bn_momentum=0.1, bn_eps=1e-05, lr=0.1, lr_drops=(32000, 48000), warmup_lr=None,
        warmup_until_err=80.0, weight_decay=0.0001, weight_decay_scope="conv_fc", momentum=0.9,
        sgd="caffe", augmentation="pad_crop_flip", normalisation="per_pixel_mean", precision="fp32",
        holdout=0, eval_every=1000, crop=224, scale=(256, 480), colour=0.1, decoding="exact",
        test_side=256, test_sides=(224, 256, 384, 480, 640), protocols=(), statistics_images=0,
    )  # fmt: skip


def test_rows_whose_colour_was_too_weak_are_other_rows_and_all_others_the_same() -> None:
    def fingerprint(name: str, **changes: Any) -> str:
        return replace(EXPERIMENTS[name], **changes).fingerprint

    assert fingerprint("resnet18") == "a9d3f1d5d54f1a3d"
    assert fingerprint("resnet18", normalisation="none") == "b5d11b15062a6829"
    # What they were, when the shift was not divided by the deviation.
    assert fingerprint("resnet18", normalisation="channel_mean_std") != "ad1e7738eaa68c6a"
    assert fingerprint("resnet18", normalisation="torchvision") != "a97555865e803a97"
    # Without the augmentation, and for small images, there was no shift.
    assert fingerprint("resnet18", normalisation="torchvision", colour=0.0) == "97c80baefbaf2b99"
    assert (
        fingerprint("resnet18", normalisation="torchvision", augmentation="none")
        == "bdaf04fca30166c3"
    )
    assert fingerprint("resnet20", normalisation="channel_mean_std") == "7251ed18b765d822"


def test_no_two_rows_share_a_fingerprint() -> None:
    assert len({experiment.fingerprint for experiment in EXPERIMENTS.values()}) == len(EXPERIMENTS)


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_every_field_is_part_of_the_fingerprint(field: str) -> None:
    experiment = replace(RESNET20, augmentation="none")  # which both families have
    other = {field: OTHER_VALUES[field]} if field != "augmentation" else {field: "pad_crop_flip"}
    assert replace(experiment, **other).fingerprint != experiment.fingerprint


def test_augmentation_belongs_to_a_family() -> None:
    with pytest.raises(ValueError, match="scale_crop_flip_colour is not for cifar rows"):
        replace(RESNET20, augmentation="scale_crop_flip_colour")
    with pytest.raises(ValueError, match="pad_crop_flip is not for imagenet rows"):
        replace(EXPERIMENTS["resnet50"], augmentation="pad_crop_flip")


def test_only_where_the_paper_shows_a_row_is_left_out_of_its_fingerprint() -> None:
    assert set(OTHER_VALUES) == set(asdict(RESNET20)) - {"artifacts"}
    assert replace(RESNET20, artifacts=()).fingerprint == RESNET20.fingerprint


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RESNET20.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("iterations", "drops", "eval_every"),
    [(4, (2, 3), 1), (640, (320, 480), 10), (128_000, (64_000, 96_000), 2_000)],
)
def test_scaled_to_moves_drops_and_evaluations_along(
    iterations: int, drops: tuple, eval_every: int
) -> None:
    scaled = RESNET20.scaled_to(iterations)
    assert (scaled.iterations, scaled.lr_drops, scaled.eval_every) == (
        iterations,
        drops,
        eval_every,
    )


def test_scaling_to_its_own_length_is_the_same_row() -> None:
    assert all(
        experiment.scaled_to(experiment.iterations) == experiment
        for experiment in EXPERIMENTS.values()
    )


def test_deviations_name_what_differs_from_the_paper() -> None:
    assert RESNET20.deviations() == {}
    assert replace(RESNET20, lr=0.05, sgd="torch").deviations() == {"lr": 0.05, "sgd": "torch"}
    assert replace(RESNET20, name="mine").deviations() == {"name": "mine"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(iterations=0), "iterations must be at least 1, not 0"),
        (dict(eval_every=0), "eval_every"),
        (dict(global_batch_size=192), r"power of two times bn_group \(64\), not 192"),
        (dict(global_batch_size=100), "global_batch_size"),
        (dict(lr_drops=(48_000, 32_000)), "lr_drops must rise"),
        (dict(lr_drops=(0,)), "lr_drops"),
        (dict(lr_drops=(64_001,)), "lr_drops"),
        (dict(lr=0.0), "lr must be above 0"),
        (dict(lr=float("nan")), "lr must be above 0"),
        (dict(momentum=-0.1), "momentum must not be negative"),
        (dict(holdout=-1), "holdout must not be negative"),
        (dict(warmup_lr=0.0), "warmup_lr must be above 0 or none"),
    ],
)
def test_a_row_that_cannot_be_trained_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(RESNET20, **changes)


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("lr=0.05", "lr", 0.05),
        ("depth=26", "depth", 26),
        ("warmup_lr=none", "warmup_lr", None),
        ("warmup_lr=0.01", "warmup_lr", 0.01),
        ("lr_drops=15,23", "lr_drops", (15, 23)),
        ("lr_drops=", "lr_drops", ()),
        ("shortcut=B", "shortcut", "B"),
    ],
)
def test_a_setting_has_its_fields_type(setting: str, field: str, value: Any) -> None:
    assert parse_setting(setting) == (field, value)
    assert type(parse_setting(setting)[1]) is type(value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lr", "FIELD=VALUE"),
        ("lerning_rate=1", "no field lerning_rate"),
        ("momentun=0.9", "did you mean momentum"),
        ("name=x", "no field name"),
        ("depth=twenty", "depth takes a whole number, not 'twenty'"),
        ("lr=fast", "lr takes a number, not 'fast'"),
        ("lr=nan", "lr takes a number"),
        ("lr=inf", "lr takes a number"),
        ("shortcut=D", "one of none, A, B, C"),
        ("lr_drops=1,x", "whole numbers with commas"),
    ],
)
def test_a_wrong_setting_says_what_would_be_right(setting: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_setting(setting)


@pytest.mark.parametrize(
    ("name", "settings", "iterations", "said"),
    [
        ("resnet21", [], None, "unknown experiment resnet21; did you mean .*resnet20"),
        ("resnet20", [], 3, "at least 4 iterations"),
        (
            "resnet20",
            ["depth=21"],
            None,
            "resnet20: depth must be 6n[+]2 with basic blocks, not 21",
        ),
        ("resnet50", ["depth=52"], None, "depth 52 with bottleneck blocks is not in Table 1"),
        ("resnet20", ["bn_group=48"], None, "power of two"),
    ],
)
def test_an_untrainable_request_is_one_line(
    name: str, settings: list, iterations: int | None, said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        experiment_named(name, settings, iterations)
    assert "\n" not in str(error.value)


def test_settings_apply_after_scaling() -> None:
    experiment: Experiment = experiment_named("resnet20", ["eval_every=7", "lr=0.05"], 640)
    assert (experiment.iterations, experiment.lr_drops, experiment.eval_every, experiment.lr) == (
        640,
        (320, 480),
        7,
        0.05,
    )
