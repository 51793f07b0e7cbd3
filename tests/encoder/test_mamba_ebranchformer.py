"""E-Branchformer with chosen branches."""

import pytest
import torch

from mambaasr.encoder.mamba_ebranchformer import EBranchformerBlock, MambaEBranchformerEncoder
from mambaasr.espnet_compat import import_quietly
from mambaasr.layers.attention import SelfAttention
from mambaasr.layers.cgmlp import ConvolutionalGatingMLP

# Our names -> ESPnet's.
NAMES = {
    "norm_macaron": "norm_ff_macaron",
    "feed_forward_macaron.0": "feed_forward_macaron.w_1",
    "feed_forward_macaron.3": "feed_forward_macaron.w_2",
    "norms.0": "norm_mha",
    "norms.1": "norm_mlp",
    "branches.0.linear_out": "attn.linear_out",
    "branches.1.linear_in": "cgmlp.channel_proj1.0",
    "branches.1.norm": "cgmlp.csgu.norm",
    "branches.1.conv": "cgmlp.csgu.conv",
    "branches.1.linear_out": "cgmlp.channel_proj2",
    "merge_conv": "depthwise_conv_fusion",
    "merge_linear": "merge_proj",
    "norm_ff": "norm_ff",
    "feed_forward.0": "feed_forward.w_1",
    "feed_forward.3": "feed_forward.w_2",
    "norm_final": "norm_final",
}


def espnets_block(macaron):
    """ESPnet's E-Branchformer layer of width 8 with 2 heads; kernels 5 and 3."""
    espnet = import_quietly("espnet2.asr.encoder.e_branchformer_encoder")
    feeds = [espnet.PositionwiseFeedForward(8, 20, 0.0, torch.nn.SiLU()) for _ in range(2)]
    return espnet.EBranchformerEncoderLayer(
        8,
        espnet.MultiHeadedAttention(2, 8, 0.0),
        espnet.ConvolutionalGatingMLP(8, 12, 5, 0.0, False, "identity"),
        feeds[0],
        feeds[1] if macaron else None,
        0.0,
        3,
    )


@pytest.mark.parametrize("macaron", [True, False])
def test_with_attention_and_cgmlp_it_is_espnets_block(macaron):
    torch.manual_seed(0)
    branches = {"attention": SelfAttention(8, 2), "cgmlp": ConvolutionalGatingMLP(8, 12, 5)}
    block = EBranchformerBlock(8, branches, hidden=20, macaron=macaron)
    block.eval()
    with torch.no_grad():
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    state = {}
    for key, value in block.state_dict().items():
        name, _, rest = key.rpartition(".")
        if name == "branches.0.linear_qkv":
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                state[f"attn.linear_{part}.{rest}"] = piece
        else:
            state[f"{NAMES[name]}.{rest}"] = value
    peer = espnets_block(macaron).eval()
    peer.load_state_dict(state)
    x = torch.randn(2, 9, 8)
    want, _ = peer(x, torch.ones(2, 1, 9, dtype=torch.bool))
    got = block(x, torch.tensor([9, 9]))
    # Its norms add 1e-12 to the variance, torch's default is 1e-5.
    assert got.std() > 0.1 and torch.allclose(got, want, atol=1e-3)


def test_every_branch_has_a_say():
    torch.manual_seed(0)
    branches = ["attention", "mamba", "cgmlp"]
    encoder = MambaEBranchformerEncoder(
        8, 16, 1, branches=branches, linear_units=8, input_layer="linear"
    ).eval()
    x, lengths = torch.randn(1, 7, 8), torch.tensor([7])
    whole = encoder(x, lengths)[0]
    block = encoder.blocks[0]
    for index in range(3):
        kept = block.norms[index]
        block.norms[index] = torch.nn.Sequential(kept, torch.nn.Threshold(1e9, 0.0))
        assert (encoder(x, lengths)[0] - whole).abs().max() > 1e-4, branches[index]
        block.norms[index] = kept
    assert torch.equal(encoder(x, lengths)[0], whole)
