"""cifar10.machine: free memory respects a control group's limit, and keeping freed memory changes no result."""

import subprocess
import sys

from cifar10 import machine


def test_sizes_are_given_in_the_unit_that_suits_them():
    assert [machine.size(n) for n in (1_500_000, 2_440_000_000)] == ["1.5 MB", "2.4 GB"]


def test_the_limit_of_a_control_group_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    assert machine.free_memory() == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory() > 600


def test_training_computes_the_same_with_freed_memory_kept():
    code = """
import sys
from cifar10.machine import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import torch
torch.manual_seed(0)
x = torch.randn(64, 3, 64, 64, requires_grad=True)
torch.nn.functional.conv2d(x, torch.randn(32, 3, 3, 3)).relu().sum().backward()
print(x.grad.double().sum().item())
"""
    results = [subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True).stdout
               for name in ("kept", "left")]  # fmt: skip
    assert results[0] == results[1] != ""


def test_the_environments_own_settings_are_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: 1 / 0)
    machine.keep_freed_memory()
