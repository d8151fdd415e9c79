"""Naive loops, obviously right, that fast code is compared with."""

import numpy as np


def conv2d(x, w, b, stride, padding, dilation):
    """y[n,k,i,j] = b[k] + sum of w[k,c,u,v] x[n, c, i SH + u DH - PH, j SW + v DW - PW]."""
    (n, channels, height, width), (filters, _, kh, kw) = x.shape, w.shape
    oh, ow = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((height, width), (kh, kw), stride, padding, dilation, strict=True)
    )
    y = np.zeros((n, filters, oh, ow)) + b[:, None, None]
    for i, j, u, v in np.ndindex(oh, ow, kh, kw):
        row = i * stride[0] + u * dilation[0] - padding[0]
        col = j * stride[1] + v * dilation[1] - padding[1]
        if 0 <= row < height and 0 <= col < width:
            for c in range(channels):
                y[:, :, i, j] += x[:, c, row, col][:, None] * w[:, c, u, v]
    return y


def conv2d_grads(x, w, g, stride, padding, dilation):
    """Return (dE/dx, dE/dw) by the same loop, each product handing its share back."""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n, k, i, j, c, u, v in np.ndindex(*g.shape, x.shape[1], *w.shape[2:]):
        row = i * stride[0] + u * dilation[0] - padding[0]
        col = j * stride[1] + v * dilation[1] - padding[1]
        if 0 <= row < x.shape[2] and 0 <= col < x.shape[3]:
            dx[n, c, row, col] += g[n, k, i, j] * w[k, c, u, v]
            dw[k, c, u, v] += g[n, k, i, j] * x[n, c, row, col]
    return dx, dw


def pool2d(x, size, stride, reduce):
    """y[n,c,i,j] = reduce of the window at (i SH, j SW)."""
    oh, ow = ((length - k) // s + 1 for length, k, s in zip(x.shape[2:], size, stride, strict=True))
    y = np.zeros((*x.shape[:2], oh, ow))
    for i, j in np.ndindex(oh, ow):
        window = x[:, :, i * stride[0] : i * stride[0] + size[0], j * stride[1] : j * stride[1] + size[1]]
        y[:, :, i, j] = reduce(window, axis=(2, 3))
    return y
