"""transformers' Trainer, given the optimizer as a class and its arguments."""

import copy

import pytest
import torch
from helpers import relative_error

import onepass

transformers = pytest.importorskip("transformers")

STEPS_OF_AN_EPOCH = 8


class Sentences(torch.utils.data.Dataset):
    """Sixteen of them, of twelve tokens that count upwards."""

    def __len__(self):
        return 2 * STEPS_OF_AN_EPOCH

    def __getitem__(self, i):
        tokens = (torch.arange(12) + i) % 32
        return {"input_ids": tokens, "labels": tokens}


def make_model():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def trainer(folder, optimizer, **more):
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        num_train_epochs=2,
        per_device_train_batch_size=2,
        max_grad_norm=0.5,
        weight_decay=0.1,
        learning_rate=2e-2,
        lr_scheduler_type="cosine",
        warmup_steps=3,
        save_strategy="epoch",
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **more,
    )
    return transformers.Trainer(
        make_model(), arguments, train_dataset=Sentences(), optimizer_cls_and_kwargs=(optimizer, {"lr": 2e-2})
    )


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def losses(run):
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


@pytest.mark.parametrize("cls", [onepass.AdamW, onepass.Ranger])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, cls):
    whole = trainer(tmp_path / "whole", cls)
    whole.train()
    assert type(whole.optimizer.optimizer) is cls
    # The Trainer's own groups: no decay for biases and norms.
    assert [group["weight_decay"] for group in whole.optimizer.param_groups] == [0.1, 0.0]
    assert losses(whole)[-1] < losses(whole)[0]

    resumed = trainer(tmp_path / "resumed", cls)
    resumed.train(resume_from_checkpoint=tmp_path / "whole" / f"checkpoint-{STEPS_OF_AN_EPOCH}")
    assert resumed.state.global_step == whole.state.global_step == 2 * STEPS_OF_AN_EPOCH
    assert all(torch.equal(p, q) for p, q in zip(values(resumed.model), values(whole.model), strict=True))
    ours, theirs = resumed.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"]
    assert all(torch.equal(ours[i][key], theirs[i][key]) for i in theirs for key in theirs[i])


def test_it_trains_as_torchs_optimizer_does(tmp_path):
    # One after the other: building a Trainer sets the seed that its dropout follows.
    ours = trainer(tmp_path / "ours", onepass.AdamW)
    ours.train()
    theirs = trainer(tmp_path / "theirs", torch.optim.AdamW)
    theirs.train()
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-3)
    assert relative_error(values(ours.model), values(theirs.model)) < 1e-2


def test_bfloat16_and_accumulated_gradients(tmp_path):
    run = trainer(tmp_path, onepass.AdamW, bf16=True, gradient_accumulation_steps=2)
    before = copy.deepcopy(run.model)
    run.train()
    assert run.state.global_step == STEPS_OF_AN_EPOCH
    assert {float(state["step"]) for state in run.optimizer.state.values()} == {STEPS_OF_AN_EPOCH}
    assert losses(run)[-1] < losses(run)[0]
    assert relative_error(values(run.model), values(before)) > 1e-3
