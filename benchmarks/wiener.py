"""The best linear denoiser of Gaussian noise, in closed form: python benchmarks/wiener.py [SIGMA...]

    x^ = m + W (x~ - m),  W = C (C + sigma^2 I)^-1          m, C: mean and covariance of MNIST's training images
    E |x - x^|^2 = |(I - W)(x - m)|^2 + sigma^2 |W|_F^2      the mean over the noise; averaged over the test images

Prints the psnr that a denoising autoencoder at that sigma has to beat; the output is not clipped.
"""

import math
import sys

import torch

from aelab.data import open_data

data = open_data("mnist")
train, test = (split.images.flatten(1).double() / 255 for split in (data.train, data.test))
mean, covariance, one = train.mean(0), torch.cov(train.T, correction=0), torch.eye(train.shape[1]).double()
for sigma in map(float, sys.argv[1:] or ["0.1", "0.3", "0.5", "1.0"]):
    w = torch.linalg.solve(covariance + sigma**2 * one, covariance).T
    bias = ((test - mean) @ (one - w).T).square().sum(1).mean()
    mse = float(bias + sigma**2 * w.square().sum()) / len(mean)
    print(f"sigma {sigma:g}: mse {mse:.6f}, psnr {-10 * math.log10(mse):.2f} dB")
