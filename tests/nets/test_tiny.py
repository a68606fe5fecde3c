from __future__ import annotations

import pytest
import torch

from contracts import BackboneContract
from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone
from tagseg.nets.tiny import Tiny


def test_it_is_small() -> None:
    assert sum(parameter.numel() for parameter in Tiny().parameters()) < 1.25e6


def test_stride_16_is_stride_8_at_every_second_position_up_to_block4s_stride() -> None:
    torch.manual_seed(0)
    fine, coarse = Tiny(8).eval(), Tiny(16).eval()
    coarse.load_state_dict(fine.state_dict())
    x = torch.rand(1, 3, 64, 81)
    with torch.inference_mode():
        assert fine.activations(x).block4.shape[2:] == (8, 11)
        assert coarse.activations(x).block4.shape[2:] == (4, 6)
        first = [net.block3(net.block2(net.block1(net.normalise(x)))) for net in (fine, coarse)]
        torch.testing.assert_close(first[0], first[1])
        halved = fine.block4.conv1(first[0])[..., ::2, ::2]
        torch.testing.assert_close(coarse.block4.conv1(first[1]), halved)


def test_a_block_is_residual() -> None:
    torch.manual_seed(0)
    block = Tiny().block4.eval()
    with torch.inference_mode():
        x = torch.rand(1, 96, 5, 6)
        inner = block.norm1(block.conv1(x)).relu()
        torch.testing.assert_close(block(x), (inner + block.norm2(block.conv2(inner))).relu())


@pytest.mark.parametrize("stride", [0, 4, 32])
def test_other_output_strides_are_refused(stride: int) -> None:
    with pytest.raises(ConfigError, match=f"output stride {stride}; use 8 or 16"):
        Tiny(stride)


@pytest.mark.parametrize(("stride", "strides"), [(8, [2, 4, 8, 8, 8]), (16, [2, 4, 8, 16, 16])])
def test_feature_blocks_are_the_blocks(stride: int, strides: list[int]) -> None:
    torch.manual_seed(0)
    net = Tiny(stride).eval()
    blocks = net.feature_blocks()
    assert [block.stride for block in blocks] == strides
    assert [block.layers for block in blocks] == [(f"block{i}",) for i in range(1, 6)]
    outputs = []
    for block in blocks[3:]:
        net.get_submodule(block.layers[0]).register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )
    activations = net.activations(torch.rand(1, 3, 40, 48))
    assert outputs[0] is activations.block4
    assert outputs[1] is activations.block5


class TestDilated(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        torch.manual_seed(0)
        return Tiny(dilated=True).eval()


@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_spreads_the_kernels_of_block5_alone(stride: int) -> None:
    torch.manual_seed(0)
    plain, dilated = Tiny(stride).eval(), Tiny(stride, dilated=True).eval()
    dilated.load_state_dict(plain.state_dict())
    assert (plain.dilated, dilated.dilated) == (False, True)
    x = torch.rand(1, 3, 128, 160)
    with torch.inference_mode():
        ours, theirs = dilated.activations(x), plain.activations(x)
        assert torch.equal(ours.block4, theirs.block4)
        # A kernel dilated by 2 sees every second position: the plain one on each half of them.
        for row in (0, 1):
            for column in (0, 1):
                half = plain.block5(theirs.block4[..., row::2, column::2])
                torch.testing.assert_close(ours.block5[..., row::2, column::2], half)


def test_no_dilation_unless_asked() -> None:
    assert str(Tiny()) == str(Tiny(dilated=None)) == str(Tiny(dilated=False))
