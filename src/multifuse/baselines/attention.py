"""Attention and transformer layers under token masks, which stay finite where a sample has no tokens."""

from torch import Tensor, nn


class MaskedAttention(nn.Module):
    """`nn.MultiheadAttention` from queries (B, T, d) to keys (B, S, d) under a mask (B, S) of the keys -> (B, T, d).

    A sample whose keys are all masked gets zeros.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.attention = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor
        if mask is None:
            return self.attention(queries, keys, keys, need_weights=False)[0]  # type: ignore[no-any-return]
        attended, _ = self.attention(queries, keys, keys, key_padding_mask=_hidden(mask), need_weights=False)
        return attended.masked_fill(~mask.any(dim=1)[:, None, None], 0.0)


class MaskedTransformer(nn.Module):
    """A pre-norm transformer encoder on tokens (B, T, d) under a mask (B, T) -> (B, T, d), meaningless at padding.

    The feed-forward width is 2 d. `nn.TransformerEncoder` is not used, since it starts all layers with equal weights.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, num_layers: int = 1) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, num_heads, 2 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        hidden = None if mask is None else _hidden(mask)
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=hidden)
        return tokens


def _hidden(mask: Tensor) -> Tensor:
    """Returns which keys attention must not see; none in a sample without tokens, which would give NaN."""
    return ~mask & mask.any(dim=1, keepdim=True)


def _check_heads(dim: int, num_heads: int) -> None:
    if dim % num_heads:
        raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}")
