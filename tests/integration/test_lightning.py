"""Lightning: it subclasses the optimizer's class, clips, casts, schedules and resumes."""

import pytest
import torch
from helpers import relative_error

import onepass

lightning = pytest.importorskip("pytorch_lightning")


class Regression(lightning.LightningModule):
    def __init__(self, cls):
        super().__init__()
        torch.manual_seed(0)
        self.cls = cls
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        self.losses, self.rates = [], []

    def training_step(self, batch, _):
        x, y = batch
        loss = (self.layers(x.to(self.layers[0].weight.dtype)) - y).square().mean()
        self.losses.append(loss.item())
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return loss

    def configure_optimizers(self):
        optimizer = self.cls(self.parameters(), lr=3e-2, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-2, total_steps=32)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def batches():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    return torch.utils.data.DataLoader(data, batch_size=8)


def fit(folder, cls=onepass.AdamW, epochs=4, resume=None, **more):
    model = Regression(cls)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        gradient_clip_val=0.5,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    trainer.fit(model, batches(), ckpt_path=resume)
    trainer.save_checkpoint(folder / "last.ckpt")
    return model, trainer


def values(model):
    return [p.detach().float() for p in model.parameters()]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-true"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, precision):
    whole, trainer = fit(tmp_path / "whole", precision=precision)
    assert isinstance(trainer.optimizers[0], onepass.AdamW)
    assert sum(whole.losses[-8:]) < 0.5 * sum(whole.losses[:8])
    assert len(set(whole.rates)) == len(whole.rates) == 32
    fit(tmp_path / "half", epochs=2, precision=precision)
    resumed, _ = fit(tmp_path / "resumed", resume=tmp_path / "half" / "last.ckpt", precision=precision)
    assert resumed.losses == whole.losses[16:]
    assert resumed.rates == whole.rates[16:]
    assert all(torch.equal(p, q) for p, q in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_it_trains_as_torchs_optimizer_does(tmp_path):
    ours, _ = fit(tmp_path / "ours")
    theirs, _ = fit(tmp_path / "theirs", torch.optim.AdamW)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert relative_error(values(ours), values(theirs)) < 1e-3


class ByHand(Regression):
    """Manual optimization: the step goes through the class that Lightning makes out of ours."""

    def __init__(self, cls):
        super().__init__(cls)
        self.automatic_optimization = False

    def configure_optimizers(self):
        return self.cls(self.parameters(), lr=3e-2)

    def training_step(self, batch, index):
        optimizer = self.optimizers()
        assert isinstance(optimizer, onepass.AdamW)
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, index))
        optimizer.step()


def test_manual_optimization(tmp_path):
    model = ByHand(onepass.AdamW)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=4, default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, batches())
    assert sum(model.losses[-8:]) < 0.5 * sum(model.losses[:8])
    assert {float(state["step"]) for state in trainer.optimizers[0].state.values()} == {32.0}
