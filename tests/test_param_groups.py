"""Parameter groups of a model: what decays, tied and frozen weights, layers, overrides, the table."""

import copy
import re

import pytest
import torch
from torch import nn

import onepass
from onepass import param_groups
from onepass.schedules import linear


class ScaleRMSNorm(nn.Module):
    """A norm of one's own, whose weight has more than one dimension."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, width))

    def forward(self, x):
        return x / x.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt() * self.gain


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2 = ScaleRMSNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, width=8, blocks=3):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, width))
        self.embedding = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = ScaleRMSNorm(width)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embedding.weight

    def no_weight_decay(self):
        return {"pos_embed", "not_there"}

    def forward(self, tokens):
        x = self.embedding(tokens) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Untied(Transformer):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 11)


def residual(channels):
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = nn.Sequential(residual(4), residual(4))
        self.widen = nn.Conv2d(4, 6, 1)
        self.layer2 = nn.Sequential(residual(6), residual(6))
        self.scale = nn.Parameter(torch.ones(1, 6, 1, 1))
        self.conv_bias = nn.Parameter(torch.zeros(1, 6, 1, 1))
        self.fc = nn.Linear(6, 2)


def where(model, **options):
    """For each parameter's name its group."""
    groups = param_groups(model, named=True, **options)
    return {name: group for group in groups for name, _ in group["params"]}


def decaying(model, **options):
    return {name for name, group in where(model, weight_decay=0.1, **options).items() if group["weight_decay"] == 0.1}


def test_a_transformers_biases_norms_and_declared_names_do_not_decay():
    own = {"attn.in_proj_weight", "attn.out_proj.weight", "mlp.0.weight", "mlp.2.weight"}
    matrices = {f"blocks.{i}.{name}" for i in range(3) for name in own}
    assert decaying(Transformer()) == {"embedding.weight"} | matrices
    assert decaying(Transformer(), no_decay=[nn.Embedding]) == matrices
    assert decaying(Transformer(), no_decay="embedding.*") == matrices
    # By the other name of a tied weight as well.
    assert decaying(Transformer(), no_decay=[re.compile(r"^head\.")]) == matrices
    assert decaying(Untied(), no_decay=[nn.Embedding]) == matrices | {"head.weight"}


def test_a_conv_nets_batch_norms_and_biases_do_not_decay():
    convs = {"stem.0", "layer1.0.0", "layer1.1.0", "widen", "layer2.0.0", "layer2.1.0", "fc"}
    assert decaying(ConvNet()) == {f"{name}.weight" for name in convs} | {"scale"}


@pytest.mark.parametrize(
    ("name", "module", "decays"),
    [
        ("inner", nn.LayerNorm((4, 3, 3)), False),
        ("inner", type("MyLayerNorm2d", (ScaleRMSNorm,), {})(4), False),
        ("inner", type("PreNormBlock", (ScaleRMSNorm,), {})(4), True),
        ("ln_f", type("Scale", (ScaleRMSNorm,), {})(4), False),
        ("norm1", type("Scale", (ScaleRMSNorm,), {})(4), False),
        ("normal", type("Scale", (ScaleRMSNorm,), {})(4), True),
        ("norm", nn.Linear(4, 4, bias=False), True),
    ],
)
def test_norms_are_known_by_class_and_name(name, module, decays):
    model = nn.ModuleDict({name: module})
    assert bool(decaying(model)) is decays


def test_the_names_that_an_inner_model_declares_count():
    assert "1.pos_embed" not in decaying(nn.Sequential(nn.Linear(2, 2), Transformer()))


@pytest.mark.parametrize("model", [Transformer(), Untied(), ConvNet()], ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "layer_decay": 0.5}, {"overrides": {"*.weight": {"lr": 1.0}}}])
def test_every_parameter_is_in_one_group(model, options):
    groups = param_groups(model, weight_decay=0.1, **options)
    listed = [p for group in groups for p in group["params"]]
    assert {id(p) for p in listed} == {id(p) for p in model.parameters()}
    assert len(listed) == len(list(model.parameters()))
    assert len({group["name"] for group in groups}) == len(groups)


