"""AdamW: torch's, to the bit, without the second that torch's class takes to import."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from qkd_qiskit.teachers.adamw import AdamW

RATES = (0.1, 0.1, 0.03, 0.01, 0.0)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Linear(3, 2))
    made[2].weight.requires_grad_(False)
    return made


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_torch(fused, weight_decay, dtype):
    ours, theirs = network().to(dtype), network().to(dtype)
    own = AdamW(ours.parameters(), weight_decay=weight_decay, fused=fused)
    reference = torch.optim.AdamW(
        theirs.parameters(), weight_decay=weight_decay, fused=True if fused else None
    )
    inputs = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    for step, lr in enumerate(RATES):
        for module, optimizer in ((ours, own), (theirs, reference)):
            optimizer.zero_grad()
            # The last layer has no gradient at first, and no state.
            whole = module(inputs) if step > 1 else module[:3](inputs)
            whole.square().sum().backward()
        own.step(lr=lr)
        reference.param_groups[0]["lr"] = lr
        reference.step()
        for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(left, right)
            assert own.state.get(left, {}).keys() == reference.state.get(right, {}).keys()
            for name, value in own.state.get(left, {}).items():
                assert torch.equal(value, reference.state[right][name])
                assert value.dtype == reference.state[right][name].dtype


def test_a_state_that_was_left_goes_on():
    whole, halves = network(), network()
    state = {}
    for module, parts in ((whole, [slice(None)]), (halves, [slice(2), slice(2, None)])):
        for part in parts:
            kept = state if module is halves else None
            optimizer = AdamW(module.parameters(), weight_decay=0.1, state=kept)
            for lr in RATES[part]:
                optimizer.zero_grad()
                module(torch.ones(3, 5)).square().sum().backward()
                optimizer.step(lr=lr)
    for left, right in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(left, right)


def test_nothing_to_train_takes_no_step():
    parameter = torch.ones(3, requires_grad=True)
    AdamW([parameter], weight_decay=0.5).step(lr=0.1)
    assert torch.equal(parameter, torch.ones(3))


def test_a_teacher_trains_without_the_compiler_of_torch():
    code = (
        "import sys, qkd_qiskit as qkd\n"
        "data = qkd.load_data(qkd.DataSpec(name='digits'))\n"
        "qkd.make_teacher(qkd.TeacherSpec(kind='softmax', epochs=1), data, cache=False)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout == "False\n"
