"""The MLP, by hand."""

import torch
from reference import tiny

from qwenkit.model import MLP


def test_by_hand():
    """SiLU is on the gate: SiLU(1) = 0.7311, SiLU(-2) = -0.2384."""
    mlp = tiny(hidden_size=2, intermediate_size=2, num_attention_heads=1, num_key_value_heads=1)
    mlp = mlp.model.layers[0].mlp
    mlp.gate_proj.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    mlp.up_proj.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
    mlp.down_proj.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    # x = (1, 2): gate (1, -2), up (3, 10), act (2.19318, -2.38406)
    got = mlp(torch.tensor([[[1.0, 2.0]]]))
    torch.testing.assert_close(got, torch.tensor([[[2.193176, -0.190881]]]), rtol=1e-5, atol=1e-5)


def test_no_bias_so_zeros_give_zeros_and_each_token_passes_alone():
    mlp: MLP = tiny().model.layers[0].mlp
    assert all(part.bias is None for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    assert torch.equal(mlp(torch.zeros(1, 2, 32)), torch.zeros(1, 2, 32))
    x = torch.randn(2, 3, 32)
    torch.testing.assert_close(mlp(x)[1, 2], mlp(x[1:, 2:])[0, 0])
