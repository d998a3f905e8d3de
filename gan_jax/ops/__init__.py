"""Array primitives that XLA lacks or runs slowly."""

from gan_jax.ops.conv import conv, conv_transpose, filter_grad

__all__ = ['conv', 'conv_transpose', 'filter_grad']
