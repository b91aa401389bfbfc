"""FSDP2: each process keeps a shard of every parameter, gathered block by block as the network runs."""

from collections.abc import Iterator
from pathlib import Path

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor


class Sharding(ModelParallelStrategy):
    """FSDP2 over all processes, with checkpoints that are whole, as if one process had written them.

    Lightning's own expects of every checkpoint the optimizer's state of all that learns now: a backbone that was
    frozen until then has none, and validation needs none.
    """

    def __init__(self, processes: int):
        super().__init__(processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict:
        module, optimizers = self.lightning_module, self.optimizers
        assert module is not None  # it is connected before anything is loaded
        strict = module.strict_loading
        if module.trainer.state.fn != "fit":
            self.optimizers = []
        module.strict_loading = False
        try:
            return super().load_checkpoint(checkpoint_path, weights_only)
        finally:
            module.strict_loading, self.optimizers = strict, optimizers


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the parameters of a model's parts, block by block; a second call changes nothing."""
    for part in model.children():
        if any(True for _ in part.parameters()) and not isinstance(part, FSDPModule):
            part.to(memory_format=torch.contiguous_format)  # it takes no others
            for block in blocks_of(part):
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh)
            fully_shard(part, mesh=mesh)


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The modules in the network's lists and sequences, and in those within them: B0 has its 16 blocks."""
    for child in network.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from blocks_of(child)
            yield from (one for one in child if not isinstance(one, nn.Sequential | nn.ModuleList))


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state with every parameter whole; all processes must call it."""
    state = {key: value.detach() for key, value in module.state_dict().items()}
    return {key: value.full_tensor() if isinstance(value, DTensor) else value.clone() for key, value in state.items()}


def load_whole_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `whole_state` has returned."""
    set_model_state_dict(module, {**state}, options=StateDictOptions(full_state_dict=True))