def test_frozen_parameters_are_kept_and_learn_once_unfrozen():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    groups = param_groups(model, weight_decay=0.1)
    assert re.search(r"frozen", str(groups))
    assert re.search(r"(?m)^total +4 +16 +2$", str(groups))
    opt = onepass.AdamW(groups, lr=0.1)
    before = model[0].weight.detach().clone()
    model(torch.ones(2, 3)).sum().backward()
    opt.step()
    assert torch.equal(model[0].weight, before)
    model[0].requires_grad_(True)
    model(torch.ones(2, 3)).sum().backward()
    opt.step()
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("make", [onepass.AdamW, torch.optim.AdamW])
def test_ours_and_torchs_optimizers_take_them_and_agree(make, named):
    torch.manual_seed(0)
    model = Transformer().double()
    models = [model, copy.deepcopy(model)]
    options = {"weight_decay": 0.1, "lr": 0.01, "layer_decay": 0.8, "no_decay": [nn.Embedding]}
    # Softmax ignores the keys' bias, whose gradient is then nothing but rounding: eps keeps it so.
    opts = [
        make(param_groups(models[0], named=named, **options), eps=1e-4),
        torch.optim.AdamW(param_groups(models[1], **options), eps=1e-4),
    ]
    tokens = torch.randint(11, (4, 5))
    for _ in range(3):
        for model, opt in zip(models, opts, strict=True):
            opt.zero_grad()
            model(tokens).square().mean().backward()
            opt.step()
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)
    assert ("param_names" in opts[0].param_groups[0]) is named


def test_layers_of_a_transformer():
    rates = {name: group["lr"] for name, group in where(Untied(), lr=1.0, layer_decay=0.5).items()}
    assert rates["pos_embed"] == rates["embedding.weight"] == 0.5**4
    for i in range(3):
        assert rates[f"blocks.{i}.attn.in_proj_weight"] == rates[f"blocks.{i}.ln_1.bias"] == 0.5 ** (3 - i)
        assert rates[f"blocks.{i}.mlp.2.weight"] == 0.5 ** (3 - i)
    assert rates["norm.gain"] == rates["head.weight"] == rates["head.bias"] == 1.0
    # A tied head belongs to the embedding, which comes first; the norm is still the last layer.
    tied = {name: group["lr"] for name, group in where(Transformer(), lr=1.0, layer_decay=0.5).items()}
    assert (tied["embedding.weight"], tied["norm.gain"]) == (0.5**4, 1.0)


def test_layers_of_a_conv_net():
    names = {name: group["name"].split()[0] for name, group in where(ConvNet(), lr=1.0, layer_decay=0.5).items()}
    expected = {"stem.0.weight": 0, "layer1.0.0.weight": 1, "layer1.1.1.bias": 2, "widen.weight": 2}
    expected |= {"layer2.0.0.weight": 3, "layer2.1.0.weight": 4, "fc.weight": 5, "scale": 0}
    assert {name: names[name] for name in expected} == {name: f"layer_{depth}" for name, depth in expected.items()}


def test_a_plain_stack_has_no_layers_around_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    rates = {name: group["lr"] for name, group in where(model, lr=1.0, layer_decay=0.5).items()}
    assert (rates["0.weight"], rates["2.bias"], rates["4.weight"]) == (0.25, 0.5, 1.0)


def test_layers_can_be_named():
    layers = ["stem.*", "layer?.*", "*"]
    rates = {name: group["lr"] for name, group in where(ConvNet(), lr=1.0, layer_decay=0.1, layers=layers).items()}
    assert (rates["stem.0.bias"], rates["layer2.0.0.weight"], rates["fc.bias"]) == pytest.approx((0.01, 0.1, 1.0))


def test_a_scheduled_rate_keeps_its_scale():
    opt = onepass.AdamW(param_groups(Untied(), lr=linear(0.0, 1.0, steps=4), layer_decay=0.5))
    for _ in range(3):
        opt.step()
    rates = {group["name"]: group["lr"] for group in opt.param_groups}
    assert (rates["layer_0 decay"], rates["layer_4 no_decay"]) == (0.5 * 0.5**4, 0.5)


