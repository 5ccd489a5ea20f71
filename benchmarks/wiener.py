"""The best linear denoiser of Gaussian noise: python benchmarks/wiener.py [SIGMA...]

    x^ = m + W (x~ - m),  W = C (C + sigma^2 I)^-1          m, C: mean and covariance of MNIST's training images
    E |x - x^|^2 = |(I - W)(x - m)|^2 + sigma^2 |W|_F^2      the mean over the noise; averaged over the test images

Prints the psnr that a denoising autoencoder at that sigma has to beat: in closed form as it is, and with the output
clipped to [0, 1], as pixels are and as a network's output is, by one draw of the noise (seed 0). Beside it the noisy
image left as it is, clipped too.
"""

import math
import sys

import torch

from aelab.data import open_data


def psnr(mse: float) -> str:
    return f"{-10 * math.log10(mse):.2f} dB"


data = open_data("mnist")
train, test = (split.images.flatten(1).double() / 255 for split in (data.train, data.test))
mean, covariance, one = train.mean(0), torch.cov(train.T, correction=0), torch.eye(train.shape[1]).double()
for sigma in map(float, sys.argv[1:] or ["0.1", "0.3", "0.5", "1.0"]):
    w = torch.linalg.solve(covariance + sigma**2 * one, covariance).T
    bias = ((test - mean) @ (one - w).T).square().sum(1).mean()
    mse = float(bias + sigma**2 * w.square().sum()) / len(mean)
    noisy = test + sigma * torch.randn(test.shape, generator=torch.Generator().manual_seed(0), dtype=test.dtype)
    outputs = (mean + (noisy - mean) @ w.T, noisy)
    filtered, left = (psnr(float((x.clamp(0, 1) - test).square().mean())) for x in outputs)
    print(f"sigma {sigma:g}: not clipped {psnr(mse)}, clipped {filtered}; left as it is, clipped: {left}")
