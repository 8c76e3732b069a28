"""Sparse gradients: the rows that have one are stepped by the rule, the others are left alone."""

import pytest
import torch

import onepass


def embedding(sparse, start):
    table = torch.nn.Embedding(7, 3, sparse=sparse)
    table.weight = torch.nn.Parameter(start.clone())
    return table


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_rows_with_a_gradient_step_as_if_they_were_a_dense_parameter(name, backend):
    if name == "ranger":
        pytest.skip("it centralises rows, which is no elementwise rule")
    torch.manual_seed(0)
    start, other = torch.randn(7, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    options = {"lr": 0.1, "weight_decay": 0.1, "backend": backend, "transforms": [onepass.clip_value(0.5)]}
    table, dense = embedding(True, start), torch.nn.Parameter(other.clone())
    opt = onepass.create(name, [table.weight, dense], **options)
    # The same two rows, one of them used twice, every time: then their own dense parameter must do the same.
    rows, alone = torch.nn.Parameter(start[[1, 4]].clone()), torch.nn.Parameter(other.clone())
    plain = onepass.create(name, [rows, alone], **options)
    for _ in range(8):
        opt.zero_grad()
        plain.zero_grad()
        (table(torch.tensor([1, 4, 1])).square().sum() + dense.square().sum()).backward()
        (rows[[0, 1, 0]].square().sum() + alone.square().sum()).backward()
        assert table.weight.grad.is_sparse
        opt.step()
        plain.step()
    assert torch.allclose(table.weight[[1, 4]], rows, rtol=1e-12)
    assert torch.equal(table.weight[[0, 2, 3, 5, 6]], start[[0, 2, 3, 5, 6]])
    assert torch.allclose(dense, alone, rtol=1e-12)
    assert opt.state[table.weight]["step"] == opt.state[dense]["step"] == 8


def test_it_does_what_torchs_sparse_adam_does():
    torch.manual_seed(0)
    start = torch.randn(7, 3, dtype=torch.float64)
    ours, theirs = embedding(True, start), embedding(True, start)
    mine, other = onepass.Adam(ours.parameters()), torch.optim.SparseAdam(list(theirs.parameters()))
    for t in range(12):
        chosen = torch.randint(0, 7, (4,), generator=torch.Generator().manual_seed(t))
        for table, opt in ((ours, mine), (theirs, other)):
            opt.zero_grad()
            table(chosen).square().sum().backward()
            opt.step()
    # SparseAdam adds eps before the bias correction, which is all the difference there is.
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-5)


def test_dense_and_sparse_gradients_may_alternate():
    torch.manual_seed(0)
    table = embedding(True, torch.randn(7, 3))
    opt = onepass.AdamW(table.parameters())
    for t in range(6):
        opt.zero_grad()
        if t % 2:
            table(torch.tensor([1])).sum().backward()
        else:
            table.weight.grad = torch.ones(7, 3)
        opt.step()
    assert opt.state[table.weight]["step"] == 6


@pytest.mark.parametrize("transform", [onepass.clip_norm(1.0), onepass.cautious(), onepass.centralize()])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_what_spans_more_than_an_element_is_an_error_that_changes_nothing(transform, backend):
    table, dense = embedding(True, torch.ones(7, 3)), torch.nn.Parameter(torch.ones(2))
    opt = onepass.Adam([dense, table.weight], transforms=[transform], backend=backend)
    (table(torch.tensor([1])).sum() + dense.sum()).backward()
    with pytest.raises(RuntimeError, match="does not take sparse gradients"):
        opt.step()
    assert torch.equal(dense, torch.ones(2))
    assert all(state["step"] == 0 for state in opt.state.values())