def test_overrides_by_glob_and_by_regular_expression():
    groups = where(
        Untied(),
        weight_decay=0.1,
        lr=1.0,
        layer_decay=0.5,
        overrides={"head.*": {"lr": 7.0, "weight_decay": 0.3}, re.compile(r"mlp\.\d\.weight"): {"betas": (0.5, 0.9)}},
    )
    assert (groups["head.bias"]["lr"], groups["head.bias"]["weight_decay"]) == (7.0, 0.3)
    assert groups["head.weight"]["name"] == "layer_4 decay head.*"
    assert {name for name, group in groups.items() if "betas" in group} == {
        f"blocks.{i}.mlp.{j}.weight" for i in range(3) for j in (0, 2)
    }
    assert groups["blocks.1.mlp.0.weight"]["lr"] == 0.25


def test_overrides_that_agree_are_joined():
    groups = where(ConvNet(), overrides={"fc.*": {"lr": 1.0}, "*.weight": {"lr": 1.0, "eps": 1e-4}})
    assert (groups["fc.weight"]["lr"], groups["fc.weight"]["eps"]) == (1.0, 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": {"fc.*": {"lr": 1.0}, "*.bias": {"lr": 2.0}}}, r"'fc\.\*' and '\*\.bias' contra.*fc\.bias: lr"),
        ({"overrides": {"fc.*": {"weight_decay": 1.0}}, "no_decay": ["fc.*"]}, r"'no_decay=fc\.\*' and 'fc\.\*' con"),
        ({"overrides": {"fc.*": {"params": []}}}, "overrides 'params', which is no hyperparameter"),
        ({"layer_decay": 0.5}, r"layer_decay=0\.5 scales a learning rate: give lr="),
        ({"layer_decay": 1.5, "lr": 1.0}, r"must lie in \(0, 1\], and 1\.5 does not"),
        ({"layers": ["fc.*"]}, r"layers=\['fc\.\*'\] says nothing without layer_decay"),
        ({"layers": ["fc.*"], "layer_decay": 0.5, "lr": 1.0}, r"scale is in none of layers=\['fc\.\*'\]"),
    ],
)  # fmt: skip
def test_contradictions_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        param_groups(ConvNet(), **options)


def test_what_is_no_model_with_parameters_is_an_error():
    with pytest.raises(TypeError, match=r"a model, a torch\.nn\.Module, not generator"):
        param_groups(ConvNet().parameters())
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        param_groups(nn.ReLU())
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet"):
        param_groups(nn.Sequential(nn.LazyLinear(3)))
    mixed = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    with pytest.raises(ValueError, match=r"Sequential has no nn\.ModuleList .* layers=\['stem"):
        param_groups(mixed, lr=0.1, layer_decay=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": {"layer1.0.0.wieght": {}}}, r"'layer1\.0\.0\.wieght' matches no .*layer1\.0\.0\.weight"),
        ({"no_decay": ["scael"]}, r"'no_decay=scael' matches no parameter; the nearest names are scale"),
        ({"no_decay": [nn.Embedding]}, r"'no_decay=Embedding' matches no parameter; known: BatchNorm2d"),
        ({"lr": 1.0, "layer_decay": 0.5, "layers": ["steem.*", "*"]}, r"'layers=steem\.\*' matches no .* stem\.0"),
    ],
)  # fmt: skip
def test_a_pattern_that_matches_nothing_warns(options, message):
    with pytest.warns(UserWarning, match=message):
        param_groups(ConvNet(), **options)


def test_the_table_adds_up():
    model = Untied()
    groups = param_groups(model, weight_decay=0.1, overrides={"head.*": {"lr": 1e-4}})
    lines = str(groups).splitlines()
    assert repr(groups) == str(groups)
    assert lines[0].split() == ["group", "tensors", "parameters", "hyperparameters", "for", "example"]
    assert len(lines) == len(groups) + 2
    total = sum(p.numel() for p in model.parameters())
    assert lines[-1].split() == ["total", str(len(list(model.parameters()))), f"{total:,}"]
    assert re.search(r"(?m)^decay head\.\* +1 +88 +weight_decay=0\.1, lr=0\.0001 +head\.weight$", str(groups))
