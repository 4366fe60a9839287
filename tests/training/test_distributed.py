"""Two processes that share a batch, compared with one process that has all of it, in double precision."""

import copy
from pathlib import Path

import torch
from torch import distributed, nn

from pipeline.training.distributed import in_any_process, shared_denominator, with_synchronised_batchnorm

BATCH = torch.randn(6, 4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 100
WEIGHTS = torch.randn(6, 4, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)).double()


def train_step(net: nn.Module, rows: slice) -> dict[str, torch.Tensor]:
    """Loss, gradients and statistics of one step; the loss is a sum over the batch divided by a count."""
    x = BATCH[rows].clone().requires_grad_()
    count = torch.tensor(float(len(x) ** 2), dtype=torch.float64)  # uneven, like counts of joints
    loss = (net(x) * WEIGHTS[rows]).square().sum() / shared_denominator(count)
    loss.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return {"loss": loss.detach(), "x": x.grad, **gradients, **dict(net.named_buffers())}


def process(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    net = with_synchronised_batchnorm(network())
    # Uneven shares: a mean of means would give another result.
    torch.save(train_step(net, [slice(0, 2), slice(2, 6)][rank]), folder / f"{rank}.pt")
    net.eval()
    torch.save(net(BATCH).detach(), folder / f"eval{rank}.pt")
    # A third of a person each: two thirds in one process, which count as one.
    torch.save(shared_denominator(torch.tensor(1 / 3)), folder / f"few{rank}.pt")
    torch.save(
        [in_any_process(rank == 1, torch.device("cpu")), in_any_process(False, torch.device("cpu"))],
        folder / f"any{rank}.pt",
    )
    distributed.destroy_process_group()


def test_statistics_losses_and_gradients_equal_those_of_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(process, (tmp_path,), nprocs=2)
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    plain = network()
    x = BATCH.clone().requires_grad_()
    loss = (plain(x) * WEIGHTS).square().sum() / (2**2 + 4**2)
    loss.backward()
    # Losses and gradients are averaged over processes, so each is twice its part of the whole.
    torch.testing.assert_close(sum(share["loss"] for share in shares) / 2, loss.detach())
    torch.testing.assert_close(torch.cat([share["x"] for share in shares]) / 2, x.grad)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(sum(share[name] for share in shares) / 2, parameter.grad)
    for name, buffer in plain.named_buffers():
        for share in shares:
            torch.testing.assert_close(share[name], buffer)
    plain.eval()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"eval{rank}.pt"), plain(BATCH).detach())
        assert torch.load(tmp_path / f"few{rank}.pt").item() == 0.5
        assert torch.load(tmp_path / f"any{rank}.pt") == [True, False]
    assert [in_any_process(flag, torch.device("cpu")) for flag in (True, False)] == [True, False]


def test_one_process_shares_nothing() -> None:
    assert shared_denominator(torch.tensor(3.0)).item() == 3
    assert shared_denominator(torch.tensor(2 / 3)).item() == 1
    net = network()
    names = list(net.state_dict())
    assert list(with_synchronised_batchnorm(copy.deepcopy(net)).state_dict()) == names
